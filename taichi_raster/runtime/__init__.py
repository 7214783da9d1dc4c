"""Taichi's runtime: its device and its thread, scratch memory, transfers and launches."""
