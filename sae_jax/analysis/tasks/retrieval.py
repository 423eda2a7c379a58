"""Retrieval: the training samples whose codes are most similar to a held-out sample's, by cosine.

Source: Salakhutdinov and Hinton 2009, "Semantic hashing" (retrieval by codes, judged by class labels).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sae_jax.analysis.lanes import Lane, Lanes
from sae_jax.analysis.options import TaskConfig
from sae_jax.analysis.tasks.base import ShownLane, TaskResult, TaskVariable, dots, labels_of
from sae_jax.models.base import Codes
from sae_jax.training.evaluation import encode

SCORE = "retrieval_map"
SHOWN = 8


def measure(lanes: Lanes, options: TaskConfig) -> TaskResult:
    """Precision at k and mean average precision over queries, for every lane and for the samples themselves."""
    labels, heldout_labels, _ = labels_of(lanes.data, "retrieval")
    database, queries = lanes.data.train[: options.database], lanes.data.heldout[: options.queries]
    same = heldout_labels[: len(queries), None] == labels[None, : len(database)]
    k = min(options.neighbours, len(database))

    def search(queries: Array, database: Array, same: Array) -> tuple[Array, Array, Array]:
        order = jnp.argsort(-cosine(queries, database), axis=1)
        relevant = jnp.take_along_axis(same, order, axis=1)
        return jnp.mean(relevant[:, :k], dtype=jnp.float32), average_precision(relevant), order[:, :SHOWN]

    def by_codes(lane: Lane, queries: Array, database: Array, same: Array) -> tuple[Array, Array, Array]:
        queries, database = (encode(lane.params, x, lane.settings) for x in (queries, database))
        return search(queries, database, same)

    precision, mean_average, nearest = lanes.map(by_codes, queries, database, same)
    raw_precision, raw_mean_average, _ = lanes.baseline("retrieval", search, queries, database, same)
    return TaskResult(
        {
            SCORE: TaskVariable(mean_average, "mean average precision of retrieval by the cosine of codes"),
            "retrieval_precision": TaskVariable(precision, f"precision at {k} of the same"),
            "retrieval_map_raw": TaskVariable(
                raw_mean_average, "mean average precision by the samples", per_lane=False
            ),
            "retrieval_precision_raw": TaskVariable(raw_precision, f"precision at {k} by the samples", per_lane=False),
        },
        figure_arrays={"nearest": nearest},
    )


def cosine(a: Codes, b: Codes) -> Float[Array, "queries database"]:
    """Cosine of every pair of codes; 0 where one is all zeros."""
    first, second = (x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return jnp.asarray(first) @ second.T


def average_precision(relevant: Bool[Array, "queries database"]) -> Float[Array, ""]:
    """Mean over queries of the average precision of a ranking; queries without anything relevant are left out.

    Args:
        relevant: whether what stands at each rank is relevant, nearest first.

    Source: Manning, Raghavan and Schuetze 2008, "Introduction to information retrieval", equation 8.8.
    """
    retrieved = jnp.cumsum(relevant, axis=1)
    precision = retrieved / jnp.arange(1, relevant.shape[1] + 1)[None, :]
    total = jnp.sum(relevant, axis=1)
    each = jnp.sum(jnp.where(relevant, precision, 0), axis=1) / jnp.maximum(total, 1)
    return jnp.sum(each) / jnp.maximum(jnp.sum(total > 0), 1)


def draw(dataset: xr.Dataset, shown: ShownLane) -> Figure:
    """Mean average precision of every cell; queries of the best lane and their nearest neighbours."""
    shape = shown.lanes.data.image_shape
    figure, panels = plt.subplots(1, 1 + bool(shape), figsize=(11 if shape else 6, 4.6), layout="constrained")
    scores, *pictures = np.atleast_1d(panels)
    raw = float(dataset["retrieval_map_raw"].mean())
    dots(scores, dataset[SCORE], raw, f"the samples themselves: {raw:.3f}")
    scores.set_xlabel("mean average precision")
    if shape:
        labels, heldout_labels, _ = labels_of(shown.lanes.data, "retrieval")
        _draw_neighbours(pictures[0], shown, shape, labels, heldout_labels)
        pictures[0].set_title(f"queries (left) and neighbours, dashed where of another class\nbest lane: {shown.name}")
    return figure


def _draw_neighbours(
    panel: plt.Axes, shown: ShownLane, shape: tuple[int, int], labels: np.ndarray, queried: np.ndarray
) -> None:
    """One query of every class, as far as there is room, each followed by its neighbours, framed by right and wrong."""
    nearest, (height, width) = shown.figure_arrays["nearest"], shape
    queried = queried[: len(nearest)]
    rows = [int(np.flatnonzero(queried == label)[0]) for label in np.unique(queried)][:SHOWN]
    picture = np.full((len(rows) * (height + 2), (1 + nearest.shape[1]) * (width + 2) + width // 2), np.nan)
    for row, query in enumerate(rows):
        images = [shown.lanes.data.heldout[query], *shown.lanes.data.train[nearest[query]]]
        for column, image in enumerate(images):
            top, left = row * (height + 2), column * (width + 2) + (width // 2 if column else 0)
            picture[top : top + height, left : left + width] = image.reshape(shape)
            if column:
                right = labels[nearest[query][column - 1]] == queried[query]
                frame: dict[str, Any] = {"ec": "tab:blue"} if right else {"ec": "tab:orange", "ls": (0, (2, 2))}
                panel.add_patch(Rectangle((left - 1, top - 1), width + 1, height + 1, fill=False, lw=1.3, **frame))
    panel.imshow(picture, cmap="gray", interpolation="nearest")
    panel.set_ylim(picture.shape[0], -2.5)
    panel.axis("off")
