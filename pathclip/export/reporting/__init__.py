"""Report, pictures and card of an export."""
