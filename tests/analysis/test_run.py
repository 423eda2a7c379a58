"""A finished run, opened: its lanes encode samples that it never saw."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sae_jax
from sae_jax import DataConfig, UserError, encode, lane_settings
from sae_jax.analysis import trained_lane
from sae_jax.storage import results
from sae_jax.storage.arrays import in_memory
from sae_jax.storage.run_list import folder_of
from sae_jax.sweeps.keep import keep_parameters

RNG = np.random.default_rng(1)
# Features of unlike means and sizes, as tables have.
X = (RNG.normal(size=(300, 4)) @ RNG.normal(size=(4, 9)) * 3 + 40).astype(np.float64)
NEW = (RNG.normal(size=(57, 4)) @ RNG.normal(size=(4, 9)) * 3 + 40).astype(np.float64)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "x.npy"
    np.save(path, X)
    return path


@pytest.fixture(scope="module")
def dataset(table):
    data = DataConfig(dataset=f"array:{table}", normalize="standardize")
    axes = {"rho": [0.05, 0.1], "d_hidden": [5, 12], "k": [0, 3]}
    return sae_jax.sweep(data, **axes, seeds=2, steps=200, batch_size=64, output="linear", activation="relu", beta=0.0)


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "table"
    folder.mkdir()
    results.save(dataset, folder)
    return folder


def by_hand(dataset, point, x):
    """Codes from the stored parameters alone, as the equations say."""
    lane = dataset.sel(point)
    units = slice(point["d_hidden"])
    held = np.random.default_rng(0).permutation(len(X))[:30]
    train = np.delete(X, held, axis=0)
    normalised = (x - train.mean(axis=0)) / train.std(axis=0)
    z = normalised @ lane["encoder_weight"].values[units].T + lane["encoder_bias"].values[units]
    if point["k"]:
        z = np.where(z >= np.sort(z, axis=1)[:, -point["k"], None], z, 0)
    return np.maximum(z, 0)


@pytest.mark.parametrize("k", [0, 3])
def test_a_lane_encodes_new_samples_by_its_normalisation_and_its_k(folder, dataset, k):
    point = {"rho": 0.1, "d_hidden": 12, "k": k, "seed": 1}
    lane = sae_jax.open(folder).lane(**point)
    codes = lane.encode(NEW)
    assert codes.shape == (57, 12) and codes.dtype == np.float32
    np.testing.assert_allclose(codes, by_hand(dataset, point, NEW), atol=2e-5)
    assert not k or np.max(np.sum(codes != 0, axis=1)) == 3
    assert lane.point == point


def test_reconstructions_are_on_the_scale_of_the_samples(folder):
    lane = sae_jax.open(folder).best("eval_reconstruction")
    error = np.sum((X - lane.reconstruct(X)) ** 2) / np.sum((X - X.mean(axis=0)) ** 2)
    assert error < 0.3
    np.testing.assert_allclose(lane.decode(lane.encode(X)), lane.reconstruct(X), rtol=1e-6)


def test_each_images_mean_is_added_to_its_reconstruction_again():
    faces = RNG.uniform(size=(200, 16)) + np.linspace(0, 9, 200)[:, None]
    data = sae_jax.as_data(faces, DataConfig(normalize="unit", subtract_mean="patch"))
    images = sae_jax.Data(**(vars(data) | {"image_shape": (4, 4)}))
    lane = sae_jax.open(sae_jax.sweep(images, steps=50, output="linear", d_hidden=4, batch_size=32)).lane()
    decoded = lane.decode(lane.encode(faces))
    np.testing.assert_allclose(lane.reconstruct(faces), decoded + faces.mean(axis=1, keepdims=True), rtol=1e-5)
    assert np.ptp(decoded.mean(axis=1)) < 1


def test_samples_are_worked_on_some_at_a_time(folder, monkeypatch):
    lane = sae_jax.open(folder).lane(rho=0.05, d_hidden=12, k=3, seed=0)
    whole = lane.encode(NEW), lane.reconstruct(NEW)
    monkeypatch.setattr(trained_lane, "PIECE_BYTES", 1000)
    np.testing.assert_allclose(lane.encode(NEW), whole[0], atol=1e-6)
    np.testing.assert_allclose(lane.reconstruct(NEW), whole[1], rtol=1e-6)
    assert lane.encode(NEW[:0]).shape == (0, 12)
    np.testing.assert_array_equal(lane.encode(NEW.tolist()), lane.encode(NEW))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (
            NEW[0],
            r"samples must be an array \[samples, 9\] for .*encoder_weight \[12, 9\].*: got shape \[9\]; .*x\[None\]",
        ),
        (NEW[:, :5], r"got shape \[57, 5\]"),
        (NEW[None], r"got shape \[1, 57, 9\]"),
        (NEW + 1j, "must be real numbers: got dtype complex128"),
        (["a", "b"], r"got shape \[2\]; these parameters take no others"),
    ],
)
def test_samples_of_another_kind_are_refused(folder, x, words):
    lane = sae_jax.open(folder).lane(rho=0.05, d_hidden=12, k=3, seed=0)
    params = jax.tree.map(jnp.asarray, lane.params)
    of_arrays = [] if isinstance(x, list) else [lambda x: encode(params, x, lane.settings)]
    for function in (lane.encode, lane.reconstruct, *of_arrays):
        with pytest.raises(UserError, match=words):
            function(x)
    with pytest.raises(UserError, match=r"codes must be an array \[samples, 12\]"):
        lane.decode(NEW)


def test_a_batch_of_another_width_is_refused():
    settings = lane_settings(d_hidden=6)
    state = sae_jax.init_state(sae_jax.keys_of(jax.random.key(0)).init, settings, 6)
    with pytest.raises(UserError, match=r"samples must be an array \[samples, 6\] .*: got shape \[6\]"):
        sae_jax.train_step(settings, state, jnp.ones(6))


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"rho": 0.05, "d_hidden": 5, "k": 0}, "lane needs a value for seed: got none; use one of 0, 1"),
        (
            {"rho": 0.3, "d_hidden": 5, "k": 0, "seed": 0},
            "rho must be a value of the sweep: got 0.3; use one of 0.05, 0.1",
        ),
        ({"rho": 0.1, "d_hidden": 5, "k": 0, "seed": 0, "rh": 1}, "unknown setting rh: did you mean rho"),
        ({"rho": 0.1, "d_hidden": 5, "k": 0, "seed": 0, "l1": 1}, "l1 must be a value of the sweep: got 1; use 0"),
    ],
)
def test_a_place_that_is_none_is_refused(dataset, point, words):
    with pytest.raises(UserError, match=words):
        sae_jax.open(dataset).lane(**point)


def test_a_selected_dataset_needs_no_value_for_what_is_selected(dataset, folder):
    part = dataset.sel(rho=0.1, d_hidden=5).isel(seed=[1])
    lane = sae_jax.open(part).lane(k=3)
    same = sae_jax.open(folder).lane(rho=0.1, d_hidden=5, k=3, seed=1)
    assert float(lane.settings.model.rho) == 0.1
    np.testing.assert_array_equal(lane.encode(NEW), same.encode(NEW))


def test_the_best_lane_is_the_best_of_those_allowed(dataset):
    run = sae_jax.open(dataset)
    explained, l0 = dataset["eval_explained_variance"], dataset["eval_l0"]
    limit = float(np.median(l0))
    best = run.best("eval_explained_variance", at={"eval_l0": limit})
    assert float(explained.sel(best.point)) == float(explained.where(l0 <= limit).max())
    assert float(dataset["eval_reconstruction"].sel(run.best("eval_reconstruction").point)) == float(
        dataset["eval_reconstruction"].min()
    )
    for number in (10**20, 10**400, np.uint64(2**64 - 1), np.inf):
        assert run.best(at={"eval_l0": number}).point == run.best().point
    for number, shown in ((0.001, "0.001"), (-(10**20), "-1e+20"), (-(10**400), "-1.79769e+308")):
        with pytest.raises(
            UserError, match=rf"no lane has eval_l0 of at most {re.escape(shown)}: got .* as its lowest"
        ):
            run.best(at={"eval_l0": number})
    for number in (np.nan, True, "3", None):
        with pytest.raises(UserError, match=rf"at must name numbers: got {number!r} for eval_l0"):
            run.best(at={"eval_l0": number})
    with pytest.raises(UserError, match="unknown measure of whole lanes eval_l1"):
        run.best("eval_l1")


def test_no_lane_beats_one_of_the_pareto_lanes(dataset):
    explained, l0 = (
        dataset[name].stack(lane=dataset["eval_l0"].dims) for name in ("eval_explained_variance", "eval_l0")
    )
    points = {(float(l0.sel(lane=lane)), float(explained.sel(lane=lane))) for lane in explained["lane"].values}
    lanes = [explained.sel(lane=tuple(lane.point.values())) for lane in sae_jax.open(dataset).pareto()]
    chosen = [(float(l0.sel(lane=lane["lane"])), float(lane)) for lane in lanes]
    assert chosen == sorted(chosen) and len(set(chosen)) == len(chosen)
    unbeaten = {(x, y) for x, y in points if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)}
    assert set(chosen) == unbeaten


def test_a_diverged_lane_says_so(dataset):
    wild = dataset.copy(deep=True)
    place = {"rho": 0.1, "d_hidden": 12, "k": 0, "seed": 1}
    wild["diverged_at"].loc[place] = 7
    run = sae_jax.open(wild)
    lane = run.lane(**place)
    assert "diverged at step 7" in repr(lane)
    with pytest.warns(UserWarning, match="turned non-finite at step 7"):
        lane.encode(NEW)
    assert run.best("eval_explained_variance").point != place


def test_an_unfinished_run_says_so(tmp_path):
    (tmp_path / "half" / "unfinished").mkdir(parents=True)
    (tmp_path / "half" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"must be finished: got .*half, an unfinished one; resume it"):
        sae_jax.open(tmp_path / "half")


def test_a_run_is_opened_by_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[0])
    (folder.parents[0] / "runs").symlink_to(folder.parents[0])
    assert sae_jax.open("table").dataset.sizes["seed"] == 2


def test_a_lane_is_shared_as_one_file(folder, tmp_path):
    lane = sae_jax.open(folder).lane(rho=0.05, d_hidden=5, k=3, seed=1)
    lane.save(tmp_path / "lane.safetensors")
    again = sae_jax.load_lane(tmp_path / "lane.safetensors")
    np.testing.assert_array_equal(again.encode(NEW), lane.encode(NEW))
    np.testing.assert_array_equal(again.reconstruct(NEW), lane.reconstruct(NEW))
    assert again.point == lane.point and repr(again) == repr(lane)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"must be a file that TrainedLane.save wrote"):
        sae_jax.load_lane(tmp_path / "no.safetensors")


def test_the_torch_layout_is_that_of_two_linear_layers(folder):
    lane = sae_jax.open(folder).lane(rho=0.05, d_hidden=5, k=0, seed=1)
    layers = lane.to_torch_layout()
    x = lane.normalisation.apply(NEW)
    codes = np.maximum(x @ layers["encoder.weight"].T + layers["encoder.bias"], 0)
    restored = codes @ layers["decoder.weight"].T + layers["decoder.bias"]
    np.testing.assert_allclose(lane.normalisation.undo(restored), lane.reconstruct(NEW), rtol=1e-5)


def test_settings_that_are_paired_name_a_lane_together():
    pairs = {"rho": [0.05, 0.1, 0.2], "beta": [1.0, 0.3, 1.0], "zip": ("rho", "beta")}
    run = sae_jax.open(sae_jax.sweep(DataConfig(dataset="digits"), **pairs, steps=5, d_hidden=4))
    lane = run.lane(beta=0.3)
    assert lane.point == {"rho": 0.1, "beta": 0.3, "seed": 0} and float(lane.settings.model.rho) == np.float32(0.1)
    assert run.lane(rho=0.2).point["beta"] == 1.0
    with pytest.raises(UserError, match=r"settings must go together in the sweep: got rho=0.05, beta=0.3"):
        run.lane(rho=0.05, beta=0.3)
    with pytest.raises(UserError, match=r"lane needs a value for rho: got none; use one of 0.05, 0.2"):
        run.lane(beta=1)


def test_a_lane_whose_parameters_were_left_out_says_whose_there_are(dataset):
    run = sae_jax.open(keep_parameters(dataset, "best", in_memory()))
    place = {"rho": 0.1, "d_hidden": 12, "k": 3}
    best = int(dataset["eval_reconstruction"].sel(place).argmin("seed"))
    np.testing.assert_array_equal(
        run.lane(**place, seed=best).encode(NEW), sae_jax.open(dataset).lane(**place, seed=best).encode(NEW)
    )
    with pytest.raises(UserError, match=f"got seed {1 - best}; use seed {best}"):
        run.lane(**place, seed=1 - best)
    with pytest.raises(UserError, match="train it again with --keep all"):
        sae_jax.open(keep_parameters(dataset, "none", in_memory())).lane(**place, seed=0)


def test_a_hole_of_a_merged_run_is_no_lane():
    parts = [
        sae_jax.sweep(DataConfig(dataset="digits"), rho=[r], beta=[b], steps=5, d_hidden=4)
        for r, b in ((0.1, 1), (0.2, 2))
    ]
    run = sae_jax.open(sae_jax.merge(*parts))
    assert run.lane(rho=0.2, beta=2).encode(np.zeros((2, 64))).shape == (2, 4)
    with pytest.raises(UserError, match="the run must hold the lane: got a hole of a merged grid"):
        run.lane(rho=0.1, beta=2)
    assert run.best().point in ({"rho": 0.1, "beta": 1.0, "seed": 0}, {"rho": 0.2, "beta": 2.0, "seed": 0})


def test_a_run_is_meant_where_a_folder_of_its_name_holds_samples(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table").mkdir()
    (tmp_path / "runs").symlink_to(folder.parent)
    assert sae_jax.open("table").lane(rho=0.05, d_hidden=5, k=0, seed=0).encode(X[:3]).shape == (3, 5)
    assert folder_of("table") == Path("runs/table")
