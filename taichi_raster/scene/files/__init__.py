"""Mesh files: a module for each format, each of which reads a `Soup` or writes a `Mesh`."""
