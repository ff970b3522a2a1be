"""A workspace on the disk: storage, tables, commits, locks and settings."""
