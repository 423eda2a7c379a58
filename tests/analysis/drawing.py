"""What the tests of figures share."""

from sae_jax.analysis.figures import drawn
from sae_jax.analysis.style import SCREEN

SINGLE = {"curves", "filters", "filters_best", "mean_activation"}
SEVERAL = SINGLE | {"heatmaps", "frontier"}


def draw(dataset, name, style=SCREEN, measures=()):
    """One figure, laid out."""
    for _, figure in drawn(dataset, [name], style, measures):
        figure.canvas.draw()
        return figure


def panels(figure):
    return [panel for panel in figure.axes if panel.axison and panel.get_label() != "<colorbar>"]


def titles(figure):
    return [panel.get_title().replace("\n", " ") for panel in figure.axes if panel.get_title()]
