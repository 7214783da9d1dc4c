"""The command line: `taichi-raster`, one command a file."""
