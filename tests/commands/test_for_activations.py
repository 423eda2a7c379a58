"""The README's three commands, from a folder of shards to a SAELens folder and a page of units, as they are written."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import sae_jax
from sae_jax import interop
from sae_jax.commands import activations as write_activations
from sae_jax.commands import encode
from sae_jax.data import activations
from sae_jax.data.shards import open_shards
from sae_jax.storage import results
from tests.commands.pages import typed_commands
from tests.conftest import optimising

README = (Path(__file__).parents[2] / "README.md").read_text()
SECTION = README.partition("\n## For model activations\n")[2].partition("\n## ")[0]
FEATURES, WIDTH, ROWS = 80, 48, 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the commands were typed, over shards of rows named by their strongest feature."""
    folder, rng = tmp_path_factory.mktemp("activations"), np.random.default_rng(0)
    (folder / "shards").mkdir()
    directions = rng.normal(size=(FEATURES, WIDTH)) / np.sqrt(WIDTH)
    names = []
    for number in range(3):
        sizes = (rng.random((ROWS, FEATURES)) < 0.025) * rng.normal(1, 0.2, size=(ROWS, FEATURES))
        names += [f"feature {strongest}" for strongest in sizes.argmax(axis=1)]
        rows = (sizes @ directions).astype(np.float16)
        save_file({"activations": rows}, folder / "shards" / f"{number:05d}.safetensors")
    (folder / "shards" / "names.txt").write_text("\n".join(names) + "\n")
    with optimising(), typed_commands(SECTION, folder):
        yield folder


def most_of_a_name(names):
    """The share of the most frequent of some names."""
    return np.max(np.unique(names, return_counts=True)[1]) / len(names)


def test_there_are_three_commands():
    typed = re.findall(r"^    python -m experiments\.(\w+) ", SECTION, re.MULTILINE)
    assert typed == ["sweep", "units", "export"]


def test_units_are_named_by_what_they_stand_for(folder):
    run = results.load(folder / "runs" / "acts")
    lane = run.isel(seed=0).sel(k=8)
    assert (folder / "runs" / "acts" / "figures" / "units.png").stat().st_size > 10_000
    names = run["units_top_name"].transpose("k", "seed", "unit", ...)
    kept = names.values.reshape(-1, names.shape[-1])
    kept = kept[(kept != "").all(axis=1)]
    assert len(kept) and run.sizes["unit"] == 256
    # Their strongest samples are named alike, as many samples at random are not.
    alike, rng = np.mean([most_of_a_name(row) for row in kept]), np.random.default_rng(1)
    every = (folder / "shards" / "names.txt").read_text().splitlines()
    assert alike > 2.5 * np.mean([most_of_a_name(rng.choice(every, 16)) for _ in kept])
    assert float(lane["eval_explained_variance"]) > 0.6


def test_the_folder_holds_the_lane_that_was_chosen(folder):
    lane = interop.load(folder / "acts-saelens")
    assert lane.params["decoder_weight"].shape == (256, WIDTH)


def test_codes_are_of_all_rows_in_their_order(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(activations, "EXCERPT", 100)
    encode.main(["runs/acts", "--lane", "k=8", "seed=2", "--out", str(tmp_path / "codes.npz")])
    with np.load(tmp_path / "codes.npz") as file:
        codes = file["codes"]
    rows = open_shards(folder / "shards").read(np.arange(3 * ROWS))
    np.testing.assert_allclose(codes, sae_jax.open("runs/acts").lane(k=8, seed=2).encode(rows), rtol=1e-5, atol=1e-6)
    with pytest.raises(SystemExit):
        write_activations.main(["--dataset", "activations:shards", "--out", str(tmp_path / "again")])
    assert not (tmp_path / "again").exists()
