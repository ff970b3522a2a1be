"""One command for a bare GPU machine that has Python and PyTorch and reaches no network."""
