"""What people decide: reviews, and the instances that follow from them."""
