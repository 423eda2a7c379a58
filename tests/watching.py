"""An observer for tests."""

from sae_jax.sweeps.observers import Observer


class Watcher(Observer):
    """Keeps the lines that it receives, and the coordinates of the lanes whose points it receives."""

    def __init__(self):
        self.lines, self.lanes = [], set()

    def line(self, text):
        self.lines.append(text)

    def points(self, points):
        self.lanes |= set(zip(*map(tuple, points.coordinates.values()), strict=True))
