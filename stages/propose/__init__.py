"""From frames to tagged sounds and to boxes around what may sound."""
