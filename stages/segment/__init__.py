"""The way from boxes to masks."""
