"""What a newcomer's first commands show: every lane learns, and its filters are edges."""

import numpy as np
import pytest

from sae_jax import DataConfig, UserError, load
from sae_jax.analysis.gabor import gabor_fit
from sae_jax.commands.sweep import DEFAULT_AXES
from sae_jax.storage import results
from tests.commands.test_commands import run

# The corners of the default grid, one seed of each.
CORNERS = [word for name, values in DEFAULT_AXES.items() for word in (f"--{name}", str(values[0]), str(values[-1]))]


MNIST = ["--dataset", "tfds:mnist", "--steps", "2000"]


@pytest.mark.parametrize(
    "words", [[], ["--dataset", "digits", "--steps", "5000"], MNIST], ids=["patches", "digits", "mnist"]
)
def test_every_corner_of_the_default_sweep_learns(words, tmp_path):
    if words == MNIST:
        try:
            load(DataConfig(dataset="tfds:mnist", samples=1))
        except UserError as error:
            pytest.skip(f"{error}; another folder is named in TFDS_DATA_DIR")
    done = run("sweep", *words, *CORNERS, "--seeds", "1", "--name", "first", cwd=tmp_path, optimised=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    dataset = results.load(tmp_path / "runs" / "first")
    assert float(dataset["eval_dead_fraction"].max()) < 0.1
    assert float(dataset["eval_explained_variance"].min()) > 0.3
    assert_falls(dataset["loss"].values)
    if not words:
        rows = dataset["decoder_weight"].sel(rho=DEFAULT_AXES["rho"][0], beta=DEFAULT_AXES["beta"][-1]).values[0]
        assert np.median(gabor_fit(rows[:15], (8, 8))) > 0.8


def assert_falls(curves):
    """After the warm-up of beta, means over ten logged points stay by the least of those before; and all ends lower."""
    after = curves[..., curves.shape[-1] // 5 :]
    means = after.reshape(*after.shape[:-1], -1, 10).mean(axis=-1)
    assert np.all(means < 1.05 * np.minimum.accumulate(means, axis=-1))
    assert np.all(curves[..., -1] < 0.5 * curves[..., 0])
