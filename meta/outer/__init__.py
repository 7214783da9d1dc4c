"""The outer loop: what is minimised, its training over processes, and its files."""
