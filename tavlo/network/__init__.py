"""The TAVLO network: model, spectrogram and loss."""
