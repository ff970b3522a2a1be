"""The release: its document, its files, the rules it obeys, and its reader."""
