"""Checks of what the functions of plug-ins return: of a model as its lanes are traced, of a source as it is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sae_jax.data import Rows
from sae_jax.data.checks import as_array, class_numbers
from sae_jax.models import ARCHITECTURES
from sae_jax.models.base import Model, codes_of_step
from sae_jax.settings import UserError, received


def checked_functions(plugin: str, model: Model) -> Model:
    """A plug-in's model whose own functions are held to the shapes that they are to return.

    Args:
        plugin: its name.
        model: as declared; functions of the package stay as they are, by which it knows its own.
    """

    def what(function: str) -> str:
        return f"{function} of model {model.name} of {plugin}"

    def init(key: Any, d_in: int, s: Any) -> Any:
        params = check_params(what("init"), model.init(key, d_in, s), model, d_in, s, whole=False)
        with contextlib.suppress(KeyError):  # Of one that is missing. Those that `finish` adds need not be there.
            check_params(what("init"), jax.eval_shape(model.finish, params, model.memory(s), s), model, d_in, s)
            return params
        return check_params(what("init"), params, model, d_in, s)

    def finish(params: Any, memory: Any, s: Any) -> Any:
        d_in = _inputs(model, params, s) + model.outputs(s)
        return check_params(what("finish"), model.finish(params, memory, s), model, d_in, s)

    def encode(params: Any, x: Any, s: Any) -> Any:
        codes = model.encode(params, x, s)
        check_shape(what("encode"), codes, (*x.shape[:-1], s.d_hidden), "codes [batch, d_hidden]")
        return codes

    def step_codes(params: Any, step: Any, s: Any) -> Any:
        codes = codes_of_step(model, params, step, s)
        check_shape(what("step_codes"), codes, (len(step.x), s.d_hidden), "codes [batch, d_hidden]")
        return codes

    def decode(params: Any, codes: Any, s: Any) -> Any:
        made, width = model.decode(params, codes, s), model.outputs(s) or _inputs(model, params, s)
        check_shape(what("decode"), made, (*codes.shape[:-1], width), "a reconstruction [batch, d_in]")
        return made

    def active(codes: Any, s: Any) -> Any:
        made = model.active(codes, s)
        check_shape(what("active"), made, codes.shape, "a boolean of every code, as codes > 0")
        if made.dtype != bool:
            raise UserError(f"{what('active')} must return booleans: got dtype {made.dtype}; return codes > 0")
        return made

    def memory(s: Any) -> Any:
        made = model.memory(s)
        if wrong := [leaf for leaf in jax.tree.leaves(made) if not hasattr(leaf, "dtype")]:
            raise UserError(f"{what('memory')} must return arrays: got {received(wrong[0])}; use jnp.asarray")
        return made

    def update(before: Any, seen: Any, s: Any) -> Any:
        return _check_like(what("update"), model.update(before, seen, s), before, "memory")

    def constrain(params: Any, memory: Any, s: Any) -> Any:
        return _check_like(what("constrain"), model.constrain(params, memory, s), params, "parameters")

    def gradient(params: Any, given: Any, s: Any) -> Any:
        return _check_like(what("gradient"), model.gradient(params, given, s), given, "gradient")

    def place(params: Any, statistics: Any, s: Any) -> Any:
        return _check_like(what("place"), model.place(params, statistics, s), params, "parameters")

    every: Sequence[Callable[..., Any]] = (
        *(init, finish, encode, step_codes, decode, active),
        *(memory, update, constrain, gradient, place),
    )
    checked: Any = {one.__name__: one for one in every if not _of_package(model, one.__name__)}
    if "encode" in checked and "step_codes" not in checked:  # Those of the architecture are made otherwise.
        checked["step_codes"] = None
    return model._replace(**checked)


def checked_rows(what: str, rows: Any) -> Rows:
    """What a source has read, held to the axes that it must have.

    Raises:
        UserError: it is no Rows, or has others.
    """
    if not isinstance(rows, Rows):
        raise UserError(f"{what} must return sae_jax.data.Rows: got {received(rows)}")
    parts = {part: getattr(rows, part) for part in ("samples", "heldout")}
    arrays: dict[str, Any] = {
        part: as_array(values, f"{part} of {what}", "[samples, d_in]")
        for part, values in parts.items()
        if values is not None
    }
    if "samples" not in arrays:
        raise UserError(f"samples of {what} must be an array [samples, d_in]: got None; pass a NumPy array")
    width = arrays["samples"].shape[-1:]
    for part, values in arrays.items():
        if values.ndim != 2 or values.shape[1:] != width:
            same = f", {width[0]} inputs wide as its samples" if values.ndim == 2 else ""
            raise UserError(
                f"{part} of {what} must be an array [samples, d_in]{same}: got shape {list(values.shape)}; reshape it"
            )
    for prefix, part in (("", "samples"), ("heldout_", "heldout")):
        size = len(arrays.get(part, ()))
        labels, names = getattr(rows, f"{prefix}labels"), getattr(rows, f"{prefix}names")
        if labels is not None:
            arrays[f"{prefix}labels"] = class_numbers(labels, f"{prefix}labels of {what}", size)
        if names is not None and len(names) != size:
            raise UserError(f"{prefix}names of {what} must be one a sample, {size}: got {len(names)}; name each")
    return rows._replace(**arrays)


def check_params(what: str, params: Any, model: Model, d_in: int, s: Any, whole: bool = True) -> Any:
    """Parameters, or UserError where they are others than the model declares.

    Args:
        what: whose they are, in messages.
        params: as its function returned them.
        model, s: the model and its settings.
        d_in: numbers of a row of samples; of a transcoder inputs and targets together.
        whole: whether none may be missing, as some may before the end of the training.
    """
    declared = model.parameters(s)
    names = [*params] if isinstance(params, Mapping) else []
    if not names or not set(names) <= set(declared) or (whole and set(names) != set(declared)):
        got = ", ".join(map(str, names)) or received(params)
        raise UserError(f"{what} must return the parameters that are declared, {', '.join(declared)}: got {got}")
    sizes = {"unit": s.d_hidden, "input": d_in - model.outputs(s), "target": model.outputs(s)}
    for name, value in params.items():
        dims = declared[name].dims
        shown = f"dims {', '.join(dims) or 'none'}"
        check_shape(f"{name} from {what}", value, tuple(sizes[dim] for dim in dims), shown)
        if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, jnp.floating):
            got = f"dtype {value.dtype}" if hasattr(value, "dtype") else received(value)
            raise UserError(f"{name} from {what} must hold real numbers: got {got}; use float32")
    return params


def check_shape(what: str, value: Any, shape: tuple[int, ...], fix: str) -> None:
    """Refuse what has another shape.

    Raises:
        UserError: it has; the message says to return `fix`.
    """
    got: Any = getattr(value, "shape", () if isinstance(value, (int, float)) else None)
    if got != shape:
        shown = f"shape {list(got)}" if isinstance(got, tuple) else f"a {type(value).__name__}"
        raise UserError(f"{what} must have shape {list(shape)}: got {shown}; return {fix}")


def _check_like(what: str, made: Any, given: Any, name: str) -> Any:
    (leaves, structure), (leaves_made, structure_made) = jax.tree.flatten(given), jax.tree.flatten(made)
    if str(structure) != str(structure_made) or [*map(np.shape, leaves)] != [*map(np.shape, leaves_made)]:
        raise UserError(
            f"{what} must return {name} of the shapes that it receives, {_shown(given)}: got {_shown(made)}"
        )
    return made


def _shown(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return ", ".join(f"{name} {list(np.shape(one))}" for name, one in tree.items()) or "none"
    if hasattr(tree, "shape"):
        return f"shape {list(tree.shape)}"
    return f"({', '.join(map(_shown, tree))})" if isinstance(tree, tuple) else received(tree)


def _inputs(model: Model, params: Any, s: Any) -> int:
    """The number of inputs, from a parameter along them that is there."""
    along = {name: one.dims.index("input") for name, one in model.parameters(s).items() if "input" in one.dims}
    name = next((name for name in along if name in params), next(iter(along)))
    return int(params[name].shape[along[name]])


def _of_package(model: Model, function: str) -> bool:
    implementation = getattr(model, function)
    return implementation is Model._field_defaults.get(function) or any(
        implementation is getattr(one, function) for one in ARCHITECTURES
    )
