"""A shard that is cut short or vanishes while a run is trained: nothing of the run is lost."""

import re

import numpy as np
import pytest

from sae_jax.commands import sweep
from sae_jax.data import activations, feed
from sae_jax.data.batches import host_indices
from sae_jax.storage import results

ROWS, WIDTH, BATCH = 200, 8, 32
WORDS = ["--dataset", "activations:shards", "--model", "topk", "--k", "1", "2", "--d-hidden", "6", "--steps", "40"]
WORDS += ["--batch-size", str(BATCH), "--seeds", "2", "--figures", "False", "--report", "False"]


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    """Two shards in the folder that commands run in, and blocks of three steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feed, "HOST_BLOCK_BYTES", 3 * 4 * BATCH * WIDTH)
    (tmp_path / "shards").mkdir()
    for name in ("0.npy", "1.npy"):
        rows = np.random.default_rng(int(name[0])).normal(size=(ROWS, WIDTH))
        np.save(tmp_path / "shards" / name, rows.astype(np.float16))
    return tmp_path / "shards"


def with_nan(shard):
    """Put NaN in a shard where it lies: written anew, it would be cut short for threads that read it meanwhile."""
    with shard.open("r+b") as file:
        file.seek(128)
        file.write(b"\xff" * 3200)


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (lambda shard: shard.write_bytes(shard.read_bytes()[:300]), "got a file that ends before row"),
        (lambda shard: shard.unlink(), "got No such file or directory"),
        (with_nan, "must hold finite numbers"),
    ],
    ids=["cut short", "vanished", "NaN"],
)
def test_a_run_goes_on_once_the_shard_is_back(lose, reason, shards, monkeypatch, capsys):
    shard, whole = shards / "1.npy", (shards / "1.npy").read_bytes()
    sweep.main([*WORDS, "--name", "whole"])

    def lost_from_step_20_on(seed, step, samples, batch_size):
        if step == 20:
            lose(shard)
        return host_indices(seed, step, samples, batch_size)

    monkeypatch.setattr(activations, "host_indices", lost_from_step_20_on)
    with pytest.raises(SystemExit) as stopped:
        sweep.main([*WORDS, "--name", "broken"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in error
    assert "shards/1.npy" in error and reason in error
    monkeypatch.setattr(activations, "host_indices", host_indices)
    shard.write_bytes(whole)
    sweep.main(["--resume", "broken"])
    # Step 20 is of the block that begins with step 18; another thread may not yet have read a step before it.
    found = re.search(r"another at step (\d+)", capsys.readouterr().out)
    assert found and int(found[1]) in (12, 15, 18)
    expected, resumed = (results.load(f"runs/{name}") for name in ("whole", "broken"))
    for name in ("loss", "decoder_weight", "eval_explained_variance"):
        np.testing.assert_array_equal(resumed[name], expected[name])
