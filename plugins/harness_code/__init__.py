"""Programs judged by what they return. Importing this package imports nothing else."""
