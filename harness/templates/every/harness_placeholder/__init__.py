"""The KIND "placeholder" of oneshot-harness. Importing this package imports nothing else."""
