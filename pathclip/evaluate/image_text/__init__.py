"""Retrieval between pictures and texts."""
