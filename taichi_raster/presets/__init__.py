"""Softenings ready to use: learned ones, published ones, and their files."""
