"""Figures: they are drawn for every shape of sweep, and show what is in the Dataset."""

import functools
import json

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sae_jax import DataConfig, UserError, sweep
from sae_jax.analysis import figures, options
from sae_jax.analysis.figures import FIGURES, drawn, save_all, usual_figures
from sae_jax.analysis.style import SCREEN, STYLES, caption_of
from sae_jax.storage.description import names_of_kind
from tests.analysis.drawing import SEVERAL, SINGLE, draw, lay_out, panels, titles

matplotlib.use("Agg")
SHORT = {"d_hidden": 5, "batch_size": 32, "steps": 20}
DIGITS = DataConfig(dataset="digits")


@pytest.fixture(scope="module")
def five():
    """Five axes, of which one picks the program."""
    axes = {"rho": [0.05, 0.1], "beta": [0.5, 1.0], "activation": ["sigmoid", "relu"], "ema_decay": [0.5, 0.9]}
    return sweep(DIGITS, seeds=2, **SHORT, **axes, l1=[0.0, 0.1, 0.2])


@pytest.fixture(scope="module")
def figure_of_five(five):
    """A function of a figure's name: that of five axes, laid out, drawn once for all who look at it."""
    return functools.cache(functools.partial(lay_out, five))


def test_the_names_and_styles_that_help_lists_are_those_that_there_are():
    assert list(options.FIGURES) == list(FIGURES) and list(options.STYLES) == list(STYLES)


@pytest.mark.parametrize(
    "axes",
    [
        {},
        {"beta": [0.0, 1.0]},
        {"rho": [0.05, 0.1], "ema_decay": [0.5, 0.9], "d_hidden": [3, 5], "activation": ["sigmoid", "relu"]},
        {"beta": list(np.linspace(0.1, 3, 30))},
        {"learning_rate": [0.001, 1e38]},
    ],
    ids=lambda axes: "x".join(axes) or "none",
)
def test_all_figures_of_any_sweep(tmp_path, axes):
    paths = save_all(sweep(DIGITS, seeds=2, **SHORT | axes), tmp_path)
    assert {path.stem for path in paths} == (SEVERAL if axes else SINGLE)
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


def as_large_grid(dataset):
    """A run with 300 beta, two rho and two l1, whose cells are those of a small run again and again."""
    betas = ("beta", np.linspace(0.1, 3, 300), dataset["beta"].attrs)
    grid = dataset.isel(beta=np.arange(300) % dataset.sizes["beta"], seed=[0]).assign_coords(beta=betas)
    lanes = [name for name in grid.data_vars if "seed" in grid[name].dims]
    grid = grid.assign({name: grid[name].expand_dims(l1=[0.0, 0.1]) for name in lanes})
    axes = ("beta", "rho", "l1")
    return grid.transpose(*axes, ...).assign_attrs(axes=json.dumps(axes))


def test_a_large_grid_is_drawn_in_part_and_says_so(dataset, tmp_path, monkeypatch):
    shown, save = {}, figures.save_figure
    # Drawn once for its files and for what follows: that takes longest.
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: save(shown.setdefault(path.stem, figure), path))
    for path in save_all(as_large_grid(dataset), tmp_path):
        assert max(matplotlib.image.imread(path).shape) < 8000
    assert len(panels(shown["curves"])[0].get_lines()) == 9 * 2
    assert caption_of(shown["curves"]).endswith("shown in part: beta: 9 of 300 values")
    assert "25 of 1200 cells" in caption_of(shown["filters"])
    assert panels(shown["heatmaps"])[0].images[0].get_array().shape == (300, 2)


def test_heatmaps_show_the_means_over_seeds(dataset):
    figure = draw(dataset, "heatmaps")
    shown = panels(figure)[1].images[0].get_array()
    np.testing.assert_allclose(shown, dataset["eval_explained_variance"].mean("seed"), rtol=1e-6)
    assert [label.get_text() for label in panels(figure)[0].get_yticklabels()] == ["0.05", "0.1"]
    assert figure.get_supylabel() == "rho: target mean activation of a hidden unit"
    assert figure.get_supxlabel().startswith("beta: weight of the KL penalty")


def test_bands_and_bars_are_sample_standard_deviations_and_say_so(dataset):
    figure, cell = draw(dataset, "curves"), dataset["loss"].sel(rho=0.1, beta=2.0)
    assert "mean and sample standard deviation over 2 seeds" in caption_of(figure)
    heights = panels(figure)[0].collections[5].get_paths()[0].vertices[:, 1]
    deviation = abs(cell[0] - cell[1]).values / np.sqrt(2)
    half = np.max([heights[1 : len(deviation) + 1], heights[len(deviation) + 2 : -1][::-1]], axis=0) - cell.mean("seed")
    np.testing.assert_allclose(half, deviation, rtol=1e-3)

    figure = draw(dataset, "frontier")
    bars = panels(figure)[0].containers[1].lines[2]
    cell = dataset.sel(beta=1.0)
    for bar, name, axis in ((bars[0], "eval_l0", 0), (bars[1], "eval_explained_variance", 1)):
        lengths = [np.ptp(line[:, axis]) for line in bar.get_segments()]
        np.testing.assert_allclose(lengths, 2 * cell[name].std("seed", ddof=1), rtol=1e-4, atol=1e-6)
    assert "sample standard deviation,\n2 seeds" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_frontier_has_a_line_for_each_beta_through_every_rho(dataset):
    figure = draw(dataset, "frontier")
    explained, dead = panels(figure)
    assert len(explained.containers) == 3
    line = [line for line in explained.get_lines() if line.get_linestyle() == "-" and len(line.get_xdata()) == 2][1]
    cell = dataset.sel(beta=1.0)
    np.testing.assert_allclose(line.get_xdata(), cell["eval_l0"].mean("seed"), rtol=1e-5)
    np.testing.assert_allclose(line.get_ydata(), cell["eval_explained_variance"].mean("seed"), rtol=1e-5)
    assert dead.get_ylabel().startswith("share of units") and "active units" in figure.get_supxlabel()
    sizes = [points.get_sizes() for points in explained.collections if len(points.get_offsets()) == 2]
    assert all(size[0] < size[1] for size in sizes) and "larger points, larger rho" in caption_of(figure)


def test_the_frontier_shows_what_is_asked_for_and_activations_where_codes_are_dense(dataset):
    figure = draw(dataset, "frontier", measures=["eval_mean_activation", "eval_reconstruction"])
    assert len(panels(figure)) == 1 and figure.get_supxlabel().startswith("mean activity")
    assert panels(figure)[0].get_ylabel().replace("\n", " ").startswith("reconstruction loss")
    dense = dataset.copy(deep=True)
    dense["eval_l0"][:] = 5.0
    figure = draw(dense, "frontier")
    assert len(panels(figure)) == 1 and figure.get_supxlabel().startswith("mean activity")
    assert not [title for title in titles(draw(dense, "heatmaps")) if "active" in title]


def test_axes_beyond_two_are_panels_and_what_is_left_out_is_said(five, figure_of_five):
    figure = figure_of_five("curves")
    assert len(panels(figure)) == 5 * 4  # The loss and its four terms; activation x ema_decay.
    assert panels(figure)[3].get_title().replace("\n", " ") == "ema_decay=0.9, activation=relu"
    assert caption_of(figure).endswith("shown in part: l1=0 alone of 3 values")
    lines = panels(figure)[1].get_lines()
    expected = five["loss"].sel(rho=0.1, beta=0.5, activation="relu", ema_decay=0.5, l1=0.0).mean("seed")
    np.testing.assert_allclose(lines[2].get_ydata(), expected, rtol=1e-5)
    assert len(panels(figure_of_five("heatmaps"))) == 5 * 4
    # Along rho, colour for beta, line style for activation, panels for the other two.
    assert len(panels(figure_of_five("frontier"))) == 2 * 2 * 3
    assert len(panels(figure_of_five("mean_activation"))) == 2 * 2


def test_every_axis_has_a_look_of_its_own_and_a_place_in_the_legend(figure_of_five):
    figure = figure_of_five("curves")
    lines = panels(figure)[0].get_lines()
    colours, styles = (
        {function(line) for line in lines} for function in (lambda x: x.get_color(), lambda x: x.get_linestyle())
    )
    assert len(lines) == 4 and len(colours) == len(styles) == 2
    # In black and white, too.
    assert abs(np.diff([to_rgb(colour) @ np.array([0.3, 0.59, 0.11]) for colour in colours])) > 0.3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:6] == ["rho", "0.05", "0.1", "beta", "0.5", "1"]


def test_panels_that_are_compared_have_one_scale(figure_of_five):
    for name in ("curves", "frontier", "mean_activation"):
        for row in np.array_split(panels(figure_of_five(name))[:4], 1):
            assert len({panel.get_ylim() for panel in row}) == 1


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("which", ["one", "two", "five"])
def test_no_text_lies_on_another_and_legends_not_on_data(which, style, dataset, five, figure_of_five):
    run = {"one": dataset.isel(beta=0), "two": dataset, "five": five}[which]
    for name in ("curves", "heatmaps", "frontier", "mean_activation"):
        shared = which == "five" and style is SCREEN
        figure = figure_of_five(name) if shared else lay_out(run, name, style)
        texts = [panel.title for panel in panels(figure)] + [panel.yaxis.label for panel in panels(figure)]
        texts += [text for text in figure.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        for i, box in enumerate(boxes):
            overlaps = [other for other in boxes[:i] if box.padded(-2).overlaps(other.padded(-2))]
            assert not overlaps, name
            assert box.x0 > -2 and box.x1 < figure.bbox.x1 + 2, name
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert not [panel for panel in panels(figure) if box.overlaps(panel.get_window_extent())], name
            assert not [other for other in boxes if box.padded(-1).overlaps(other)], name


def test_every_declared_curve_has_a_panel_and_one_that_is_nothing_has_none():
    made = sweep(DIGITS, seeds=2, beta=0.0, l1=[0.0, 0.1], **SHORT)
    shown = ["loss", "loss_reconstruction", "loss_weight_decay", "loss_l1"]
    figure = draw(made, "curves")
    assert titles(figure) == [made[name].attrs["long_name"].partition(", mean since")[0] for name in shown]
    units = [panel.get_ylabel().replace("\n", " ") for panel in panels(figure)]
    assert units == [made[name].attrs["units"] for name in shown]
    assert figure.get_supxlabel() == "training steps taken [step]"
    for nothing in (0.0, np.nan):
        made["loss_weight_decay"][:] = nothing
        assert len(titles(draw(made, "curves"))) == 3
    # One that this version does not know, and before the total loss.
    new = made["loss_l1"].rename("loss_new").assign_attrs(long_name="a new term", units="bit")
    figure = draw(made.drop_vars("loss").assign(loss_new=new, loss=made["loss"]), "curves")
    assert titles(figure)[0] == "training loss" and "a new term" in titles(figure)
    line = figure.axes[0].get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), made["loss"].sel(l1=0.1).mean("seed"), rtol=1e-5)
    assert titles(draw(made, "curves", measures=["loss_l1"])) == ["l1 * mean ||h||_1"]


def test_where_the_penalty_is_off_nothing_is_compared_with_its_target():
    made = sweep(DIGITS, seeds=2, beta=0.0, rho=[0.05, 0.1], **SHORT)
    assert "mean activation / rho" not in titles(draw(made, "heatmaps"))
    texts = [text.get_text() for text in draw(made, "mean_activation").legends[0].get_texts()]
    assert not [text for text in texts if "target" in text]


def test_every_declared_measure_of_a_lane_has_a_heatmap(dataset):
    new = dataset["eval_l0"].assign_attrs(long_name="a new measure", units="1")
    shown = titles(draw(dataset.assign(eval_new=new), "heatmaps"))
    assert "a new measure" in shown and "mean activation / rho" in shown and len(shown) == 6
    plain = dataset.rename(rho="theta").assign_attrs(config="{}")
    assert "mean activation / rho" not in titles(draw(plain, "heatmaps")) and len(titles(draw(plain, "heatmaps"))) == 5
    assert titles(draw(dataset, "heatmaps", measures=["eval_l0"])) == [
        "mean number of active units per held-out sample [unit]"
    ]


@pytest.mark.parametrize("single", [False, True], ids=["grid", "one cell"])
def test_what_a_run_does_not_hold_is_not_drawn_and_nothing_raises(dataset, single):
    dataset = dataset.isel(rho=0, beta=0) if single else dataset.isel(beta=slice(2))
    everything = set(usual_figures(dataset))
    assert everything == (SINGLE if single else SEVERAL)

    def shown(run):
        return {name for name, _ in drawn(run, usual_figures(run))}

    for name in ("eval_l0", "eval_explained_variance", "eval_dead_fraction", "diverged_at", "image_height", "loss"):
        assert shown(dataset.drop_vars(name))
    rest = dataset.drop_vars([*names_of_kind(dataset, "measure"), *names_of_kind(dataset, "curve")])
    assert shown(rest) == {"filters", "filters_best"}
    assert not shown(rest.drop_vars(names_of_kind(rest, "parameter")))
    without_rho = dataset.drop_vars("rho") if single else dataset.rename(rho="theta")
    assert shown(without_rho.assign_attrs(config="{}", axes=json.dumps(["theta", "beta"]))) == everything


def test_lanes_that_diverged_or_are_absent_are_left_out_of_means_and_counted(dataset):
    whole = dataset.copy(deep=True)
    whole["diverged_at"] = whole["diverged_at"].astype(float)
    whole["diverged_at"][0, 0, 1] = 3
    for name in [*names_of_kind(whole, "measure"), *names_of_kind(whole, "curve"), "diverged_at", "decoder_weight"]:
        whole[name][1, 2] = np.nan
    made = {name: lay_out(whole, name) for name in SEVERAL}
    for name in ("curves", "frontier", "heatmaps"):
        assert "without 1 lanes that diverged and 2 lanes that are absent" in caption_of(made[name])
    shown = panels(made["heatmaps"])[1].images[0].get_array()
    assert shown[0, 0] == pytest.approx(float(whole["eval_explained_variance"][0, 0, 0])) and shown.mask[1, 2]
    assert len(titles(made["filters"])) == len(titles(draw(dataset, "filters"))) - 1


@pytest.mark.parametrize("selection", [{"rho": 0}, {"beta": 1}, {"rho": 0, "beta": 1}, {"seed": 0}])
def test_axes_that_were_selected_down_are_drawn_and_named(dataset, selection):
    part = dataset.isel(selection)
    for name in usual_figures(part if "seed" in part.dims else part.expand_dims("seed")):
        figure = lay_out(part, name)
        for axis in set(selection) - {"seed"}:
            assert f"{axis}={part[axis].item():g}" in caption_of(figure)
