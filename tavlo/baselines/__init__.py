"""The models the two papers compare TAVLO and cross-modal alignment with."""
