"""Dual encoders built from open_clip, timm and Hugging Face towers, their losses and their folder."""
