"""Runs the kernels, one call at a time, and makes them functions that torch differentiates."""
