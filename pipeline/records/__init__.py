"""The records that flow between stages, and what is computed of boxes, masks and reviews."""
