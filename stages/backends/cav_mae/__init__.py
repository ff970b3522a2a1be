"""CAV-MAE, the sound tagger of the paper: network, sound front end, pictures, tagger."""
