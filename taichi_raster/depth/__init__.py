"""Depth softnesses, one a file."""
