"""What the tests of figures share."""

from sae_jax.analysis.figures import drawn
from sae_jax.analysis.style import SCREEN

SINGLE = {"curves", "filters", "filters_best", "mean_activation"}
SEVERAL = SINGLE | {"heatmaps", "frontier"}


def draw(dataset, name, style=SCREEN, measures=()):
    """One figure, not laid out: laying out takes longer than all the rest of it."""
    for _, figure in drawn(dataset, [name], style, measures):
        return figure


def lay_out(dataset, name, style=SCREEN, measures=()):
    """One figure, laid out: every text has its words and its place."""
    for _, figure in drawn(dataset, [name], style, measures):
        figure.draw_without_rendering()
        return figure


def panels(figure):
    return [panel for panel in figure.axes if panel.axison and panel.get_label() != "<colorbar>"]


def titles(figure):
    return [panel.get_title().replace("\n", " ") for panel in figure.axes if panel.get_title()]
