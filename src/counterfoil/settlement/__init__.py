"""Floor 3: where money becomes rights, and nowhere else."""
