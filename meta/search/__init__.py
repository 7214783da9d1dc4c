"""Fixed softnesses as an expert sets them, how they are tuned, and where learning starts."""
