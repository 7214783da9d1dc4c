"""Lenses, one kind a file."""
