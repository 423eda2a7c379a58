"""Many lanes as one program."""
