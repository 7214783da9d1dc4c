"""Studies: tune, learn and judge softnesses on a family, and report what was found."""
