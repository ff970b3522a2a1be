"""Sending tasks to a server and bringing the answers back."""
