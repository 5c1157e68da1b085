"""Measures any encoder: zero-shot classification and retrieval, with intervals, baselines and a report."""
