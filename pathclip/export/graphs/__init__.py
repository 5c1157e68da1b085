"""Towers as ONNX graphs: written, read, run and timed."""
