"""Short mathematical answers. Importing this package imports nothing else."""
