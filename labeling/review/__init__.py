"""What follows from reviews: instances, verified masks, gold answers."""
