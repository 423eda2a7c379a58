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
from safetensors import safe_open

from sae_jax.analysis.interop.folding import (
    Arrays,
    architecture_of,
    greedy_without_normalisation,
    units_encoded,
    without_normalisation,
    without_norms,
)
from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.normalise import identity
from sae_jax.settings import UserError, check_type, received
from sae_jax.storage.atomic import check_regular, reason_of, write_file, writing
from sae_jax.training.config import lane_settings

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
# What the files are written for; the library rewrites configs of versions before 6.
VERSION = "6.54.12"
OLDEST_VERSION = 6
# The library's names of the parameters; its W_enc is [d_in, units].
TENSORS = {
    "encoder_weight": "W_enc",
    "encoder_bias": "b_enc",
    "decoder_weight": "W_dec",
    "decoder_bias": "b_dec",
    "threshold": "threshold",
}
GATED_TENSORS = TENSORS | {"encoder_bias": "b_mag", "gate_bias": "b_gate", "log_magnitude": "r_mag"}


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
# Architectures that are read, and our model of each; training folders have names of their own.
READ = {
    "standard": "relu",
    "topk": "topk",
    "abstopk": "abs_topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "matching_pursuit": "matching_pursuit",
    "batchtopk": "batch_topk",
    "matryoshka_batchtopk": "matryoshka",
}


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
        UserError: the library has no such form, the normalisation is not affine, or the folder cannot be written.
    """
    check_type("lane", lane, TrainedLane, "a trained lane", "use sae_jax.open(RUN).best()")
    config, tensors = contents(lane, hook_name, model_name, notes)
    folder = Path(path)
    files = [folder / CONFIG_FILE, folder / WEIGHTS_FILE]
    with writing(folder, "the folder", "choose another"):
        folder.mkdir(parents=True, exist_ok=True)
        # Of one that is written over, no weights may stand under the settings of others.
        files[0].unlink(missing_ok=True)
        write_file(files[1], safetensors.save(tensors))
        write_file(files[0], (json.dumps(config, indent=2) + "\n").encode())
    return files


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
    if name == "matching_pursuit":
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
    if name != "classic":
        return FORMS[name]
    if (s.activation, s.output) != ("relu", "linear"):
        raise UserError(
            "a SAELens folder holds classic autoencoders of relu codes and linear outputs alone: "
            f"got activation {s.activation}, output {s.output}; train with --activation relu --output linear"
        )
    return FORMS[name] if units_encoded(s) == s.d_hidden else Form("topk", _of_k, centred=False)


def load(path: str | Path) -> TrainedLane:
    """Read a folder of SAELens 6, for inference or of a training, as a lane that encodes samples as they are.

    Args:
        path: the folder.

    Returns:
        A lane whose codes are those of the library: in units of f ||Wd|| where units are chosen by them.

    Raises:
        UserError: the folder is none, is of a model that is none of ours, or asks for what no lane does.
    """
    check_type("path", path, (str, Path), "a folder", "use one that SAELens wrote")
    folder = Path(path)
    try:
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            check_regular(folder / name)
        config = json.loads((folder / CONFIG_FILE).read_text())
        with safe_open(folder / WEIGHTS_FILE, framework="flax") as file:
            tensors = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
        return _lane_of(config, tensors)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # What is no such folder fails in as many ways as there are files.
        raise UserError(f"{folder} must be a folder that SAELens 6 wrote: got {reason_of(error)}") from None


def _lane_of(config: dict[str, Any], tensors: Arrays) -> TrainedLane:
    architecture = config.get("architecture")
    if architecture not in READ:
        raise UserError(f"architecture must be one of {', '.join(READ)}: got {received(architecture)}; use another")
    _check_version(config)
    for name in ("normalize_activations", "reshape_activations"):
        # The library itself passes over an average that a folder names.
        if (asked := config.get(name, "none")) not in ("none", "expected_average_only_in"):
            raise UserError(f"{name} must be none: got {received(asked)}; fold it into the weights first")
    model = READ[architecture]
    names = GATED_TENSORS if model == "gated" else TENSORS
    params = {ours: tensors[theirs] for ours, theirs in names.items() if theirs in tensors}
    if "encoder_weight" in params:
        params["encoder_weight"] = np.ascontiguousarray(params["encoder_weight"].T)
    if not config.get("apply_b_dec_to_input", True) and model != "matching_pursuit":
        params = _uncentred(params, model)
    if config.get("rescale_acts_by_decoder_norm", False):
        params = without_norms(params)
    if "topk_threshold" in tensors:
        params["threshold"] = np.full(config["d_sae"], tensors["topk_threshold"], np.float32)
    values: dict[str, Any] = {"d_hidden": int(config["d_sae"])}
    if "k" in config:
        values["k"] = config["k"]
    if model == "matching_pursuit":
        # None is as many rounds as there are inputs.
        values |= {
            "k": config["max_iterations"] or config["d_in"],
            "residual_threshold": config["residual_threshold"],
            "rows": "free",
        }
        values["stop_at_repeat"] = config["stop_on_duplicate_support"]
    if "matryoshka_widths" in config:
        widths = [width for width in config["matryoshka_widths"] if width < config["d_sae"]]
        values |= {"prefixes": ",".join(map(str, widths)), "prefix_errors": "sum"}
    settings = lane_settings(model, **values)
    declared = settings.architecture.parameters(settings.model)
    if set(params) != set(declared):
        raise UserError(f"{architecture} holds {', '.join(sorted(declared))}: got {', '.join(sorted(params))}")
    params = {name: np.ascontiguousarray(value, np.float32) for name, value in params.items()}
    sizes = {"unit": int(config["d_sae"]), "input": int(config["d_in"])}
    for name, value in params.items():
        expected = [sizes[dim] for dim in declared[name].dims]
        if list(value.shape) != expected:
            raise UserError(f"{name} must be as d_in and d_sae say, {expected}: got {list(value.shape)}")
    return TrainedLane(params, settings, identity(int(config["d_in"])), {})


def _check_version(config: dict[str, Any]) -> None:
    """Refuse a folder of a version before 6, whose entries mean something else."""
    version = config.get("sae_lens_version", config.get("metadata", {}).get("sae_lens_version", ""))
    first = str(version).partition(".")[0]
    if not first.isdecimal() or int(first) < OLDEST_VERSION:
        raise UserError(
            f"sae_lens_version must be at least {OLDEST_VERSION}: got {received(version)}; load it there and save it"
        )


def _uncentred(params: Arrays, model: str) -> Arrays:
    """Biases of an encoder that sees x - bd, with the codes of one that sees x."""
    shift = params["encoder_weight"].astype(np.float64) @ params["decoder_bias"]
    if model == "gated":
        return params | {
            "gate_bias": params["gate_bias"] + shift,
            "encoder_bias": params["encoder_bias"] + np.exp(params["log_magnitude"]) * shift,
        }
    return params | {"encoder_bias": params["encoder_bias"] + shift}
