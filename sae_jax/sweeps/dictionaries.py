"""Dictionaries that SAELens wrote, read: their parameters, and the model and settings that they stand for.

Source: SAELens 6.54.12, SAE.load_from_disk and save_inference_model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sae_jax.settings import UserError, received
from sae_jax.storage.atomic import as_path, check_regular, mend_unread, reason_of
from sae_jax.storage.tensors import open_tensors
from sae_jax.training.config import LaneSettings, lane_settings

Arrays = dict[str, np.ndarray]

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
# The library rewrites configs of versions before.
OLDEST_VERSION = 6
# The library's names of the parameters; its W_enc is [d_in, units].
TENSORS = {
    "encoder_weight": "W_enc",
    "encoder_bias": "b_enc",
    "decoder_weight": "W_dec",
    "decoder_bias": "b_dec",
    "threshold": "threshold",
    "skip_weight": "W_skip",
}
GATED_TENSORS = TENSORS | {"encoder_bias": "b_mag", "gate_bias": "b_gate", "log_magnitude": "r_mag"}
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
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}


class Dictionary(NamedTuple):
    """A dictionary of others.

    Attributes:
        model: our name of its model.
        values: the settings of the model that the folder says, by name.
        params: its parameters by name, float32.
        d_in: numbers of a row of samples; of a transcoder inputs and outputs together.
    """

    model: str
    values: Mapping[str, Any]
    params: Arrays
    d_in: int

    @property
    def settings(self) -> LaneSettings:
        """All settings of a lane that is this dictionary; what the folder does not say has its default."""
        return lane_settings(self.model, **self.values)


def is_dictionary(folder: Path) -> bool:
    """Whether a folder names itself one of SAELens, by its cfg.json."""
    return os.path.exists(folder / CONFIG_FILE)


def digest(folder: Path) -> str:
    """By what a folder of SAELens is known again: the beginning of a digest of its two files."""
    hasher = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with (folder / name).open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()[:12]


def read(path: str | Path) -> Dictionary:
    """Read a folder of SAELens 6, for inference or of a training.

    Args:
        path: the folder.

    Raises:
        UserError: the folder is none, is of a model that is none of ours, or asks for what no lane does.
    """
    folder = as_path("path", path, "the path of a folder", "use one that SAELens wrote")
    try:
        check_regular(folder / CONFIG_FILE)
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with open_tensors(folder / WEIGHTS_FILE) as file:
            tensors = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
        return _dictionary_of(config, tensors)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # What is no such folder fails in as many ways as there are files.
        fix = mend_unread(error, "use one that it wrote")
        raise UserError(f"{folder} must be a folder that SAELens 6 wrote: got {reason_of(error)}; {fix}") from None


def _dictionary_of(config: dict[str, Any], tensors: Arrays) -> Dictionary:
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
    transcodes = "transcoder" in architecture
    if not (transcodes or config.get("apply_b_dec_to_input", True)) and model != "matching_pursuit":
        params = _uncentred(params, model)
    if config.get("rescale_acts_by_decoder_norm", False):
        params = without_norms(params)
    if "topk_threshold" in tensors:
        params["threshold"] = np.full(config["d_sae"], tensors["topk_threshold"], np.float32)
    d_in, outputs = int(config["d_in"]), int(config["d_out"]) if transcodes else 0
    if transcodes and outputs < 1:
        raise UserError(f"d_out must be at least 1: got {outputs}; write the folder anew")
    read = Dictionary(model, _values_of(config, model), params, d_in + outputs)
    declared = read.settings.architecture.parameters(read.settings.model)
    if set(params) != set(declared):
        raise UserError(f"{architecture} holds {', '.join(sorted(declared))}: got {', '.join(sorted(params))}")
    sizes = {"unit": int(config["d_sae"]), "input": d_in, "target": outputs}
    for name, value in params.items():
        expected = [sizes[dim] for dim in declared[name].dims]
        if list(value.shape) != expected:
            says = "d_in, d_sae and d_out say" if transcodes else "d_in and d_sae say"
            raise UserError(f"{name} must be as {says}, {expected}: got {list(value.shape)}")
        if not np.isfinite(value).all():
            raise UserError(f"{name} must be finite: got {int((~np.isfinite(value)).sum())} numbers that are not")
    return read._replace(params={name: np.ascontiguousarray(value, np.float32) for name, value in params.items()})


def _values_of(config: dict[str, Any], model: str) -> dict[str, Any]:
    """The settings of our model that a folder says."""
    values: dict[str, Any] = {"d_hidden": int(config["d_sae"])}
    if "k" in config and model not in ("relu", "jumprelu"):
        # There k is the same at all steps, and what has been trained should not begin with all units.
        values |= {"k": config["k"], "k_warmup": 0.0}
    if model == "gated":
        # Nothing there holds rows at norm 1; of the others this is the default.
        values |= {"rows": "free", "l1_weights": "norms"}
    if model == "matching_pursuit":
        values["rows"] = "free"
        # None is as many rounds as there are inputs.
        values["k"] = config["max_iterations"] or config["d_in"]
        values["residual_threshold"] = config["residual_threshold"]
        values["stop_at_repeat"] = config["stop_on_duplicate_support"]
    if "transcoder" in config["architecture"]:
        values |= {"outputs": int(config["d_out"]), "skip": "skip" in config["architecture"]}
    if "matryoshka_widths" in config:
        widths = [width for width in config["matryoshka_widths"] if width < config["d_sae"]]
        values |= {"prefixes": ",".join(map(str, widths)), "prefix_errors": "sum"}
    return values


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


def without_norms(params: Mapping[str, np.ndarray]) -> Arrays:
    """Parameters of the same reconstruction whose decoder rows have norm 1, and whose codes are f n.

        We <- n We,  be <- n be,  Wd <- Wd / n,  n = ||Wd||; a row of norm 0 stays 0

    Args:
        params: encoder_weight, encoder_bias and decoder_weight; a threshold of f n stays as it is.
    """
    norms = np.linalg.norm(params["decoder_weight"], axis=1)
    return dict(params) | {
        "encoder_weight": params["encoder_weight"] * norms[:, None],
        "encoder_bias": params["encoder_bias"] * norms,
        "decoder_weight": params["decoder_weight"] / np.where(norms > 0, norms, 1.0)[:, None],
    }
