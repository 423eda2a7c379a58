"""Folders of SAELens: those that the library wrote are read, and those that are written hold the lane they are of."""

import functools
import importlib.util
import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import flax
from safetensors.numpy import load_file, save_file

import sae_jax
from sae_jax import DataConfig, UserError, interop
from sae_jax.analysis.interop import saelens
from tests.parity.cases import CASES, D_IN, D_OUT, D_SAE, FIXTURES, TRANSCODERS
from tests.parity.test_parity import batches, close, library, ours, read

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(300, 12)) @ RNG.normal(size=(12, 12)) + 3).astype(np.float32)
LINEAR = {"activation": "relu", "output": "linear"}
# model, settings, normalisation
LANES = [
    ("relu", {}, "standardize"),
    ("topk", {"k": 3}, "length"),
    ("topk", {"k": 3, "rescale": True}, "standardize"),
    ("abs_topk", {"k": 3}, "centre"),
    ("batch_topk", {"k": 3}, "none"),
    ("batch_topk", {"k": 3, "rescale": True}, "standardize"),
    ("matryoshka", {"k": 3, "prefixes": "1/4,1/2"}, "unit"),
    ("jumprelu", {}, "standardize"),
    ("gated", {}, "standardize"),
    ("matching_pursuit", {"k": 3, "residual_threshold": 0.5}, "length"),
    ("classic", LINEAR, "standardize"),
    ("classic", LINEAR | {"k": 3}, "centre"),
    ("classic", LINEAR | {"k": 3, "k_factor": 2.0}, "standardize"),
    ("classic", LINEAR | {"k": 20, "k_factor": 3.0}, "none"),
    ("saelens-batchtopk", {"k": 3}, "standardize"),
    ("topk:frozen=decoder", {"k": 3}, "none"),
]
# Rows of the samples beside what is made of them.
Y = (4 * np.maximum(X @ RNG.normal(size=(12, 5)), 0) - 7).astype(np.float32)
TARGETS = [
    ("relu", {"targets": Y}, "standardize"),
    ("relu", {"targets": Y, "skip": True}, "standardize"),
    ("jumprelu", {"targets": Y, "skip": True}, "length"),
    ("batch_topk", {"targets": Y, "k": 3, "rescale": True}, "standardize"),
    ("matryoshka", {"targets": Y, "k": 3}, "none"),
    ("relu", {"targets": Y, "skip": True, "centre": "mean"}, "unit"),
]
LANES += TARGETS
every_lane = pytest.mark.parametrize(
    ("model", "settings", "normalize"), LANES, ids=lambda value: "" if isinstance(value, dict) else value
)


def lane_of(model, settings, normalize, tmp_path, **data):
    np.save(tmp_path / "x.npy", X)
    if "targets" in settings:
        np.save(tmp_path / "y.npy", settings["targets"])
        settings = settings | {"targets": str(tmp_path / "y.npy")}
    config = DataConfig(dataset=f"array:{tmp_path / 'x.npy'}", normalize=normalize, **data)
    small = {"d_hidden": 24, "steps": 40, "batch_size": 32, "seeds": 1, "progress": False}
    return sae_jax.open(sae_jax.sweep(config, model=model, **small, **settings)).lane()


def units(lane):
    """What the library's codes are in, in units of the lane's."""
    norms = np.linalg.norm(lane.params["decoder_weight"], axis=1) if getattr(lane.settings.model, "rescale", 0) else 1
    # Rows of matching pursuit stay as they are, and so codes are in units of the samples.
    return np.mean(lane.normalisation.scale) if lane.settings.architecture.name == "matching_pursuit" else norms


@every_lane
def test_a_lane_that_is_written_and_read_encodes_as_before(model, settings, normalize, tmp_path):
    lane = lane_of(model, settings, normalize, tmp_path)
    files = interop.save(lane, tmp_path / "folder", "blocks.0", "gpt2", {"l0": 3.5})
    assert [file.name for file in files] == ["cfg.json", "sae_weights.safetensors"]
    back = interop.load(tmp_path / "folder")
    close(back.reconstruct(X), lane.reconstruct(X), 1e-6)
    close(back.encode(X), lane.encode(X) * units(lane), 1e-6)
    assert np.any(lane.encode(X)) and back.normalisation.is_identity
    config = json.loads(files[0].read_text())
    assert (config["d_in"], config["d_sae"], config["normalize_activations"]) == (12, 24, "none")
    about = {"hook_name": "blocks.0", "model_name": "gpt2", "l0": 3.5, "training_architecture": model, "seed": 0}
    assert about.items() <= config["metadata"].items()
    kind = "transcoder 12-24-5" if "targets" in settings else "autoencoder 12-24"
    assert repr(back) == f"<{back.settings.architecture.name} {kind}>"


NO_JSON = [({"l0": {1}}, "hold .*: got set; convert them"), ({(1, 2): 3}, "hold .*: got keys"), ([3.5], "be a mapping")]


@pytest.mark.parametrize(("notes", "message"), NO_JSON, ids=["a set", "keys", "a list"])
def test_notes_that_are_no_json_are_refused_and_the_folder_stays_as_it_was(notes, message, tmp_path):
    lane = interop.load(FIXTURES / "folders" / CASES[0].name)
    files = interop.save(lane, tmp_path, notes={"l0": np.float32(3.5), "sizes": np.arange(2)})
    before = [path.read_bytes() for path in files]
    assert {"l0": 3.5, "sizes": [0, 1]}.items() <= json.loads(before[0])["metadata"].items()
    with pytest.raises(UserError, match=f"^notes must {message}"):
        interop.save(lane, tmp_path, notes=notes)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.skipif(importlib.util.find_spec("sae_lens") is None, reason="SAELens is not there")
@pytest.mark.filterwarnings("ignore")
@every_lane
def test_the_library_reads_what_is_written(model, settings, normalize, tmp_path):
    import torch
    from sae_lens import SAE

    lane = lane_of(model, settings, normalize, tmp_path)
    interop.save(lane, tmp_path / "folder")
    theirs = SAE.load_from_disk(tmp_path / "folder")
    with torch.no_grad():
        codes = theirs.encode(torch.from_numpy(X))
        rebuilt = theirs(torch.from_numpy(X)).numpy()
    close(codes.numpy(), lane.encode(X) * units(lane), 1e-5)
    close(rebuilt, lane.reconstruct(X), 1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_folders_of_the_library_give_its_codes_and_reconstructions(case):
    lane = interop.load(FIXTURES / "folders" / case.name)
    close(lane.encode(batches()[0]), library(case)["inference.codes"], 1e-5)
    close(lane.reconstruct(batches()[0]), library(case)["inference.reconstruction"], 1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_folders_of_trainings_which_the_library_does_not_read_itself(case):
    lane = interop.load(FIXTURES / "folders" / f"{case.name}-training")
    close(lane.encode(batches()[0]), library(case)["inference.codes"], 1e-5)
    close(lane.reconstruct(batches()[0]), library(case)["inference.reconstruction"], 1e-5)
    after = ours(case, "after")
    close(lane.params["decoder_bias"], after["decoder_bias"], 1e-5)
    assert lane.d_hidden == D_SAE


def test_an_encoder_that_sees_samples_without_the_bias_subtracted(tmp_path):
    for name in ("standard", "gated"):
        folder = shutil.copytree(FIXTURES / "folders" / name, tmp_path / name)
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps(config | {"apply_b_dec_to_input": False}))
        before, after = interop.load(FIXTURES / "folders" / name), interop.load(folder)
        x = batches()[0]
        close(after.encode(x), before.encode(x + before.params["decoder_bias"]), 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read(dtype, tmp_path):
    folder = shutil.copytree(FIXTURES / "folders" / "standard", tmp_path / "half")
    file = folder / "sae_weights.safetensors"
    flax.save_file({name: jnp.asarray(value, dtype) for name, value in load_file(file).items()}, file)
    whole = interop.load(FIXTURES / "folders" / "standard")
    close(interop.load(folder).encode(batches()[0]), whole.encode(batches()[0]), 3e-3 if dtype == "float16" else 3e-2)


def test_a_dead_row_is_never_among_the_chosen(tmp_path):
    lane = lane_of("topk", {"k": 3, "rescale": True}, "none", tmp_path)
    lane.params["decoder_weight"][:8] = 0
    lane.params["encoder_bias"][:8] = 5
    interop.save(lane, tmp_path / "folder")
    close(interop.load(tmp_path / "folder").reconstruct(X), lane.reconstruct(X), 1e-6)


def test_a_record_of_ones_own_is_not_taken_for_the_librarys(tmp_path):
    own = sae_jax.MODELS["relu"]._replace(encode=lambda params, x, s: sae_jax.MODELS["relu"].encode(params, 2 * x, s))
    small = {"d_hidden": 8, "steps": 5, "batch_size": 32, "seeds": 1, "normalize": "none", "progress": False}
    run = sae_jax.sweep(X, model=own, **small)
    with pytest.raises(UserError, match="know architectures of sae_jax alone: got relu, a record of your own"):
        interop.save(sae_jax.open(run, own).lane(), tmp_path / "folder")


@pytest.mark.parametrize(
    ("model", "settings", "data", "message"),
    [
        ("classic", {}, {"normalize": "ufldl"}, "relu codes and linear outputs alone: got activation sigmoid, output"),
        (
            "classic",
            LINEAR | {"activation": "tanh"},
            {"normalize": "none"},
            "alone: got activation tanh, output linear",
        ),
        ("relu", {}, {"normalize": "ufldl"}, "must be affine to become part of the weights: got one that clips"),
        ("relu", {}, {"normalize": "unit", "subtract_mean": "patch"}, "got one that subtracts each sample's own mean"),
        ("matching_pursuit", {"k": 3}, {"normalize": "standardize"}, "can take in one scale of all features"),
        ("topk", {"targets": Y, "k": 3}, {"normalize": "none"}, "of ReLU codes and of codes above a threshold alone"),
        ("gated", {"targets": Y}, {"normalize": "none"}, "above a threshold alone: got gated; train with --model relu"),
        ("relu", {"targets": Y}, {"normalize": "ufldl", "subtract_mean": "global"}, "affine .*: got one that clips"),
    ],
)
def test_what_has_no_form_there_is_refused_with_the_reason(model, settings, data, message, tmp_path):
    lane = lane_of(model, settings, data.pop("normalize"), tmp_path, **data)
    with pytest.raises(UserError, match=message):
        interop.save(lane, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def changed(folder, **entries):
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | entries))


def replaced(folder, change):
    file = folder / "sae_weights.safetensors"
    save_file(change(load_file(file)), file)


HARM = {
    "an unknown architecture": (functools.partial(changed, architecture="temporal"), "architecture must be one of"),
    "no number": (
        lambda folder: replaced(folder, lambda old: old | {"b_dec": np.float32([np.nan] + 5 * [0])}),
        "decoder_bias must be finite: got 1 numbers that are not",
    ),
    "a normalisation": (
        functools.partial(changed, normalize_activations="layer_norm"),
        "normalize_activations must be",
    ),
    "heads": (
        functools.partial(changed, reshape_activations="hook_z"),
        "reshape_activations must be none: got 'hook_z'",
    ),
    "an old version": (functools.partial(changed, metadata={"sae_lens_version": "5.9"}), "sae_lens_version must be at"),
    "no version": (functools.partial(changed, metadata={}), "sae_lens_version must be at least 6"),
    "no list": (lambda folder: (folder / "cfg.json").write_text("[]"), "must be a folder that SAELens 6 wrote"),
    "cut weights": (
        lambda folder: os.truncate(folder / "sae_weights.safetensors", 300),
        "must be a folder that SAELens",
    ),
    "no weights": (
        lambda folder: (folder / "sae_weights.safetensors").unlink(),
        "must be a folder that SAELens 6 wrote",
    ),
    "another width": (functools.partial(changed, d_sae=5), r"must be as d_in and d_sae say, \[5"),
    "another input": (functools.partial(changed, d_in=5), r"must be as d_in and d_sae say, \["),
    "a missing tensor": (
        lambda folder: replaced(folder, lambda old: {n: v for n, v in old.items() if n != "b_enc"}),
        "standard holds decoder_bias, decoder_weight, encoder_bias, encoder_weight: got",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_folders_that_are_none_are_refused_in_a_line(harm, tmp_path):
    folder = shutil.copytree(FIXTURES / "folders" / "standard", tmp_path / "folder")
    harmed, message = HARM[harm]
    harmed(folder)
    with pytest.raises(UserError, match=message) as refused:
        interop.load(folder)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


@pytest.mark.parametrize("name", TRANSCODERS)
def test_transcoders_of_the_library_give_its_codes_and_outputs(name, tmp_path):
    lane, found = interop.load(FIXTURES / "folders" / name), read(name)
    assert (lane.d_in, lane.d_hidden, lane.d_out, lane.transcodes) == (D_IN, D_SAE, D_OUT, True)
    close(lane.encode(batches()[0]), found["inference.codes"], 1e-5)
    close(lane.reconstruct(batches()[0]), found["inference.reconstruction"], 1e-5)
    skipped = batches()[0] @ lane.params["skip_weight"].T if "skip" in name else 0
    close(lane.decode(lane.encode(batches()[0])) + skipped, found["inference.reconstruction"], 1e-5)
    files = interop.save(lane, tmp_path / "folder")
    before = FIXTURES / "folders" / name
    config = json.loads((before / "cfg.json").read_text())
    assert config | {"metadata": None} == json.loads(files[0].read_text()) | {"metadata": None}
    for key, value in load_file(before / "sae_weights.safetensors").items():
        np.testing.assert_allclose(load_file(files[1])[key], value, rtol=1e-6)
    lane.save(tmp_path / "lane.safetensors")
    back = sae_jax.load_lane(tmp_path / "lane.safetensors")
    np.testing.assert_array_equal(back.reconstruct(batches()[0]), lane.reconstruct(batches()[0]))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("transcoder", {"d_out": 5}, r"as d_in, d_sae and d_out say, \[10, 5\]: got \[10, 4\]"),
        ("skip_transcoder", {"architecture": "transcoder"}, "transcoder holds decoder_bias, .*: got .*skip_weight"),
        ("transcoder", {"architecture": "skip_transcoder"}, "skip_transcoder holds .*skip_weight: got"),
        ("transcoder", {"d_out": 0}, "d_out must be at least 1: got 0; write"),
    ],
)
def test_transcoders_that_are_none_are_refused_in_a_line(name, change, message, tmp_path):
    folder = shutil.copytree(FIXTURES / "folders" / name, tmp_path / "folder")
    changed(folder, **change)
    with pytest.raises(UserError, match=message):
        interop.load(folder)


def test_a_pipe_is_not_waited_for(tmp_path):
    folder = shutil.copytree(FIXTURES / "folders" / "standard", tmp_path / "folder")
    (folder / "cfg.json").unlink()
    os.mkfifo(folder / "cfg.json")
    with pytest.raises(UserError, match="no regular file"):
        interop.load(folder)


def test_every_model_has_a_form_or_is_refused():
    assert set(saelens.FORMS) == set(sae_jax.MODELS)
