"""Grid puzzles. Importing this package imports nothing else."""
