"""What a call of a renderer looks like, from its checked arguments to the image."""
