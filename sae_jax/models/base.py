"""What a model is to the engine that trains it: a record of pure functions, and the types that they pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from sae_jax.settings import AT_LEAST_ONE, Unread, static

# Parameters by name. A flat dict, so that it is at once a pytree and a safetensors file.
Params: TypeAlias = dict[str, Array]
Key: TypeAlias = PRNGKeyArray
Scalar: TypeAlias = Float[Array, ""] | float
Batch: TypeAlias = Float[Array | np.ndarray, "batch d_in"]
Codes: TypeAlias = Float[Array | np.ndarray, "batch d_hidden"]
UnitMeans: TypeAlias = Float[Array | np.ndarray, " d_hidden"]
Tree = TypeVar("Tree")


@struct.dataclass
class Settings:
    """What every model has; each extends it in its own file. A declaration is a flag, a range, a help and an axis.

    UNREAD says which settings have no effect beside which values of others: lanes that differ in nothing else are
    equal, and trained once. PARTS names what plug-ins have added to the model, by kind.
    """

    UNREAD: ClassVar[Unread] = {}
    PARTS: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    d_hidden: int = static(49, AT_LEAST_ONE, "number of hidden units")


class Parameter(NamedTuple):
    """An array that a finished lane holds: its dimensions, none or some of unit, input and target, and its label."""

    dims: tuple[str, ...]
    label: str


class Term(NamedTuple):
    """A term of the loss: label and units of its curve."""

    label: str
    units: str


class Evaluated(NamedTuple):
    """A trained lane on held-out data, as its measures receive it.

    Attributes:
        params: parameters of the finished lane.
        x: held-out samples as they are to be reconstructed, [batch, d_in]; of a transcoder its targets.
        codes: [batch, d_hidden].
        active: which units fire on which sample, booleans [batch, d_hidden].
        reconstruction: x_hat, as wide as x.
        settings: the model's settings.
    """

    params: Params
    x: Array
    codes: Array
    active: Array
    reconstruction: Array
    settings: Any


class Measure(NamedTuple):
    """A measure of a trained lane on held-out data; it becomes the variable eval_NAME.

    Attributes:
        compute: Evaluated -> array.
        label, units: of the variable.
        dims: its dimensions beside the lanes', such as ("unit",).
        lower_is_better: whether the best lane has the lowest value.
    """

    compute: Callable[[Evaluated], Array]
    label: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    lower_is_better: bool = False


class Across(NamedTuple):
    """Statistics of a whole batch, over however many devices it is split: the only way to a collective.

    No gradient passes: differentiating through a collective means different things under vmap, shard_map and pmap.

    Attributes:
        axis: named axis over which the batch is split; None where it lies whole on one device.
    """

    axis: str | None = None

    def mean(self, tree: Tree) -> Tree:
        """Mean over the devices of what each has computed of its equal share."""
        return self._over(jax.lax.pmean, tree)

    def sum(self, tree: Tree) -> Tree:
        """Sum over the devices."""
        return self._over(jax.lax.psum, tree)

    def max(self, tree: Tree) -> Tree:
        """Maximum over the devices."""
        return self._over(jax.lax.pmax, tree)

    def gather(self, value: Array) -> Array:
        """What each of the devices has computed, in their order, [devices, ...]."""
        value = jax.lax.stop_gradient(value)
        return value[None] if self.axis is None else jax.lax.all_gather(value, self.axis)

    def device(self) -> Array | int:
        """The number of this device among them."""
        return 0 if self.axis is None else jax.lax.axis_index(self.axis)

    def _over(self, collective: Callable[..., Any], tree: Any) -> Any:
        tree = jax.lax.stop_gradient(tree)
        return tree if self.axis is None else collective(tree, self.axis)


class Step(NamedTuple):
    """What a step gives a model beside its parameters and its memory.

    Attributes:
        x: what the encoder sees, [batch, d_in]; this device's share of the batch.
        target: what is to be reconstructed, [batch, d_in]; of a transcoder other activations, [batch, outputs].
        number: of the step t, from 0; None where every schedule is taken to have ended.
        steps: of the whole training T.
        across: statistics of the whole batch.
    """

    x: Batch
    target: Batch
    number: Scalar | Array | None = None
    steps: int = 1
    across: Across = Across()

    def ramp(self, fraction: Scalar) -> Float[Array, ""] | float:
        """How far a linear schedule over a fraction of all steps is, min(1, (t + 1) / (fraction T)); 1 at its end."""
        return 1.0 if self.number is None else ramp(self.number, self.steps, fraction)


def ramp(number: Scalar | Array, steps: int, fraction: Scalar) -> Float[Array, ""]:
    """Linear rise over a fraction w of all T steps: min(1, (t + 1) / (w T)), 1 throughout where w is 0."""
    return jnp.minimum(1.0, (number + 1) / jnp.maximum(fraction * steps, 1.0))


# (parameters, memory, Step, settings) -> (the terms by name, what `update` is to see of the batch).
Loss: TypeAlias = Callable[[Params, Any, Step, Any], tuple[dict[str, Array], Any]]


def _unchanged(value: Any, *_: Any) -> Any:
    return value


class Model(NamedTuple):
    """An architecture, as pure functions of its parameters and settings; see `sae_jax.models.classic` for one.

    Functions see one lane, in which swept settings are scalars, and of a batch this device's share: x is [batch, d_in],
    targets are as wide as `Step` says, and what they call z, strength or codes is [batch, d_hidden]. Parameters have
    the dimensions that `parameters` names. An architecture's functions of these names say no more of it.

    Attributes:
        name: by which `--model`, files and tables know it.
        Settings: its settings, a pytree: statics in its structure, swept values as leaves, unused ones None.
        parameters: settings -> {name: Parameter}, what a finished lane holds.
        terms: settings -> {name: Term} of its loss; each becomes the curve loss_NAME.
        init: (key, d_in, settings) -> parameters.
        statistics: settings -> names of the samples' statistics that parameters start from: mean, median.
        place: (parameters, those statistics by name, each [d_in], settings) -> parameters before the first step.
        encode: (parameters, x, settings) -> codes, sample by sample, as at inference.
        step_codes: (parameters, Step, settings) -> codes of a step of the training, as its loss has them; None where
            those are what `encode` makes of the step's x.
        decode: (parameters, codes, settings) -> reconstruction.
        active: (codes, settings) -> booleans, which units count as active.
        active_rule: settings -> the same rule in words, for labels.
        loss: (parameters, memory, Step, settings) -> ({name: value} of the terms, whose sum is the loss; what `update`
            is to see of the batch). Where memory is None, held-out data are judged by statistics of their own.
        memory: settings -> what is carried from step to step beside the parameters, a small pytree.
        update: (memory, what was seen, settings) -> memory.
        recall: (memory before any step, parameters of a finished lane, settings) -> memory of a lane that starts from
            those; arrays may be of many lanes, in front.
        finish: (parameters, memory, settings) -> parameters of the finished lane.
        gradient: (parameters, gradient, settings) -> gradient, before the optimizer.
        constrain: (parameters, memory, settings) -> parameters, after it; memory is as before the step's `update`.
        rates: (parameters, settings) -> {name: learning rate of that parameter in units of the others'}.
        renew: (parameters, what was seen, settings) -> (parameters after the step with units that begin anew; by name,
            which of their values are new, so that the optimizer forgets what it knew of them).
        measures: settings -> {name: Measure} beside those that every model has.
        ramp: settings -> fraction of the steps over which the loss still changes by schedules.
        exact: settings -> {name: value} that the gradient of one fixed loss, which L-BFGS needs, asks for; what must be
            off is None there, and a model whose gradient never is that of its loss returns None.
        check: settings -> None; raises UserError where values do not go together.
        check_data: (settings, least value, largest value) -> None; raises UserError where the model cannot reach them.
        outputs: settings -> how many numbers of a row of samples, its last, are made of the others, as a transcoder
            does; 0 where samples themselves are reconstructed.
        bypass: (parameters, x, settings) -> what a reconstruction holds beside what is decoded of codes; None is
            nothing.
        arrays: settings -> how many arrays of a batch's inputs and codes a step holds beside those of every model.
        sparse: (the record's loss, settings of all lanes, swept leaves [lanes]) -> the same loss, which multiplies by
            active codes alone; None where that would be no faster for a lane that is trained by itself, or where the
            loss is another than the architecture's, as in a variant of one's own.
        missed: why a lane's held-out L0 is far from its target_l0, in words where that is known, and what to try.
        training: (name, value) of the settings of the training that have another default beside this model.
        choices: the models among which a setting of the name `model` chooses; see `sae_jax.models.several`.
    """

    name: str
    Settings: type[Settings]
    parameters: Callable[[Any], dict[str, Parameter]]
    terms: Callable[[Any], dict[str, Term]]
    init: Callable[[Key, int, Any], Params]
    encode: Callable[[Params, Batch, Any], Array]
    decode: Callable[[Params, Codes, Any], Array]
    active: Callable[[Codes, Any], Array]
    active_rule: Callable[[Any], str]
    loss: Loss
    memory: Callable[[Any], Any] = lambda settings: ()
    update: Callable[[Any, Any, Any], Any] = _unchanged
    recall: Callable[[Any, Params, Any], Any] = _unchanged
    finish: Callable[[Params, Any, Any], Params] = _unchanged
    statistics: Callable[[Any], tuple[str, ...]] = lambda settings: ()
    place: Callable[[Params, Mapping[str, Array], Any], Params] = _unchanged
    gradient: Callable[[Params, Params, Any], Params] = lambda params, gradient, settings: gradient
    constrain: Callable[[Params, Any, Any], Params] = _unchanged
    rates: Callable[[Params, Any], dict[str, Scalar | Array]] = lambda params, settings: {}
    renew: Callable[[Params, Any, Any], tuple[Params, dict[str, Array]]] = lambda params, seen, settings: (params, {})
    measures: Callable[[Any], dict[str, Measure]] = lambda settings: {}
    ramp: Callable[[Any], Scalar] = lambda settings: 0.0
    exact: Callable[[Any], dict[str, Any] | None] = lambda settings: {}
    check: Callable[[Any], None] = lambda settings: None
    check_data: Callable[[Any, float, float], None] = lambda settings, low, high: None
    outputs: Callable[[Any], int] = lambda settings: 0
    bypass: Callable[[Params, Batch, Any], Array | None] = lambda params, x, settings: None
    step_codes: Callable[[Params, Step, Any], Array] | None = None
    arrays: Callable[[Any], int] = lambda settings: 0
    sparse: Callable[[Loss, Any], Any] = lambda loss, settings: None
    missed: tuple[str, str] = ("", "more steps")
    training: tuple[tuple[str, Any], ...] = ()
    choices: tuple[Model, ...] = ()


def codes_of_step(model: Model, params: Params, step: Step, s: Any) -> Array:
    """Codes of a step of the training as a model's loss has them, [batch, d_hidden]; this device's share."""
    return model.encode(params, step.x, s) if model.step_codes is None else model.step_codes(params, step, s)
