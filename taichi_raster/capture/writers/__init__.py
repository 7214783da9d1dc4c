"""Files of cameras that other programs read, one format a file."""
