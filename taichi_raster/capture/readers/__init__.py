"""Files of cameras, one format a file; each gives a `Reading`."""
