"""The inner loop: a method solves a batch of tasks, as one differentiable run."""
