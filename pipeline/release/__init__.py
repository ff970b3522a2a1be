"""What a release is: its document, its files, the rules it obeys."""
