"""Edge softnesses, T-conorms that combine coverages, schedules of their parameters, and files."""
