"""The pictures, texts and labels that a quantised model is calibrated and judged on."""
