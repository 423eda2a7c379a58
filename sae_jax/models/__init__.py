"""What a lane is: one file an architecture, and the parts that they share.

base          Model, the record of functions that the engine trains, and the types that these pass
classic       the classic family; its parts: classic_settings, classic_codes, classic_loss
relu, topk, abs_topk, batch_topk, matryoshka, jumprelu, gated, matching_pursuit   the modern line
several       architectures as an axis; variants: those whose settings start elsewhere
presets       settings by the name of a paper or of a library

Of the modern line:

dictionary    settings and parameters; dictionary_loss: reconstruction; dictionary_memory: what batches leave behind
rows          decoder rows; dead, resampling: help for dead units; prefixes: nested ones; transcoder: other outputs
active_units  k, its settings and its schedule; running_threshold: what BatchTopK has in its place at inference
sparse_loss   the loss by a list of few codes; sparse: its arithmetic; choice: which codes are in the list
jump          the jump at a threshold; jump_penalties: what holds L0 of JumpReLU down; firing: KL on firing rates
steering      a weight that is moved until codes have the L0 that is asked for

Of both:

kl            the KL penalty with its custom_vjp; terms, spine: the other terms of losses
memory        SparsityState: the running mean activation
linear        two layers of weights, and every trick of layout; activations, selection: what codes are made by
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sae_jax.models.abs_topk import ABS_TOPK
from sae_jax.models.base import Across, Measure, Model, Parameter, Step, Term
from sae_jax.models.batch_topk import BATCH_TOPK
from sae_jax.models.classic import CLASSIC
from sae_jax.models.gated import GATED
from sae_jax.models.jumprelu import JUMPRELU
from sae_jax.models.matching_pursuit import MATCHING_PURSUIT
from sae_jax.models.matryoshka import MATRYOSHKA
from sae_jax.models.presets import PRESETS, preset
from sae_jax.models.relu import RELU
from sae_jax.models.several import JOINED, several
from sae_jax.models.topk import TOPK
from sae_jax.models.variants import SEPARATOR, settings_in, variant
from sae_jax.settings import UserError, check, check_type, received, settings_of, unknown

# Every architecture that the command line knows by its name.
ARCHITECTURES = (CLASSIC, RELU, TOPK, ABS_TOPK, BATCH_TOPK, MATRYOSHKA, JUMPRELU, GATED, MATCHING_PURSUIT)
MODELS = {model.name: model for model in ARCHITECTURES}
# What stands before the name of a preset that is an architecture's too.
OF_PRESETS = "preset"


def model_of(name: str | Model | Sequence[str | Model]) -> Model:
    """The model of a name; a record is taken as it is; of several names or records, one whose axis `model` they are.

    Args:
        name: of an architecture, as topk; of a variant of one, as topk:frozen=decoder; or of a preset, as gao or
            preset:matryoshka.

    Raises:
        UserError: there is none of that name, or it is neither.
    """
    names: Any = name.split(JOINED) if isinstance(name, str) else name
    if isinstance(names, tuple) and not isinstance(names, Model):
        names = list(names)
    if isinstance(names, list) and len(names) > 1:
        return several(tuple(model_of(one) for one in names))
    one: Any = names[0] if isinstance(names, list) and names else name
    check_type("model", one, (str, Model), "the name of a model, or a Model", f"known: {', '.join(MODELS)}")
    if isinstance(one, Model):
        return one
    return _named(one)


def put_models(records: Mapping[str, Model]) -> None:
    """Let names mean these records from now on, as plug-ins extend them or add some."""
    MODELS.clear()
    MODELS.update(records)
    _named.cache_clear()


def refuse_overridden(model: Model, given: Mapping[str, Any]) -> None:
    """Refuse other values of settings than variants say by their names, which would be false.

    Args:
        model: or several.
        given: values by name of the settings that were given.

    Raises:
        UserError: there is one.
    """
    for one in model.choices or (model,):
        architecture, _, text = one.name.partition(SEPARATOR)
        if text and architecture in MODELS:
            fields = settings_of(one.Settings)
            for name in settings_in(text, MODELS[architecture]):
                value, field = given.get(name, fields[name].default), fields[name]
                if np.ndim(value) or check(field, value) != field.default:
                    raise UserError(f"model {one.name} sets {name}: got {received(value)} beside it; leave one out")


def has_its_name(model: Model) -> bool:
    """Whether a record is the one that its name means: an architecture, a variant or a preset, changed by nobody."""
    try:
        return model_of(model.name) is model
    except UserError:
        return False


@functools.lru_cache(maxsize=256)
def _named(name: str) -> Model:
    """The same record for every use of a name: programs are compiled for each."""
    if name in MODELS:
        return MODELS[name]
    architecture, separator, text = name.partition(SEPARATOR)
    if name in PRESETS or architecture == OF_PRESETS:
        model, settings = preset(text or name)
        return variant(MODELS[model], name, settings)
    if architecture in PRESETS and architecture not in MODELS:
        raise UserError(
            f"settings stand behind the name of an architecture: got {name}, of preset {architecture}; "
            f"use {preset(architecture)[0]}{SEPARATOR}{text}"
        )
    if architecture not in MODELS:
        raise unknown("model", architecture, dict.fromkeys([*MODELS, *PRESETS]))
    return variant(MODELS[architecture], name, settings_in(text, MODELS[architecture])) if separator else MODELS[name]


__all__ = [
    "CLASSIC",
    "MODELS",
    "Across",
    "Measure",
    "Model",
    "Parameter",
    "Step",
    "Term",
    "has_its_name",
    "model_of",
    "put_models",
    "refuse_overridden",
]
