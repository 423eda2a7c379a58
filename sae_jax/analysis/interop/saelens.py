"""The folders of SAELens 6: cfg.json says what a dictionary is, sae_weights.safetensors holds its tensors.

Centre, scale and norms become part of the weights, since the library ignores an average that a folder names. What is
written is for inference: `batch_topk` and Matryoshka dictionaries are written as `jumprelu`, with their threshold.

Source: SAELens 6.54.12, SAE.load_from_disk and save_inference_model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import numpy as safetensors

from sae_jax.analysis.interop.folding import (
    Arrays,
    architecture_of,
    greedy_without_normalisation,
    transcoder_without_normalisation,
    units_encoded,
    without_normalisation,
)
from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.normalise import identity
from sae_jax.settings import UserError, check_type
from sae_jax.storage.atomic import as_path, reason_of, write_file, writing
from sae_jax.sweeps import dictionaries
from sae_jax.sweeps.dictionaries import CONFIG_FILE, GATED_TENSORS, TENSORS, WEIGHTS_FILE, without_norms

# What the files are written for.
VERSION = "6.54.12"


class Form(NamedTuple):
    """What the library has for a model.

    Attributes:
        architecture: its name there.
        options: settings -> its entries of cfg.json beside those of all.
        tensors: our name -> its name.
        centred: whether the encoder sees x - bd.
    """

    architecture: str
    options: Callable[[Any], dict[str, Any]] = lambda s: {}
    tensors: Mapping[str, str] = TENSORS
    centred: bool = True


def _of_k(s: Any) -> dict[str, Any]:
    # Norms have become part of the weights where units were chosen by them.
    return {"k": units_encoded(s), "rescale_acts_by_decoder_norm": False}


def _of_rounds(s: Any) -> dict[str, Any]:
    threshold = 0.0 if s.residual_threshold is None else float(s.residual_threshold)
    return {
        "max_iterations": int(s.k),
        "residual_threshold": threshold,
        "stop_on_duplicate_support": bool(s.stop_at_repeat),
    }


FORMS = {
    "relu": Form("standard"),
    "topk": Form("topk", _of_k),
    "abs_topk": Form("abstopk", _of_k),
    "batch_topk": Form("jumprelu"),
    "matryoshka": Form("jumprelu"),
    "jumprelu": Form("jumprelu"),
    "gated": Form("gated", tensors=GATED_TENSORS),
    "matching_pursuit": Form("matching_pursuit", _of_rounds),
    "classic": Form("standard", centred=False),
}
# What stands before the library's name of a transcoder whose codes are those of an architecture.
TRANSCODERS = {"standard": "", "jumprelu": "jumprelu_"}


def save(
    lane: TrainedLane,
    path: str | Path,
    hook_name: str = "",
    model_name: str = "",
    notes: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a lane as a folder that SAELens loads.

    Args:
        lane: what is written.
        path: the folder; made where there is none.
        hook_name, model_name: which activations of which model were encoded, for the library's users.
        notes: what else its metadata are to say, such as l0.

    Returns:
        The files.

    Raises:
        UserError: the library has no such form, the normalisation is not affine, notes are no JSON, or the folder
            cannot be written.
    """
    check_type("lane", lane, TrainedLane, "a trained lane", "use sae_jax.open(RUN).best()")
    folder = as_path("path", path, "the path of a folder", "use one of your own")
    content = files(lane, hook_name, model_name, notes)
    with writing(folder, "the folder", "choose another"):
        folder.mkdir(parents=True, exist_ok=True)
        # Of one that is written over, no weights may stand under the settings of others.
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            write_file(folder / name, content[name])
    return [folder / name for name in content]


def files(
    lane: TrainedLane, hook_name: str = "", model_name: str = "", notes: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """What `save` writes, by the files' names; arguments and errors as of it."""
    for name, value in {"hook_name": hook_name, "model_name": model_name}.items():
        check_type(name, value, str, "text", "leave it out")
    check_type("notes", {} if notes is None else notes, Mapping, "a mapping of names to values", "use {'l0': 3.0}")
    config, tensors = contents(lane, hook_name, model_name, notes)
    try:
        text = json.dumps(config, indent=2, default=_as_python)
    except (TypeError, ValueError, RecursionError) as error:
        rule = "notes must hold numbers, text, lists and mappings of text alone, as JSON does"
        raise UserError(f"{rule}: got {reason_of(error)}; convert them") from None
    return {CONFIG_FILE: f"{text}\n".encode(), WEIGHTS_FILE: safetensors.save(tensors)}


def _as_python(value: Any) -> Any:
    """A number or an array of NumPy, such as a measure of a Dataset, as JSON has it."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__}")


def contents(
    lane: TrainedLane, hook_name: str = "", model_name: str = "", notes: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], Arrays]:
    """(cfg.json, tensors by the library's names) of a lane; arguments and errors as of `save`."""
    name, s = architecture_of(lane), lane.settings.model
    form = _form(name, s)
    params: Mapping[str, np.ndarray] = {key: value for key, value in lane.params.items() if key in form.tensors}
    options = form.options(s)
    if getattr(s, "rescale", False):
        params = without_norms(params)
    if lane.transcodes:
        params = transcoder_without_normalisation(params, lane)
    elif name == "matching_pursuit":
        params, scale = greedy_without_normalisation(params, lane.normalisation)
        options["residual_threshold"] /= scale
    else:
        params = without_normalisation(params, lane.normalisation, form.centred)
    if name in ("batch_topk", "matryoshka"):
        # A code there is at least its threshold, and here above it.
        params["threshold"] = np.nextafter(params["threshold"].astype(np.float32), np.float32(-1))
        params["threshold"] = np.maximum(params["threshold"], 0)
    tensors = {form.tensors[key]: value.T if key == "encoder_weight" else value for key, value in params.items()}
    tensors = {key: np.ascontiguousarray(value, np.float32) for key, value in tensors.items()}
    training = {
        "training_architecture": lane.settings.architecture.name,
        "seed": lane.point.get("seed"),
        **dict(notes or {}),
    }
    place = {key: value for key, value in {"hook_name": hook_name, "model_name": model_name}.items() if value}
    config = {
        "architecture": form.architecture,
        "d_in": lane.d_in,
        "d_sae": lane.d_hidden,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": form.centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **options,
        "metadata": {"sae_lens_version": VERSION, "written_by": "sae_jax", **place, **training},
    }
    return config, tensors


def _form(name: str, s: Any) -> Form:
    if getattr(s, "outputs", 0):
        return _of_transcoder(name, s)
    if name != "classic":
        return FORMS[name]
    if (s.activation, s.output) != ("relu", "linear"):
        raise UserError(
            "a SAELens folder holds classic autoencoders of relu codes and linear outputs alone: "
            f"got activation {s.activation}, output {s.output}; train with --activation relu --output linear"
        )
    return FORMS[name] if units_encoded(s) == s.d_hidden else Form("topk", _of_k, centred=False)


def _of_transcoder(name: str, s: Any) -> Form:
    """The form of a dictionary that makes other activations of its inputs."""
    if (kind := FORMS[name].architecture) not in TRANSCODERS:
        raise UserError(
            f"a SAELens folder holds transcoders of ReLU codes and of codes above a threshold alone: got {name}; train "
            "with --model relu, jumprelu, batch_topk or matryoshka"
        )
    skip = "skip_" if s.skip else ""
    return Form(f"{TRANSCODERS[kind]}{skip}transcoder", lambda s: {"d_out": int(s.outputs)}, centred=False)


def load(path: str | Path) -> TrainedLane:
    """Read a folder of SAELens 6, for inference or of a training, as a lane that encodes samples as they are.

    Args:
        path: the folder.

    Returns:
        A lane whose codes are those of the library: in units of f ||Wd|| where units are chosen by them.

    Raises:
        UserError: the folder is none, is of a model that is none of ours, or asks for what no lane does.
    """
    read = dictionaries.read(path)
    return TrainedLane(read.params, read.settings, identity(read.d_in), {})
