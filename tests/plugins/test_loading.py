"""Plug-ins as a program loads them: what is registered, refused, replaced and forgotten."""

import errno
import importlib
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import sae_jax
from sae_jax import MODELS, SweepWarning, UserError
from sae_jax.analysis.options import TASKS
from sae_jax.data import SOURCES
from sae_jax.models import ARCHITECTURES
from sae_jax.plugins import LOADED, load, load_installed, loading, unload
from sae_jax.sweeps.observers import OBSERVERS
from sae_jax.training.config import lane_settings
from tests.plugins.files import EXAMPLE, install, written

REGISTRIES = (MODELS, SOURCES, TASKS, OBSERVERS, LOADED)


def test_a_plug_in_is_registered_once_and_forgotten_whole():
    before = [dict(one) for one in REGISTRIES]
    plugin = load(EXAMPLE)
    assert load(str(EXAMPLE)) is plugin and load_names() == {"softplus", "rings", "spread", "diary"}
    assert MODELS["classic"] is not sae_jax.CLASSIC and sae_jax.models.model_of("classic") is MODELS["classic"]
    unload(plugin)
    assert [dict(one) for one in REGISTRIES] == before and MODELS["classic"] is sae_jax.CLASSIC
    assert sae_jax.models.model_of("classic") is sae_jax.CLASSIC


def load_names():
    """Names that are new in the registries."""
    known = {model.name for model in ARCHITECTURES} | {"patches", "digits", "tfds", "images", "array", "activations"}
    known |= {"table", "layer", "superposition", "probe", "anomaly", "denoising", "inpainting", "retrieval", "stacked"}
    return {name for registry in REGISTRIES[:-1] for name in registry} - known


def test_a_module_is_a_plug_in_too(tmp_path, monkeypatch):
    (tmp_path / "spoken.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("spoken")
    plugin = load(module)
    assert plugin.declared["model"]["softplus"] is module.SOFTPLUS
    assert load(tmp_path / "spoken.py") is plugin

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"can be read: got .*spoken\.py: Permission denied"):
        load(module)
    with pytest.raises(UserError, match="plugin must be a file or a module: got 7"):
        load(7)


def test_a_file_that_has_changed_takes_the_place_of_what_it_was(tmp_path):
    first = load(written(tmp_path, "{'one': term()}"))
    second = load(written(tmp_path, "{'two': term()}"))
    assert not hasattr(MODELS["classic"].Settings(), "one") and first.identity != second.identity
    with pytest.raises(UserError, match="a part must be"):
        load(written(tmp_path, "{'three': 3}"))
    assert [*LOADED.values()] == [second] and hasattr(MODELS["classic"].Settings(), "two")


def test_a_term_that_is_off_leaves_lanes_as_they_are_and_on_adds_its_weighted_value(samples, tmp_path):
    words = {"d_hidden": 4, "steps": 6, "batch_size": 16, "progress": False}
    plain = sae_jax.sweep(samples, **words)
    load(EXAMPLE)
    off, on = (sae_jax.sweep(samples, **words, **more) for more in ({}, {"student_t": 0.5, "student_scale": 2.0}))
    for name in plain.data_vars:
        np.testing.assert_array_equal(off[name], plain[name])
    assert "loss_student_t" not in off and off["eval_row_norm"].dims == ("seed", "unit")
    rows = np.linalg.norm(off["decoder_weight"].values, axis=-1)
    np.testing.assert_allclose(off["eval_row_norm"], rows, rtol=1e-5)
    # The first step's value, by hand: before it both are the same lane.
    settings = lane_settings("classic", d_hidden=4, steps=6, batch_size=16)
    params = sae_jax.init_state(sae_jax.keys_of(jax.random.key(0)).init, settings, 16).params
    data = sae_jax.as_data(samples)
    keys = sae_jax.keys_of(jax.random.key(0))
    batch = data.train[sae_jax.batch_indices(keys.batches, 0, len(data.train), 16)]
    codes = np.asarray(sae_jax.encode(params, batch, settings), np.float64)
    expected = 0.5 * np.mean(np.sum(np.log1p((codes / 2) ** 2), axis=1))
    np.testing.assert_allclose(on["loss_student_t"][0, 0], expected, rtol=1e-5)
    total = sum(on[name] for name in on.data_vars if name.startswith("loss_"))
    np.testing.assert_allclose(on["loss"], total, rtol=1e-5)


def test_settings_that_a_term_does_not_read_where_it_is_off_are_trained_once(samples):
    load(EXAMPLE)
    lines = []

    class Ear(sae_jax.Observer):
        def line(self, text):
            lines.append(text)

    words = {"d_hidden": 3, "steps": 1, "batch_size": 16, "progress": False, "observers": [Ear()]}
    sae_jax.sweep(samples, student_t=[0.0, 0.1], student_scale=[1.0, 2.0], **words)
    assert any("1 of 4 lanes differ only in student_scale, which student_t 0.0 does not read" in one for one in lines)


def test_of_what_a_model_does_not_read_nothing_is_believed_that_it_does_not_say(tmp_path):
    load(written(tmp_path, "{'one': mine('one')}"))
    assert MODELS["one"].Settings.UNREAD == {} and MODELS["classic"].Settings.UNREAD


@pytest.mark.parametrize("model", [model.name for model in ARCHITECTURES])
def test_a_term_is_added_to_any_model(model, samples, tmp_path):
    load(written(tmp_path, f"{{'one': term(models=('{model}',))}}"))
    words = {"d_hidden": 9, "steps": 2, "batch_size": 16, "progress": False, "one": 0.1}
    assert np.all(np.isfinite(sae_jax.sweep(samples, model, **words)["loss_one"]))


def test_a_model_whose_codes_are_known_at_the_end_alone_is_refused_a_term(samples, tmp_path):
    own = "BATCH_TOPK._replace(name='own', encode=lambda *given: BATCH_TOPK.encode(*given))"
    path = written(tmp_path, f"{{'own': {own}, 'one': term(models=('own',))}}")
    path.write_text(path.read_text().replace("\nPARTS", "\nfrom sae_jax.models.batch_topk import BATCH_TOPK\nPARTS"))
    load(path)
    words = {"d_hidden": 9, "steps": 2, "batch_size": 16, "progress": False}
    with pytest.raises(UserError, match=r"term one of parts.py needs .* model own, which knows threshold at the end"):
        sae_jax.sweep(samples, "own", one=0.1, **words)
    assert np.all(np.isfinite(sae_jax.sweep(samples, "own", **words)["loss"]))


def test_what_a_program_trains_says_what_it_used_and_asks_for_it(samples, tmp_path):
    words = {"d_hidden": 3, "steps": 2, "batch_size": 16, "progress": False}
    plugin = load(EXAMPLE)
    made = sae_jax.sweep(samples, "softplus", sharpness=[1.0, 2.0], **words)
    off = sae_jax.sweep(samples, **words)
    assert sae_jax.open(made).best().point["sharpness"] in (1, 2)
    sae_jax.open(made).best().save(tmp_path / "on.safetensors")
    sae_jax.open(off).best().save(tmp_path / "off.safetensors")
    with pytest.raises(UserError, match="other libraries know architectures of sae_jax alone: got softplus"):
        sae_jax.interop.saelens.save(sae_jax.open(made).best(), tmp_path / "folder")
    unload(plugin)
    with pytest.raises(UserError, match=r"model softplus comes from a plug-in.*--plugin .*my_parts.py, in Python"):
        sae_jax.open(made)
    with pytest.raises(UserError, match="model softplus comes from a plug-in"):
        sae_jax.tasks.apply("denoising", made, data=sae_jax.as_data(samples))
    # A term that is off, and measures, are not needed to read lanes.
    lane = sae_jax.open(off).best()
    assert lane.encode(samples).shape == (600, 3)
    with pytest.raises(UserError, match="model softplus comes from a plug-in"):
        sae_jax.load_lane(tmp_path / "on.safetensors")
    read = sae_jax.load_lane(tmp_path / "off.safetensors")
    np.testing.assert_array_equal(read.encode(samples), lane.encode(samples))
    merged = sae_jax.merge(off, off)
    assert merged.attrs["plugins"] == off.attrs["plugins"] and "student_t" in off.attrs["plugins"]


def test_a_plug_in_that_has_changed_since_is_told(samples, tmp_path):
    path = written(tmp_path, "{'one': mine('one')}")
    load(path)
    made = sae_jax.sweep(samples, "one", d_hidden=3, steps=1, batch_size=16, progress=False)
    path.write_text(path.read_text() + "\n")
    load(path)
    with pytest.warns(SweepWarning, match=r"another version of a plug-in: got plug-in parts.py sha256 \w+ -> sha256"):
        sae_jax.open(made)


def test_what_an_installed_package_names_is_loaded_where_a_program_asks_for_it(tmp_path, monkeypatch):
    install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "softplus" not in MODELS
    [plugin] = load_installed()
    assert (plugin.name, plugin.identity, plugin.sha256) == ("their-parts", "1.2", "") and "softplus" in MODELS
    assert load_installed() == [plugin]
    with pytest.raises(UserError, match=r"got model softplus of my_parts.py, also in .*their_parts.py; rename it"):
        load(EXAMPLE)
    unload(plugin)
    sys.modules.pop("their_parts")
    (tmp_path / "their_parts.py").write_text("1 / 0")
    with pytest.warns(SweepWarning, match=r"got their_parts: ZeroDivisionError\(.*package their-parts is left out"):
        assert load_installed() == []


def test_a_plug_in_that_another_has_replaced_is_not_unloaded_in_its_place(tmp_path):
    first = load(written(tmp_path, "{'first': Source(fails, 'a')}"))
    second = load(written(tmp_path, "{'second': Source(fails, 'a')}"))
    with pytest.raises(UserError, match=r"a plug-in must be loaded to be unloaded: got parts.py, which is not"):
        unload(first)
    assert "second" in SOURCES and "first" not in SOURCES
    unload(second)
    assert "second" not in SOURCES and not LOADED
    with pytest.raises(UserError, match="must be loaded to be unloaded"):
        unload(second)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_files_may_come_in_any_order(order, tmp_path):
    files = [
        written(tmp_path, "{'own': mine('own')}", "models.py"),
        written(tmp_path, "{'more': term(models=('own',))}", "terms.py"),
    ]
    loading.load_files([files[number] for number in order])
    assert "more" in MODELS["own"].Settings.__dataclass_fields__


@pytest.mark.parametrize("name", ["\udcff.py", "\0.py", "~nobody-of-this-name/x.py"])
def test_a_file_of_a_name_that_cannot_be_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name.startswith("\udcff"):
        written(tmp_path, "{'a': term()}", name)
    with pytest.raises(UserError, match="a plug-in must be a file of Python that can be read") as refused:
        load(name)
    assert str(refused.value).isprintable()
