"""One step, inference and fifty steps against SAELens, from files that `python -m tests.parity` wrote with it."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from sae_jax.models import Step, dead, jump_penalties
from sae_jax.models.presets import preset
from sae_jax.training.config import lane_settings
from sae_jax.training.step import init_state
from tests.parity.cases import BATCH, CASES, D_IN, D_SAE, FIXTURES, LEARNING_RATE, STEPS, WINDOW
from tests.transforms import STEP

# By the library's names of parameters and losses.
PARAMETERS = {
    "W_enc": "encoder_weight",
    "W_dec": "decoder_weight",
    "b_enc": "encoder_bias",
    "b_dec": "decoder_bias",
    "b_mag": "encoder_bias",
    "b_gate": "gate_bias",
    "r_mag": "log_magnitude",
    "threshold": "threshold",
}
LOSSES = {"mse_loss": "reconstruction", "l1_loss": "l1", "l0_loss": "l0", "pre_act_loss": "pre_activation"}
# Settings of presets, by the names of the library's options.
DEFAULTS = {
    "l1_coefficient": "l1",
    "aux_loss_coefficient": "aux",
    "rescale_acts_by_decoder_norm": "rescale",
    "decoder_init_norm": "start_norm",
    "jumprelu_init_threshold": "threshold_start",
    "jumprelu_bandwidth": "bandwidth",
    "jumprelu_sparsity_loss_mode": "penalty",
    "jumprelu_ste_to_input": "input_gradient",
    "l0_coefficient": "l0",
    "residual_threshold": "residual_threshold",
    "stop_on_duplicate_support": "stop_at_repeat",
}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@functools.cache
def read(name):
    return load_file(FIXTURES / f"{name}.safetensors")


def library(case):
    return read(case.name)


def batches():
    return read("batches")["batches"]


def ours(case, kind):
    """Parameters or gradients of a kind, by our names and in our layout."""
    found = {name.removeprefix(f"{kind}."): value for name, value in library(case).items() if name.startswith(kind)}
    found.pop("topk_threshold", None)
    return {PARAMETERS[name]: value.T if name == "W_enc" else value for name, value in found.items()}


@every_case
def test_presets_hold_the_librarys_defaults(case):
    every = json.loads((FIXTURES / "defaults.json").read_text())
    theirs, trainer = every[case.architecture], every["trainer"]
    values = preset(case.preset)[1]
    same = {ours: theirs[name] for name, ours in DEFAULTS.items() if name in theirs}
    if case.architecture == "matching_pursuit":
        same["start_norm"] = 1.0  # It corrects the default that its config inherits.
    same |= {"learning_rate": trainer["lr"], "batch_size": trainer["train_batch_size_samples"]}
    if "dead_after" in values:
        # A unit is dead where it has been silent for more steps than the window.
        same["dead_after"] = (trainer["dead_feature_window"] + 1) * trainer["train_batch_size_samples"]
    if "topk_threshold_lr" in theirs:
        same["threshold_decay"] = 1 - theirs["topk_threshold_lr"]
    assert {name: values[name] for name in same} == pytest.approx(same)
    # What the presets have no setting for, or leave constant.
    fixed = {
        "lp_norm": 1,
        "l1_warm_up_steps": 0,
        "l0_warm_up_steps": 0,
        "jumprelu_tanh_scale": jump_penalties.TANH_SCALE,
    }
    fixed |= {"pre_act_loss_coefficient": None, "target_l0": None, "use_matryoshka_aux_loss": False}
    assert {name: theirs[name] for name in fixed if name in theirs} == {
        name: value for name, value in fixed.items() if name in theirs
    }
    constant = {"lr_scheduler_name": "constant", "lr_warm_up_steps": 0, "lr_decay_steps": 0}
    assert {name: trainer[name] for name in constant} == constant
    assert (trainer["adam_beta1"], trainer["adam_beta2"]) == (0.9, 0.999)


def losses(case):
    """The library's losses by our names; those of inner prefixes are part of the reconstruction."""
    found = {}
    for name, value in library(case).items():
        if name.startswith("loss."):
            word = name.removeprefix("loss.")
            auxiliary = "gates" if case.architecture == "gated" else "aux"
            term = "reconstruction" if word.startswith("inner_mse_loss") else LOSSES.get(word, auxiliary)
            found[term] = found.get(term, 0) + float(value)
    return found


def settings_of(case):
    model, values = preset(case.preset)
    # As many samples as a unit has been silent for after one step more than the library's window.
    here = {"learning_rate": LEARNING_RATE, "batch_size": BATCH, "steps": STEPS, "dead_after": (WINDOW + 1) * BATCH}
    return lane_settings(model, **values | here | case.settings, d_hidden=D_SAE)


def close(actual, expected, tolerance, name=""):
    """The largest difference is within a part of the largest entry."""
    assert np.shape(actual) == np.shape(expected), name
    error, size = np.max(np.abs(actual - expected)), np.max(np.abs(expected))
    assert error <= tolerance * size, f"{name}: {error:.3g} of {size:.3g}"


@every_case
def test_the_files_leave_no_formula_unseen(case):
    """What every comparison rests on: no term or gradient is 0 throughout, and 50 steps move every parameter."""
    found = library(case)
    assert all(value != 0 for value in losses(case).values())
    assert np.any(found["codes"]) and np.any(found["inference.codes"])
    before, after = ours(case, "before"), ours(case, "after")
    for name, gradient in ours(case, "gradient").items():
        assert np.any(gradient), name
        assert np.max(np.abs(after[name] - before[name])) > 0.1, name


@every_case
def test_every_loss_and_every_gradient_is_the_librarys(case):
    settings, params, x = settings_of(case), ours(case, "before"), batches()[0]
    model, own = settings.architecture, settings.model
    memory = model.memory(own)
    if memory.silence is not None:
        silent = jnp.where(library(case)["dead"], own.dead_after, 0).astype(jnp.int32)
        memory = memory.replace(silence=dead.DeadUnits(silent))

    def loss(params):
        terms, _ = model.loss(params, memory, Step(x, x, jnp.int32(0), STEPS), own)
        return sum(terms.values()), terms

    (total, terms), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = losses(case)
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-5), name
    assert float(total) == pytest.approx(float(library(case)["total"]), rel=1e-5)
    expected = ours(case, "gradient")
    assert set(gradients) == set(expected)
    for name, gradient in expected.items():
        close(gradients[name], gradient, 1e-5, name)


def stepped(case):
    settings = settings_of(case)
    state = init_state(jax.random.key(0), settings, D_IN)
    given = {name: jnp.asarray(value) for name, value in ours(case, "before").items()}
    assert {name: value.shape for name, value in given.items()} == {
        name: value.shape for name, value in state.params.items()
    }
    state = state.replace(params=given)
    for batch in batches():
        state, _ = STEP(settings, state, batch)
    return settings, state


@every_case
def test_fifty_steps_of_the_librarys_trainer(case):
    settings, state = stepped(case)
    for name, expected in ours(case, "after").items():
        close(state.params[name], expected, 1e-4, name)
    if "after.topk_threshold" in library(case):
        finished = settings.architecture.finish(state.params, state.memory, settings.model)
        expected = np.full(D_SAE, library(case)["after.topk_threshold"])
        close(finished["threshold"], expected, 1e-4, "threshold")


@every_case
def test_codes_and_reconstruction_at_inference(case):
    settings, params = settings_of(case), ours(case, "after")
    model, own = settings.architecture, settings.model
    if "after.topk_threshold" in library(case):
        params["threshold"] = np.full(D_SAE, library(case)["after.topk_threshold"])
    params = {name: jnp.asarray(value) for name, value in params.items()}
    codes = model.encode(params, batches()[0], own)
    close(model.decode(params, codes, own), library(case)["inference.reconstruction"], 1e-5)
    # The library writes rows of norm 1 where units are chosen by z ||Wd||, and codes in their units.
    norms = np.linalg.norm(params["decoder_weight"], axis=1)
    folded = getattr(own, "rescale", False)
    close(codes * norms[None] if folded else codes, library(case)["inference.codes"], 1e-5)
