"""The way from frames to tagged sounds and to boxes around what may sound."""
