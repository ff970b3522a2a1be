"""The way from whole videos to clips and the frames of their sound events."""
