"""The published figures, and tables of ours beside them."""
