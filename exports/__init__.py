"""Releases: what other people download, and the report that says how they came about."""
