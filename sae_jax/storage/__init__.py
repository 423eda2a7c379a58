"""Files that describe themselves, and the folder of a run."""
