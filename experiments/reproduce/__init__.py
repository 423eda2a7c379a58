"""Published figures and numbers, each beside the one measured here: python -m experiments.reproduce --list."""
