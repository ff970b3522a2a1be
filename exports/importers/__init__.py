"""Other people's annotations: one module per layout, all to the same frames."""
