"""EfficientAT, small convolutional sound taggers: network, mel spectrogram, tagger."""
