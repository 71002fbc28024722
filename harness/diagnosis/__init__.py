"""What the numbers of `harness diagnose` are computed with; harness/diagnosing.py puts them together."""
