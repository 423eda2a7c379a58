"""Lanes that start from dictionaries of SAELens, and those that are measured alone."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import flax
from safetensors.numpy import load_file

import sae_jax
from sae_jax import DataConfig, UserError, as_data, interop, sweep
from sae_jax.storage import results
from sae_jax.sweeps.dictionaries import digest, read
from sae_jax.sweeps.extend import extend
from sae_jax.sweeps.merge import merge
from tests.parity.cases import CASES, D_IN, D_SAE, FIXTURES
from tests.parity.test_parity import batches
from tests.processes import start
from tests.watching import Watcher

FOLDERS = FIXTURES / "folders"
EVERY = [f"{case.name}{kind}" for case in CASES for kind in ("", "-training")]
QUIET = {"progress": False, "devices": 1}


@pytest.fixture(scope="module")
def samples():
    return np.concatenate([*batches()]).astype(np.float32)


def reference(lane, x):
    """Measures of held-out samples by NumPy alone, from codes and rows."""
    codes = lane.encode(x).astype(float)
    rebuilt = codes @ lane.params["decoder_weight"].astype(float) + lane.params["decoder_bias"]
    error = np.sum((x - rebuilt) ** 2, axis=1)
    return {
        "eval_explained_variance": 1 - error.sum() / np.sum((x - x.mean(axis=0, dtype=float)) ** 2),
        "eval_reconstruction": error.mean(),
        "eval_l0": np.count_nonzero(codes, axis=1).mean(),
        "eval_dead_fraction": np.mean(~codes.any(axis=0)),
    }


@pytest.mark.parametrize("name", EVERY)
def test_with_no_steps_a_folder_is_measured_as_it_is(name, samples):
    made, lane = sweep(samples, start_from=FOLDERS / name, steps=0, **QUIET), interop.load(FOLDERS / name)
    for measure, value in reference(lane, as_data(samples).heldout).items():
        np.testing.assert_allclose(float(made[measure].squeeze()), value, rtol=1e-5, err_msg=measure)
    assert set(lane.params) <= set(made.data_vars)
    for parameter, value in lane.params.items():
        np.testing.assert_array_equal(made[parameter].squeeze("seed"), value)
    assert made["step"].values.tolist() == [0] and np.isnan(made["loss"]).all()
    assert (made["diverged_at"] == -1).all()
    assert made.attrs["started_from"] == str(FOLDERS / name) and str(made["normalize"].values) == "none"


@pytest.mark.parametrize("name", ["standard", "gated", "topk_rescaled-training", "batchtopk-training", "jumprelu_step"])
def test_a_few_steps_lower_the_error_and_the_lane_is_exported_again(name, samples, tmp_path):
    settings = {"learning_rate": 1e-3, "batch_size": 32} | QUIET
    before, after = (sweep(samples, start_from=FOLDERS / name, steps=steps, **settings) for steps in (0, 60))
    assert float(after["eval_reconstruction"].squeeze()) < 0.999 * float(before["eval_reconstruction"].squeeze())
    lane = sae_jax.open(after).lane()
    interop.save(lane, tmp_path / "tuned")
    np.testing.assert_allclose(
        interop.load(tmp_path / "tuned").reconstruct(samples), lane.reconstruct(samples), atol=1e-5
    )


def test_the_first_step_takes_its_loss_from_the_folders_arrays(samples):
    train, lane = as_data(samples).train, interop.load(FOLDERS / "topk")
    # The one that takes all samples at once.
    made = sweep(samples, start_from=FOLDERS / "topk", steps=1, optimizer="lbfgs", **QUIET)
    expected = reference(lane, train)["eval_reconstruction"]
    np.testing.assert_allclose(float(made["loss"].squeeze()), expected, rtol=1e-5)
    # Batches, too, are encoded by k units from the first on.
    drawn = sweep(samples, start_from=FOLDERS / "topk", steps=1, batch_size=128, **QUIET)
    assert 0.5 * expected < float(drawn["loss"].squeeze()) < 2 * expected and float(drawn["k_warmup"]) == 0


def test_lanes_of_every_seed_and_value_start_from_the_same_arrays(samples):
    still = {"optimizer": "sgd", "learning_rate": 1e-12, "momentum": 0.0, "steps": 1}
    made = sweep(samples, start_from=FOLDERS / "topk", k=[2.0, 3.0], seeds=[4, 7], **still, **QUIET)
    assert made["loss"].dims == ("k", "seed", "step") and made["seed"].values.tolist() == [4, 7]
    for value in made["decoder_weight"].values.reshape(4, D_SAE, D_IN):
        np.testing.assert_allclose(value, read(FOLDERS / "topk").params["decoder_weight"], atol=1e-7)
    np.testing.assert_allclose(made["eval_l0"].mean("seed"), [2, 3])


def test_a_running_threshold_goes_on_from_the_folders_and_from_a_runs(samples):
    folder = FOLDERS / "batchtopk-training"
    there = read(folder).params["threshold"][0]
    tuned = sweep(samples, start_from=folder, steps=20, learning_rate=1e-4, threshold_decay=[0.0, 0.9999], **QUIET)
    quick, slow = tuned["threshold"].isel(seed=0, unit=0).values
    assert abs(slow - there) < 0.01 * there < abs(quick - there)
    again = sweep(samples, start_from=tuned, steps=0, **QUIET)
    np.testing.assert_array_equal(again["threshold"], tuned["threshold"])
    np.testing.assert_allclose(again["eval_l0"], tuned["eval_l0"], rtol=1e-6)


@pytest.mark.parametrize("how", ["array", "config", "data"])
def test_samples_stay_as_they_are_unless_a_rule_is_given(how, samples, tmp_path):
    np.save(tmp_path / "x.npy", samples)
    source = DataConfig(dataset=f"array:{tmp_path / 'x.npy'}")
    data = {"array": samples, "config": source, "data": as_data(samples)}[how]
    made = sweep(data, start_from=FOLDERS / "standard", steps=0, **QUIET)
    assert (made["input_scale"] == 1).all() and (made["input_centre"] == 0).all()
    if how == "config":
        assert str(made["dataset"].values) == source.dataset
        asked = sweep(
            DataConfig(source.dataset, normalize="standardize"), start_from=FOLDERS / "standard", steps=0, **QUIET
        )
    else:
        rule = {"normalize": "standardize"}
        data = as_data(samples, DataConfig(dataset="array", **rule)) if how == "data" else samples
        asked = sweep(data, start_from=FOLDERS / "standard", steps=0, **({} if how == "data" else rule), **QUIET)
    assert (asked["input_scale"] != 1).any()


@pytest.mark.parametrize(
    ("rule", "words"),
    [("none", "(relu), which takes samples as they are; steps"), ("centre", "is not how they are normalised here, s")],
)
def test_it_is_said_what_is_started_from(rule, words, samples):
    watching = Watcher()
    sweep(samples, start_from=FOLDERS / "standard", steps=0, normalize=rule, observers=[watching], **QUIET)
    [line] = [
        line for line in watching.lines if line.startswith(f"starting from {FOLDERS / 'standard'}: the parameters")
    ]
    assert words in line


@pytest.mark.parametrize(
    ("width", "settings", "message"),
    [
        (
            D_IN - 1,
            {},
            r"decoder_bias must be \[6\], as it is there: got \[5\] here; use the same d_hidden, and samples",
        ),
        (D_IN, {"d_hidden": 12}, r"decoder_weight must be \[10, 6\], as it is there: got \[12, 6\] here; use the same"),
    ],
    ids=["samples", "units"],
)
def test_other_widths_are_refused(width, settings, message, samples):
    with pytest.raises(UserError, match=f"^cannot start from {FOLDERS / 'topk'}: {message}"):
        sweep(samples[:, :width], start_from=FOLDERS / "topk", steps=0, **settings, **QUIET)


def test_nothing_that_starts_at_random_takes_no_steps(samples):
    message = "steps must be >= 1 where lanes start at random: got 0; the default is 20000"
    for steps in (0, [0, 10]):
        with pytest.raises(UserError, match=message):
            sweep(samples, model="topk", steps=steps, **QUIET)
    with pytest.raises(UserError, match=message):
        sae_jax.fit(sae_jax.lane_settings("topk", steps=0), samples, samples, jax.random.key(0))


def test_runs_of_a_folder_are_merged_and_not_extended_by_lanes_at_random(samples, tmp_path):
    measured = sweep(samples, start_from=FOLDERS / "topk", steps=0, **QUIET)
    tuned = sweep(samples, start_from=FOLDERS / "topk", steps=[0, 8], **QUIET)
    results.save(merge(measured, tuned), tmp_path)
    both = results.load(tmp_path)
    assert both["steps"].values.tolist() == [0, 8] and both.attrs["started_from"] == str(FOLDERS / "topk")
    np.testing.assert_array_equal(both["eval_l0"], tuned["eval_l0"])
    for one in (measured, both):
        with pytest.raises(UserError, match="cannot extend the sweep: its lanes must have started at random"):
            extend(one, samples, seeds=2)


def test_reading_a_folder_leaves_the_number_of_devices_open(tmp_path):
    # Which it is not once JAX has computed something.
    code = (
        "import sys, jax; from sae_jax.sweeps.origin import origin_at; origin_at(sys.argv[1]); "
        "jax.config.update('jax_num_cpu_devices', 3); print(jax.device_count())"
    )
    folder = shutil.copytree(FOLDERS / "topk", tmp_path / "half")
    file = folder / "sae_weights.safetensors"
    flax.save_file({name: jnp.asarray(value, "bfloat16") for name, value in load_file(file).items()}, file)
    running = start(["-c", code, str(folder)], tmp_path, anew=True)
    printed, complaint = running.communicate(timeout=120)
    assert (running.returncode, printed, complaint) == (0, "3\n", "")


def test_a_digest_is_of_both_files(tmp_path):
    folder = shutil.copytree(FOLDERS / "topk", tmp_path / "folder")
    seen = {digest(folder)}
    for name in ("cfg.json", "sae_weights.safetensors"):
        file = folder / name
        file.write_bytes(file.read_bytes() + b" ")
        seen.add(digest(folder))
    assert len(seen) == 3
