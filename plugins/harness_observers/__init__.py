"""Observers of runs: experiment trackers. Importing this package imports nothing else."""
