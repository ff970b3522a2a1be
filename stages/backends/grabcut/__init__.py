"""OpenCV's GrabCut from a box; no weights."""
