"""Known weights in: what OpenAI, transformers and open_clip saved becomes a model folder."""
