"""Talking to a Label Studio server: requests, the shapes of its answers, brush masks."""
