"""Stacked autoencoders: further layers on top of every lane, a softmax layer, and fine-tuning end to end.

Source: Ng, UFLDL exercise "Implement deep networks for digit classification".
"""

from __future__ import annotations

import itertools

import jax
import xarray as xr
from jaxtyping import Array
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.probes import accuracy, fit_probe
from sae_jax.analysis.stacked import encode_stack, fine_tune, pretrain, stack_logits
from sae_jax.analysis.tasks.base import ShownLane, TaskResult, TaskVariable, dots, labels_of
from sae_jax.settings import UserError, settings_of
from sae_jax.sweeps.plan import memory_budget

SCORE = "stacked_accuracy"
# By these settings layers are trained on codes of others.
OF_LAYERS = ("activation", "output", "reconstruction_loss")
# An encoder's and a decoder's weight, each with its gradient and the optimizer's two averages.
WEIGHT_BYTES = 4 * 2 * 4


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """Held-out accuracy of every lane's stack, before and after fine-tuning.

    Raises:
        UserError: the layers do not fit in memory, or the model has none of the settings by which they are trained.
    """
    architecture = lanes.lanes.settings.architecture
    if not set(OF_LAYERS) <= set(settings_of(architecture.Settings)):
        raise UserError(
            f"task stacked needs models with {', '.join(OF_LAYERS)}, as classic: got {architecture.name}; use probe"
        )
    labels, heldout_labels, classes = labels_of(lanes.data, "stacked")
    sizes = (lanes.lanes.settings.model.d_hidden, *options.layers)
    needed = WEIGHT_BYTES * sum(inputs * units for inputs, units in itertools.pairwise(sizes))
    available = memory_budget(lanes.devices[:1], 0)
    if needed > available:
        raise UserError(
            f"layers must fit in memory: got {' '.join(map(str, options.layers))}, which take "
            f"{needed / 2**20:,.0f} MiB of {available / 2**20:,.0f} MiB; use fewer units"
        )

    def stack(lane: Lane, train: Array, heldout: Array, labels: Array, expected: Array) -> tuple[Array, Array]:
        settings, key = lane.settings, jax.random.key(lane.seed)
        layers = pretrain(settings, lane.params, options.layers, train, heldout, key)
        codes = encode_stack(layers, train, settings)
        probe = fit_probe(codes, labels, len(classes), options.decay, options.iterations)
        tuned = fine_tune(layers, probe, train, labels, settings, options.decay, options.fine_tuning)
        before, after = (accuracy(stack_logits(*net, heldout, settings), expected) for net in ((layers, probe), tuned))
        return before, after

    before, after = lanes.map(stack, lanes.data.train, lanes.data.heldout, labels, heldout_labels)
    return TaskResult(
        {
            SCORE: TaskVariable(after, "share of held-out samples whose class the fine-tuned stack names"),
            "stacked_accuracy_before": TaskVariable(
                before, "the same with a softmax layer on the stack, before fine-tuning"
            ),
        }
    )


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """Accuracy of every cell before and after fine-tuning."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for panel, name, when in zip(panels, ("stacked_accuracy_before", SCORE), ("before", "after"), strict=True):
        dots(panel, dataset[name])
        panel.set_xlabel(f"held-out accuracy {when} fine-tuning")
    return figure
