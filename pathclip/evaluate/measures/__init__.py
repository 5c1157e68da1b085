"""What a zero-shot task measures besides its scores, each a choice of `measure=`."""
