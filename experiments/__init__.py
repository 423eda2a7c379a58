"""Scripts: python -m experiments.NAME."""
