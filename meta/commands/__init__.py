"""What the command line does with `meta`."""
