"""Figures: they are drawn for every shape of sweep, and show what is in the Dataset."""

import matplotlib
import numpy as np
import pytest

from sae_jax import DataConfig, UserError, sweep
from sae_jax.analysis.figures import curves, heatmaps, mean_activation, save_all, tradeoff
from sae_jax.analysis.filters import filters, filters_best, tile
from sae_jax.storage.description import names_of_kind

matplotlib.use("Agg")
SHORT = {"d_hidden": 5, "batch_size": 32, "steps": 20}
DIGITS = DataConfig(dataset="digits")


@pytest.fixture(scope="module")
def dataset():
    return sweep(DIGITS, seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0, 2.0], **SHORT)


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
    paths = save_all(sweep(DIGITS, seeds=2, **SHORT | axes), tmp_path)
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
    settings = {"beta": list(np.linspace(0.1, 3, 300)), "rho": [0.1, 0.2, 0.3], "l1": [0.0, 0.1, 0.2]}
    grid = sweep(DIGITS, d_hidden=2, batch_size=32, steps=2, **settings)
    for path in save_all(grid, tmp_path):
        assert max(matplotlib.image.imread(path).shape) < 8000
    assert len(curves(grid).axes[0].get_lines()) == 60
    assert "60 of 2700 cells" in curves(grid).get_suptitle()
    assert len(mean_activation(grid).axes[0].get_lines()) == 61
    drawn = tradeoff(grid).axes[0].containers
    assert len(drawn) == 60 and len(drawn[0].lines[0].get_xdata()) == 3


def test_samples_that_are_no_images_are_drawn_as_rows(tmp_path, samples):
    paths = save_all(sweep(samples, **SHORT), tmp_path)
    # A single cell has nothing to be compared with.
    assert {path.stem for path in paths} == {"curves", "filters", "filters_best", "mean_activation"}
    panel = filters(sweep(samples, **SHORT)).axes[0]
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


def titles(figure):
    return [panel.get_title().replace("\n", " ") for panel in figure.axes if panel.get_title()]


def test_every_declared_curve_has_a_panel_and_one_that_is_nothing_has_none():
    made = sweep(DIGITS, seeds=2, beta=0.0, l1=[0.0, 0.1], **SHORT)
    shown = ["loss", "loss_reconstruction", "loss_weight_decay", "loss_l1"]
    assert titles(curves(made)) == [made[name].attrs["long_name"] for name in shown]
    assert [panel.get_ylabel() for panel in curves(made).axes[:4]] == [made[name].attrs["units"] for name in shown]
    for nothing in (0.0, np.nan):
        made["loss_weight_decay"][:] = nothing
        assert made["loss_weight_decay"].attrs["long_name"] not in titles(curves(made))
    # One that this version does not know, and before the total loss.
    new = made["loss_l1"].rename("loss_new").assign_attrs(long_name="a new term", units="bit")
    drawn = titles(curves(made.drop_vars("loss").assign(loss_new=new, loss=made["loss"])))
    assert drawn[0] == made["loss"].attrs["long_name"] and "a new term" in drawn
    line = curves(made).axes[0].get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), made["loss"].sel(l1=0.1).mean("seed"), rtol=1e-5)


def test_every_declared_measure_of_a_lane_has_a_heatmap(dataset):
    new = dataset["eval_l0"].assign_attrs(long_name="a new measure")
    drawn = titles(heatmaps(dataset.assign(eval_new=new)))
    assert "a new measure" in drawn and "mean activation / rho" in drawn and len(drawn) == 6
    plain = dataset.rename(rho="theta").assign_attrs(config="{}")
    assert "mean activation / rho" not in titles(heatmaps(plain)) and len(titles(heatmaps(plain))) == 5


def test_dead_units_are_faint_and_the_others_are_not(dataset):
    dataset = dataset.copy(deep=True)
    dataset["eval_firing_rate"][:] = [0, 1, 0, 0.5, 1e-3]
    for figure, dead in ((filters_best(dataset), True), (filters(dataset.drop_vars("eval_firing_rate")), False)):
        picture = np.asarray(figure.axes[0].images[0].get_array())
        corners = [(1, 1), (1, 10), (1, 19), (10, 1), (10, 10)]
        heights = [np.nanmax(np.abs(picture[top : top + 8, left : left + 8])) for top, left in corners]
        assert heights == pytest.approx([0.25, 1, 0.25, 1, 1] if dead else [1] * 5)
        words = "".join(titles(figure)) + (figure.get_suptitle() or "")
        assert ("faint: dead units" in words) is dead


@pytest.mark.parametrize("single", [False, True], ids=["grid", "one cell"])
def test_what_a_run_does_not_hold_is_not_drawn_and_nothing_raises(dataset, tmp_path, single, monkeypatch):
    monkeypatch.setattr("sae_jax.analysis.figures.save_figure", lambda figure, path: None)  # Which takes longest.
    dataset = dataset.isel(rho=0, beta=0) if single else dataset
    everything = {path.stem for path in save_all(dataset, tmp_path / "all")}
    assert len(everything) == (4 if single else 6)
    for name in dataset.data_vars:
        assert save_all(dataset.drop_vars(name), tmp_path / str(name))
    rest = dataset.drop_vars([*names_of_kind(dataset, "measure"), *names_of_kind(dataset, "curve")])
    assert {path.stem for path in save_all(rest, tmp_path / "rest")} == {"filters", "filters_best"}
    assert not save_all(rest.drop_vars(names_of_kind(rest, "parameter")), tmp_path / "nothing")
    without_rho = dataset.drop_vars("rho") if single else dataset.rename(rho="theta")
    assert {path.stem for path in save_all(without_rho.assign_attrs(config="{}"), tmp_path / "theta")} == everything
