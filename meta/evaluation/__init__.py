"""How well methods solve tasks, and statistics that compare them."""
