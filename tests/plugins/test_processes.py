"""Processes of one run read the same plug-in, each for itself; and lanes that are split are the same."""

import json
import shutil

import numpy as np
import pytest

import sae_jax
from sae_jax.plugins import load
from sae_jax.storage import results
from tests.plugins.files import EXAMPLE
from tests.processes import environment, start
from tests.sweeps.test_processes import ended, free_port

WORDS = ["--plugin", "my_parts.py", "--dataset", "rings", "--model", "softplus", "--student-t", ".1", "--d-hidden", "4"]
WORDS += ["--steps", "3", "--figures", "False", "--observers", "diary", "--devices", "1", "--name", "run"]


@pytest.mark.parametrize("same", [True, False])
def test_all_processes_read_the_same_plug_in(same, tmp_path):
    port, running = free_port(), []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(EXAMPLE, folder / "my_parts.py")
        if number and not same:
            (folder / "my_parts.py").write_text(EXAMPLE.read_text() + "\n")
        others = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process-id", str(number)]
        words = ["-m", "experiments.sweep", *WORDS, "--seeds", "2", "--distributed", *others]
        running.append(start(words, folder))
    leader, follower = ended(running)
    if same:
        assert (leader[0], leader[2]) == (0, "") and follower == (0, "", "")
        made = results.load(tmp_path / "0" / "runs" / "run")
        assert np.isfinite(made["loss_student_t"]).all() and made.sizes["seed"] == 2
        assert json.loads(made.attrs["plugins"])[0]["parts"]["model"] == ["softplus"]
        # The first process alone calls observers.
        assert (tmp_path / "0" / "diary.txt").is_file() and not (tmp_path / "1" / "diary.txt").exists()
    else:
        said = "error: all processes must have the same plug-ins: process 1 differs from process 0; start all alike\n"
        assert leader == (2, "", said) and follower == (2, "", "")
        assert not list(tmp_path.rglob("config.json"))


COMPUTES = """
import jax.numpy as jnp
from sae_jax import Measure

SCALES = jnp.arange(3.0)
PARTS = {"scaled": Measure(lambda lane: SCALES[1] * jnp.mean(lane.codes), "mean code")}
"""


@pytest.mark.parametrize("together", [False, True])
def test_a_plug_in_may_compute_as_it_is_read(together, tmp_path):
    (tmp_path / "parts.py").write_text(COMPUTES)
    words = ["-m", "experiments.sweep", "--plugin", "parts.py", "--dataset", "digits", "--samples", "60"]
    words += ["--d-hidden", "4", "--batch-size", "20", "--figures", "False", "--devices", "3", "--name", "run"]
    others = ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "1", "--process-id", "0"]
    settings = ["--seeds", "3", "--steps", "2", *(others if together else [])]
    code, said, failed = ended([start([*words, *settings], tmp_path, environment(XLA_FLAGS=""))])[0]
    assert (code, failed) == (0, ""), said
    assert json.loads((tmp_path / "runs" / "run" / "config.json").read_text())["devices"] == "3 cpu"


@pytest.mark.parametrize("split", ["data_parallel", "unit_parallel"])
def test_lanes_that_devices_split_are_the_same(split, samples):
    load(EXAMPLE)
    words = {"d_hidden": 4, "steps": 5, "batch_size": 16, "student_t": [0.1, 0.3], "progress": False}
    alone, parted = (sae_jax.sweep(samples, "softplus", devices=2, **more, **words) for more in ({}, {split: 2}))
    for name in alone.data_vars:
        np.testing.assert_allclose(parted[name], alone[name], rtol=1e-4, atol=1e-6)
