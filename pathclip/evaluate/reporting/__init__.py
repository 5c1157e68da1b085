"""What people read: the page, its plots, the tables, the terminal."""
