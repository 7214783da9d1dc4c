"""Edge softnesses, the T-conorms that combine coverages, and the schedules of their parameters."""
