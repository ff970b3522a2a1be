"""A model's heatmaps and scores on a release."""
