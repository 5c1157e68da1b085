"""Training: a Lightning module, its callbacks, and `train(cfg)`."""
