"""Taggers: what those that are models share, and the one that is none."""
