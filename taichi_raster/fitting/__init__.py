"""What a person does with a renderer: losses, metrics, smooth steps."""
