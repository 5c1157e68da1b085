"""Pictures into classes: zero-shot with one class each, and with several."""
