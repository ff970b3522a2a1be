"""The way from a video list to whole original videos on the disk."""
