"""One part of each kind, for `--plugin docs/my_parts.py`; see plugins.md."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from matplotlib import pyplot as plt

from sae_jax import Measure, Model, Observer, Term, encode
from sae_jax.analysis.tasks.base import TaskResult, TaskVariable, dots
from sae_jax.data import Rows
from sae_jax.models import base, linear
from sae_jax.plugins import AddedTerm, Source, Task
from sae_jax.settings import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, TEXT, setting, swept


@struct.dataclass
class SoftplusSettings(base.Settings):
    sharpness: Any = swept(1.0, POSITIVE, "sharpness s of softplus(s z) / s")


def encode_softplus(params, x, s):
    z = x @ params["encoder_weight"].T + params["encoder_bias"][None]
    return jax.nn.softplus(s.sharpness * z) / s.sharpness


def decode_softplus(params, codes, s):
    return codes @ params["decoder_weight"] + params["decoder_bias"][None]


def loss_softplus(params, memory, step, s):
    errors = decode_softplus(params, encode_softplus(params, step.x, s), s) - step.target
    return {"reconstruction": jnp.mean(jnp.sum(jnp.square(errors), axis=1))}, None


SOFTPLUS = Model(
    name="softplus",
    Settings=SoftplusSettings,
    parameters=lambda s: linear.TWO_LAYERS,
    terms=lambda s: {"reconstruction": Term("squared error", "squared input units per sample")},
    init=lambda key, d_in, s: linear.uniform_weights(key, d_in, s.d_hidden),
    encode=encode_softplus,
    decode=decode_softplus,
    active=lambda codes, s: codes > 0.1,
    active_rule=lambda s: "code > 0.1",
    loss=loss_softplus,
)


def student_t(codes, params, step, s):
    return jnp.mean(jnp.sum(jnp.log1p(jnp.square(codes / s.student_scale)), axis=1))


STUDENT_T = AddedTerm(
    weight=swept(0.0, NON_NEGATIVE, "weight of the Student-t penalty on the codes", off=0.0),
    compute=student_t,
    curve=Term("Student-t penalty", "nat"),
    settings={"student_scale": swept(1.0, POSITIVE, "scale of the codes in the Student-t penalty")},
    models=("classic", "softplus"),
)


@dataclasses.dataclass(frozen=True)
class RingSettings:
    rings: int = setting(3, AT_LEAST_ONE, "number of rings")
    noise: float = setting(0.1, NON_NEGATIVE, "standard deviation across a ring", "input unit")


def rings(s, config):
    rng = np.random.default_rng(config.data_seed)
    angles, ring = rng.uniform(0, 2 * np.pi, 1000), rng.integers(s.rings, size=1000)
    plane = np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None] * np.eye(s.rings)[ring][:, :, None]
    samples = plane.reshape(1000, -1) + s.noise * rng.normal(size=(1000, 2 * s.rings))
    return Rows(samples.astype(np.float32), f"{s.rings} rings", labels=ring)


@dataclasses.dataclass(frozen=True)
class SpreadSettings:
    spread_samples: int = setting(200, AT_LEAST_ONE, "spread: held-out samples to look at, at most", "sample")


def spread(lanes, options):
    values = lanes.map(
        lambda lane, x: jnp.mean(jnp.std(encode(lane.params, x, lane.settings), axis=0)),
        lanes.data.heldout[: options.spread_samples],
    )
    return TaskResult({"spread_std": TaskVariable(values, "mean standard deviation of a unit's codes")})


def draw_spread(dataset, shown):
    figure, panel = plt.subplots()
    dots(panel, dataset["spread_std"])
    return figure


class Diary(Observer):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        file: str = setting("diary.txt", TEXT, "the file that lines are added to")

    def __init__(self, settings):
        self.file = settings.file

    def points(self, points):
        with open(self.file, "a") as file:
            print(points.step, float(np.nanmean(points.values["loss"])), file=file)


PARTS = {
    "softplus": SOFTPLUS,
    "student_t": STUDENT_T,
    "row_norm": Measure(
        lambda lane: jnp.linalg.norm(lane.params["decoder_weight"], axis=1), "norm of a decoder row", dims=("unit",)
    ),
    "rings": Source(rings, "points of rings in planes of their own", RingSettings),
    "spread": Task("spread_std", spread, draw_spread, SpreadSettings),
    "diary": Diary,
}
