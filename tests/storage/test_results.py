"""A run's files."""

import json
import re
import subprocess

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.numpy import load_file

from sae_jax import UserError, sweep
from sae_jax.data.normalise import STORED
from sae_jax.storage import arrays, netcdf
from sae_jax.storage.results import load, save, save_figure, save_measures

PARAMETERS = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
LANES = ("tied", "rho", "activation", "seed")


@pytest.fixture(scope="module")
def dataset(samples):
    axes = {"tied": [False, True], "rho": [0.05, 0.1], "activation": ["sigmoid", "relu"]}
    return sweep(samples, seeds=2, d_hidden=4, batch_size=32, steps=30, **axes)


def test_what_was_saved_is_what_is_loaded(dataset, tmp_path):
    (tmp_path / "new").mkdir()
    save(dataset, tmp_path / "new")
    back = load(tmp_path / "new")
    xr.testing.assert_identical(back, dataset)
    assert back["activation"].values.tolist() == ["sigmoid", "relu"]
    assert back["tied"].values.tolist() == [False, True]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "params.safetensors",
        "results.nc",
    ]


def test_variables_larger_than_a_piece_are_written_piece_by_piece(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", 100)
    monkeypatch.setattr(netcdf, "PIECE_BYTES", 100)
    save(dataset, tmp_path)
    xr.testing.assert_identical(load(tmp_path), dataset)


def test_parameters_have_the_sweeps_axes_in_front(dataset, tmp_path):
    save(dataset, tmp_path)
    tensors = load_file(tmp_path / "params.safetensors")
    assert set(tensors) == set(PARAMETERS)
    assert tensors["encoder_weight"].shape == (2, 2, 2, 2, 4, 16) and tensors["encoder_weight"].dtype == np.float32
    assert tensors["decoder_weight"].shape == (2, 2, 2, 2, 4, 16)
    np.testing.assert_array_equal(tensors["decoder_weight"][1, 0, 0, 0], tensors["encoder_weight"][1, 0, 0, 0])
    with xr.open_dataset(tmp_path / "results.nc", engine="h5netcdf") as stored:
        assert not set(stored.data_vars) & set(PARAMETERS)
        assert stored["loss"].dims == ("tied", "rho", "activation", "seed", "step")


def test_the_parameters_file_alone_is_enough_to_label_them(dataset, tmp_path):
    save(dataset, tmp_path)
    with safe_open(tmp_path / "params.safetensors", "numpy") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
    assert set(metadata) == set(PARAMETERS)
    assert metadata["encoder_weight"] == {
        "dims": [*LANES, "unit", "input"],
        "long_name": "encoder rows We",
        "units": "1",
    }


def test_the_dataset_declares_its_axes_and_the_kind_of_every_variable(dataset):
    assert json.loads(dataset.attrs["axes"]) == ["tied", "rho", "activation"] and dataset.attrs["format"] == 2
    kinds = {
        "parameter": {*PARAMETERS},
        "measure": {name for name in dataset.data_vars if name.startswith("eval_")},
        "curve": {name for name in dataset.data_vars if "step" in dataset[name].dims},
        "status": {"diverged_at", "stopped_at", "image_height", "image_width"},
        "data": {"input_gamma", *(name for name, _, _ in STORED.values())},
    }
    declared = {name: variable.attrs["kind"] for name, variable in dataset.data_vars.items()}
    assert declared == {name: kind for kind, names in kinds.items() for name in names}


def test_variables_that_this_version_does_not_know_are_kept(dataset, tmp_path):
    labels = {"long_name": "something new", "units": "1"}
    loss = dataset["loss"]
    more = dataset.assign(
        eval_new=dataset["eval_l0"].assign_attrs(kind="measure", **labels),
        loss_new=loss.copy(data=-loss).assign_attrs(kind="curve", **labels),
        threshold=dataset["encoder_bias"].assign_attrs(kind="parameter", **labels),
        words=("word", ["a", "b"], {"kind": "a new kind", **labels}),
    )
    save(more, tmp_path)
    assert "threshold" in load_file(tmp_path / "params.safetensors")
    xr.testing.assert_identical(load(tmp_path), more)


@pytest.mark.parametrize("kind", ["measure", "curve", "status", "parameter"])
def test_variables_that_are_absent_are_absent(kind, dataset, tmp_path):
    names = [name for name, variable in dataset.data_vars.items() if variable.attrs["kind"] == kind]
    assert len(names) >= 3
    for name in names:
        save(dataset.drop_vars(name), tmp_path)
        xr.testing.assert_identical(load(tmp_path), dataset.drop_vars(name))
    fewer = dataset.drop_vars(names[:-1] if kind == "parameter" else names)
    save(fewer, tmp_path)
    xr.testing.assert_identical(load(tmp_path), fewer)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.assign_attrs(axes="[]"), "over tied, rho, activation, seed, step, not over seed first"),
        (lambda d: d.assign_attrs(axes="{}"), "an attribute axes that is no list of settings"),
        (lambda d: d.assign_attrs(axes='["rho", "rho"]'), "an attribute axes that is no list of settings"),
        (lambda d: d.assign_attrs(axes='["tied", "rho", "activation", "seed"]'), "an attribute axes that is no list"),
        (lambda d: d.drop_attrs(deep=False), "an attribute axes that is no list of settings"),
        (lambda d: d.drop_vars("seed"), "no coordinate seed"),
        (lambda d: d.drop_vars("unit"), "over unit, which has no coordinate"),
        (lambda d: d.drop_vars(PARAMETERS), "no parameters"),
        (lambda d: d[[*PARAMETERS]], "no variables but parameters"),
        (lambda d: d.assign(x=d["loss"].drop_attrs()), "x without an attribute long_name"),
        (lambda d: d.assign(x=d["loss"].assign_attrs(kind=3)), "x without an attribute kind"),
        (lambda d: d.assign(x=d["loss"].astype(str)), "x of <U.*, which are no numbers"),
        (lambda d: d.assign(x=d["loss"].transpose("step", ...)), "x over step, tied, .*, not over tied, rho"),
        (lambda d: d.assign(x=d["eval_l0"].assign_attrs(kind="curve")), "x, a curve, over .* without step"),
        (lambda d: d.assign(x=d["loss"].assign_attrs(kind="status")), "x over .*, not over .*, seed alone"),
        (lambda d: d.assign(x=d["eval_l0"].mean("rho", keep_attrs=True)), "x over tied, activation, seed, not over"),
    ],
)
def test_a_dataset_that_does_not_describe_itself_is_not_written(change, reason, dataset, tmp_path):
    for write in (save, save_measures):
        with pytest.raises(ValueError, match=reason):
            write(change(dataset), tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_of_two_sweeps_do_not_go_together(dataset, samples, tmp_path):
    for name, axes in (("fewer", {"rho": [0.05, 0.1]}), ("other", {"tied": [False, True], "beta": [0.1, 0.2]})):
        (tmp_path / name).mkdir()
        save(sweep(samples, seeds=2, d_hidden=4, batch_size=32, steps=1, **axes), tmp_path / name)
        save_measures(dataset, tmp_path / name)
        with pytest.raises(
            UserError, match=f"files must be readable: {re.escape(str(tmp_path / name))}: got .*(over|beta)"
        ):
            load(tmp_path / name)


def test_a_newer_format_is_refused_in_one_line(dataset, tmp_path):
    save(dataset.assign_attrs(format=3), tmp_path)
    with pytest.raises(UserError, match=r"^a finished run's results must be of format 2 or an earlier one: got 3; use"):
        load(tmp_path)
    save(dataset.assign_attrs(format="new"), tmp_path)
    with pytest.raises(UserError, match=r"must be readable: .*: got format 'new', which is no number of a format"):
        load(tmp_path)


def test_a_write_that_fails_is_refused_and_leaves_nothing_half_written(dataset, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"must be writable: got .*: No space left on device"):
        save(dataset, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("piece_bytes", [100, 2**24], ids=["in pieces", "at once"])
def test_results_that_fill_a_disk_are_refused_with_what_to_do(piece_bytes, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(netcdf, "PIECE_BYTES", piece_bytes)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no file systems for us")
    try:
        with pytest.raises(UserError, match=r"must be writable: got .*: No space left on device; make room and"):
            save_measures(dataset, tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"must hold results\.nc"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_figure_that_a_disk_has_no_room_for_leaves_the_one_before(kind, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no file systems for us")
    try:
        path = tmp_path / f"figure.{kind}"
        path.write_bytes(b"the one before")
        (tmp_path / "ballast").write_bytes(bytes(2**16 - 2**13))
        figure = Figure()
        figure.add_subplot().plot([0, 1])
        with pytest.raises(UserError, match=r"No space left on device; make room and repeat the command"):
            save_figure(figure, path)
        assert path.read_bytes() == b"the one before" and len(list(tmp_path.iterdir())) == 2
    finally:
        subprocess.run(["umount", tmp_path], check=True)
