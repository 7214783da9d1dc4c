"""Families of inverse-rendering tasks, one a file; each meets the Protocols of `meta.protocol`."""

from tasks.shape2d import FAILURE_THRESHOLD, Shape2D, Shape2DBatch

__all__ = ["FAILURE_THRESHOLD", "Shape2D", "Shape2DBatch"]
