"""The demo: a drawn world goes through the real commands and is scored against its truth."""
