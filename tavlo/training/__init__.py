"""Training TAVLO or any other recipe, in one loop."""
