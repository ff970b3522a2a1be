"""A small world with known answers, and the whole chain run on it."""
