"""What an int8 model must hold before it is written, line by line."""
