"""Posts in, clean and leak-free pairs out, with a reason for every row that falls out."""
