"""How well heatmaps localise."""
