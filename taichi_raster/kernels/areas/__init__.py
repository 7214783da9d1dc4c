"""Exact areas: what each pixel sees of each face."""
