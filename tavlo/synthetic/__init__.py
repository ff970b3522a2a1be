"""A benchmark of drawn clips with exact masks."""
