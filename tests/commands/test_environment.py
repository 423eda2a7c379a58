"""Compiled programs are kept between processes."""

import os
import subprocess
import sys
from pathlib import Path

import jax

from sae_jax.commands.environment import cache_folder, set_up
from sae_jax.storage import results

WORDS = ["--dataset", "digits", "--steps", "30", "--d-hidden", "6", "--rho", "0.1", "--seeds", "1"]


def test_a_second_run_compiles_nothing_and_finds_the_same_to_the_bit(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    kept = []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "experiments.sweep", *WORDS, "--name", name]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        kept.append({path.name for path in (tmp_path / "cache").rglob("*-cache")})
    assert kept[0] == kept[1] and len(kept[0]) >= 3
    first, second = (results.load(tmp_path / "runs" / name) for name in ("first", "second"))
    assert len(first.data_vars) > 10
    assert all(first[name].values.tobytes() == second[name].values.tobytes() for name in first.variables)


def test_a_place_that_jax_was_told_of_is_kept(monkeypatch):
    told = jax.config.jax_compilation_cache_dir
    set_up()
    assert told is not None and jax.config.jax_compilation_cache_dir == told
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder().parent == Path("/somewhere/sae_jax")
