"""Runs the kernels, one call at a time, and makes them differentiable functions of torch."""
