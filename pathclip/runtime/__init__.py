"""What runs a model folder without torch: decoding, preprocessing, tokens, encoders, classification."""
