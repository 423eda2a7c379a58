"""Figures: they are drawn for every shape of sweep, and show what is in the Dataset."""

import dataclasses

import matplotlib
import numpy as np
import pytest

from sae_jax import Config, DataConfig, UserError, sweep
from sae_jax.analysis.figures import curves, filters, heatmaps, mean_activation, save_all, tile, tradeoff

matplotlib.use("Agg")
CONFIG = Config(d_hidden=5, batch_size=32, steps=20)
DIGITS = DataConfig(dataset="digits")


@pytest.fixture(scope="module")
def dataset():
    return sweep(CONFIG, DIGITS, seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"beta": [0.0, 1.0]},
        {"rho": [0.05, 0.1], "beta": [0.5, 1.0]},
        {"rho": [0.05, 0.1], "ema_decay": [0.5, 0.9], "d_hidden": [3, 5], "activation": ["sigmoid", "relu"]},
        {"beta": list(np.linspace(0.1, 3, 30))},
        {"learning_rate": [0.001, 1e38]},
    ],
    ids=lambda axes: "x".join(axes) or "none",
)
def test_all_figures_of_any_sweep(tmp_path, axes):
    paths = save_all(sweep(CONFIG, DIGITS, seeds=2, **axes), tmp_path)
    assert len(paths) == (6 if axes else 4)
    for path in paths:
        pixels = matplotlib.image.imread(path)
        assert min(pixels.shape[:2]) > 100 and pixels[..., :3].std() > 0.01


def test_figures_that_cannot_be_written_are_refused_in_one_line(dataset, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"must be writable: got .*: No space left on device; make room and repeat"):
        save_all(dataset, tmp_path / "figures")
    assert not list((tmp_path / "figures").iterdir())


def test_a_large_grid_is_drawn_in_part(tmp_path):
    quick = dataclasses.replace(CONFIG, steps=2, d_hidden=2)
    grid = sweep(quick, DIGITS, beta=list(np.linspace(0.1, 3, 300)), rho=[0.1, 0.2, 0.3], l1=[0.0, 0.1, 0.2])
    for path in save_all(grid, tmp_path):
        assert max(matplotlib.image.imread(path).shape) < 8000
    assert len(curves(grid).axes[0].get_lines()) == 60
    assert "60 of 2700 cells" in curves(grid).get_suptitle()
    assert len(mean_activation(grid).axes[0].get_lines()) == 61
    drawn = tradeoff(grid).axes[0].containers
    assert len(drawn) == 60 and len(drawn[0].lines[0].get_xdata()) == 3


def test_samples_that_are_no_images_are_drawn_as_rows(tmp_path, samples):
    paths = save_all(sweep(CONFIG, samples), tmp_path)
    # A single cell has nothing to be compared with.
    assert {path.stem for path in paths} == {"curves", "filters", "filters_best", "mean_activation"}
    panel = filters(sweep(CONFIG, samples)).axes[0]
    assert panel.get_xlabel() == "input" and panel.get_ylabel() == "unit"


def test_heatmaps_show_the_means_over_seeds(dataset):
    panels = heatmaps(dataset).axes[:4]
    shown = panels[1].images[0].get_array()
    np.testing.assert_allclose(shown, dataset["eval_explained_variance"].mean("seed"), rtol=1e-6)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["0.05", "0.1"]
    assert panels[0].get_xlabel() == "beta"


def test_the_tradeoff_has_a_line_for_each_beta_through_every_rho(dataset):
    lines = tradeoff(dataset).axes[0].containers
    assert len(lines) == 3
    data = lines[1].lines[0]
    cell = dataset.sel(beta=1.0)
    np.testing.assert_allclose(data.get_ydata(), cell["eval_reconstruction"].mean("seed"), rtol=1e-6)
    np.testing.assert_allclose(data.get_xdata(), cell["eval_mean_activation"].mean(("seed", "unit")), rtol=1e-5)


def test_filters_show_one_picture_a_cell(dataset):
    panels = [panel for panel in filters(dataset).axes if panel.images]
    assert len(panels) == 6
    assert panels[4].get_title().startswith("rho=0.1  beta=1\n")
    expected = tile(dataset["decoder_weight"].sel(rho=0.1, beta=1.0, seed=0).values.astype(float), (8, 8))
    np.testing.assert_allclose(panels[4].images[0].get_array(), expected)


def test_tiles_are_scaled_each_for_itself_and_apart():
    picture = tile(np.array([[0.0, 2, 4, 6], [1, 1, 1, 2], [5, 5, 5, 5]]), (2, 2))
    assert picture.shape == (7, 7)
    np.testing.assert_allclose(picture[1:3, 1:3], [[-1, -1 / 3], [1 / 3, 1]])
    assert np.nanmax(picture[1:3, 4:6]) == 1
    np.testing.assert_array_equal(picture[4:6, 1:3], 0)
    assert np.all(np.isnan(picture[3])) and np.all(np.isnan(picture[:, 3]))
