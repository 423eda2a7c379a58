"""What SAELens computes for a case: losses, gradients, codes, and parameters after its own trainer's steps."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from sae_lens.config import LanguageModelSAERunnerConfig, SAETrainerConfig
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import TrainStepInput
from sae_lens.training.sae_trainer import SAETrainer

from tests.parity.cases import BATCH, CASES, D_IN, D_OUT, D_SAE, LEARNING_RATE, SILENT, STEPS, WINDOW, Case

Arrays = dict[str, np.ndarray]


def batches() -> np.ndarray:
    """Samples of every step, [steps, batch, d_in], float32: sparse sums of directions, off the origin."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(12, D_IN)) / np.sqrt(D_IN)
    strengths = rng.gamma(2.0, 0.7, size=(STEPS, BATCH, 12)) * (rng.random((STEPS, BATCH, 12)) < 0.3)
    return (strengths @ directions + 0.1 * rng.normal(size=(STEPS, BATCH, D_IN)) + 0.2).astype(np.float32)


def defaults() -> dict[str, dict[str, Any]]:
    """Plain defaults of the library's training configs by architecture, and of its trainer."""
    kinds = {case.architecture: get_sae_training_class(case.architecture)[1] for case in CASES}
    kinds["trainer"] = SAETrainerConfig
    plain = (bool, int, float, str, type(None))
    found = {
        name: {one.name: one.default for one in dataclasses.fields(kind) if isinstance(one.default, plain)}
        for name, kind in kinds.items()
    }
    # The trainer's own has none.
    found["trainer"]["train_batch_size_samples"] = LanguageModelSAERunnerConfig.train_batch_size_tokens
    return found


def parameters(case: Case) -> Arrays:
    """Fixed random parameters, by the library's names: rows of many norms, and units that do not fire at first."""
    rng = np.random.default_rng(1)
    decoder = rng.normal(size=(D_SAE, D_IN))
    decoder *= rng.uniform(0.7, 1.2, size=(D_SAE, 1)) / np.linalg.norm(decoder, axis=1, keepdims=True)
    encoder = (decoder + 0.2 * rng.normal(size=(D_SAE, D_IN))).T
    bias = 0.1 * rng.normal(size=D_SAE)
    encoder[:, list(SILENT)] *= 0.01
    bias[list(SILENT)] = -0.05
    values = {"W_enc": encoder, "W_dec": decoder, "b_enc": bias, "b_dec": 0.1 * rng.normal(size=D_IN)}
    if case.architecture == "gated":
        values["b_gate"] = values.pop("b_enc")
        values |= {"b_mag": 0.1 * rng.normal(size=D_SAE), "r_mag": 0.2 * rng.normal(size=D_SAE)}
    if case.architecture == "jumprelu":
        # Some so near 0 that they meet their bound.
        values["threshold"] = rng.uniform(0.0, 0.3, size=D_SAE)
    if case.architecture == "matching_pursuit":
        values = {name: values[name] for name in ("W_dec", "b_dec")}
    # Files are written as arrays lie in memory.
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def results(case: Case) -> Arrays:
    """Everything that is compared of a case, under names of the form KIND.NAME."""
    found: Arrays = {f"before.{name}": value for name, value in parameters(case).items()}
    found["dead"] = np.isin(np.arange(D_SAE), case.dead).astype(np.uint8)
    found |= _one_step(case)
    trained = _trained(case)
    found |= {f"after.{name}": value for name, value in _state(trained).items()}
    return found | _inference(trained)


def _model(case: Case) -> Any:
    kind, config = get_sae_training_class(case.architecture)
    with warnings.catch_warnings():
        # It sets the norm of matching pursuit's rows itself, and says so.
        warnings.simplefilter("ignore")
        sae = kind(config(d_in=D_IN, d_sae=D_SAE, **case.options))
    with torch.no_grad():
        for name, value in parameters(case).items():
            getattr(sae, name).copy_(torch.from_numpy(value))
    return sae


def _one_step(case: Case) -> Arrays:
    sae = _model(case)
    x = torch.from_numpy(batches()[0])
    # Its coefficients are given without their warm-up.
    weights = {name: getattr(value, "value", value) for name, value in sae.get_coefficients().items()}
    dead = torch.from_numpy(np.isin(np.arange(D_SAE), case.dead))
    output = sae.training_forward_pass(TrainStepInput(x, weights, dead, 0, False))
    output.loss.backward()
    found = {f"loss.{name}": value for name, value in output.losses.items()} | {"total": output.loss}
    found |= {f"gradient.{name}": value.grad for name, value in sae.named_parameters()}
    found |= {"codes": output.feature_acts, "reconstruction": output.sae_out}
    return {name: _array(value) for name, value in found.items()}


def _trained(case: Case) -> Any:
    """The model after the steps of the library's trainer: Adam of a constant rate, gradients clipped at norm 1."""
    config = SAETrainerConfig(
        total_training_samples=STEPS * BATCH,
        train_batch_size_samples=BATCH,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE,
        adam_beta1=0.9,
        adam_beta2=0.999,
        dead_feature_window=WINDOW,
    )
    return SAETrainer(config, _model(case), iter(torch.from_numpy(batches()))).fit()


def _state(sae: Any) -> Arrays:
    state = {name: _array(value) for name, value in sae.state_dict().items()}
    if "threshold" in state:
        # It bounds them at the start of a step, and so not after the last one.
        state["threshold"] = np.maximum(state["threshold"], 0)
    return state


def write_folders(case: Case, place: Path) -> None:
    """Write the trained model of a case as the library writes it for inference, and as one that is trained on."""
    sae = _trained(case)
    with torch.no_grad():
        sae.save_model(place / f"{case.name}-training")
        sae.save_inference_model(place / case.name)


def _inference(sae: Any) -> Arrays:
    """Codes and reconstruction of the first batch by the trained model, as it is written for inference."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        sae.save_inference_model(folder)
        written = SAE.load_from_disk(folder)
        codes = written.encode(torch.from_numpy(batches()[0]))
        return {"inference.codes": _array(codes), "inference.reconstruction": _array(written.decode(codes))}


def transcoder(architecture: str, place: Path) -> Arrays:
    """Write a transcoder of random parameters as the library does; its codes and outputs of the first batch."""
    kind, config = get_sae_class(architecture)
    sae = kind(config(d_in=D_IN, d_out=D_OUT, d_sae=D_SAE, apply_b_dec_to_input=False)).eval()
    rng = np.random.default_rng(2)
    x = torch.from_numpy(batches()[0])
    with torch.no_grad():
        for name, value in sae.named_parameters():
            drawn = rng.normal(size=tuple(value.shape)) * (0.5 if value.ndim == 2 else 0.1)
            value.copy_(torch.from_numpy(np.abs(drawn) if name == "threshold" else drawn))
        sae.save_model(place)
        return {"inference.codes": _array(sae.encode(x)), "inference.reconstruction": _array(sae(x))}


def _array(value: torch.Tensor) -> np.ndarray:
    # A copy: what a tensor points at may still change.
    return value.detach().to(torch.float32).numpy().copy(order="C")
