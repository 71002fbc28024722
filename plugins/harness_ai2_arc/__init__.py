"""Multiple choice: the AI2 Reasoning Challenge. Importing this package imports nothing else."""
