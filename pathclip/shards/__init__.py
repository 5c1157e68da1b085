"""Both sides of the shard format: WebDataset tars of image, text and metadata."""
