"""Reach a target from given numbers. Importing this package imports nothing else."""
