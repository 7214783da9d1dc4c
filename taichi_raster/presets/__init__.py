"""Softenings, ready to use: learned ones, the published ones, and how they are kept in files."""
