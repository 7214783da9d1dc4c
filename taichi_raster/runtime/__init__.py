"""Taichi's runtime: its device and its thread, the memory, copies and launches."""
