"""Agreement between people, and the cost of annotation."""
