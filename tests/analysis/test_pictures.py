"""Pictures of decoder rows, what stands for them, and how figures look."""

import re

import matplotlib
import numpy as np
import pytest
import xarray as xr

from sae_jax import sweep
from sae_jax.analysis.cosines import nearest_cosines
from sae_jax.analysis.figures import FIGURES, save_all, usual_figures
from sae_jax.analysis.filters import tile
from sae_jax.analysis.style import PAPER, SCREEN, caption_of, drawing
from sae_jax.storage.description import names_of_kind
from sae_jax.storage.results import save_figure
from tests.analysis.drawing import SEVERAL, draw, lay_out, panels

matplotlib.use("Agg")
SHORT = {"d_hidden": 5, "batch_size": 32, "steps": 20}


def test_samples_that_are_no_images_are_told_by_how_alike_their_rows_are(tmp_path, samples):
    run = sweep(samples, rho=[0.05, 0.1], **SHORT)
    assert {path.stem for path in save_all(run, tmp_path)} == SEVERAL - {"filters", "filters_best"} | {"cosines"}
    figure = draw(run, "cosines")
    assert len(panels(figure)) == 2 and "nearest" in figure.get_supxlabel()
    heights = [bar.get_height() for bar in panels(figure)[1].patches]
    expected = np.histogram(nearest_cosines(run["decoder_weight"].sel(rho=0.1, seed=0).values), np.linspace(-1, 1, 41))
    np.testing.assert_allclose(heights, expected[0] / 5)


def test_the_nearest_row_is_never_the_row_itself_and_rows_of_zeros_have_none():
    rows = np.array([[1, 0, np.nan], [2, 0.0, np.nan], [0, 1, np.nan], [-1, -1, np.nan], [0, 0, np.nan]])
    np.testing.assert_allclose(nearest_cosines(rows), [1, 1, 0, -np.sqrt(0.5)], atol=1e-6)
    assert len(nearest_cosines(np.full((3, 2), np.nan))) == len(nearest_cosines(np.ones((1, 2)))) == 0


@pytest.mark.parametrize("style", [SCREEN, PAPER], ids=["screen", "paper"])
def test_what_a_user_named_is_no_formula(style, dataset):
    paths = ["array:/$_$a", r"array:/\$b", "c"]
    run, shown = dataset.rename(beta="path").assign_coords(path=paths), set()
    for name in usual_figures(run):
        texts = [text for text in lay_out(run, name, style).findobj(matplotlib.text.Text) if text.get_text()]
        assert not any(text.get_parse_math() for text in texts), name
        shown |= {path for path in paths for text in texts if path in text.get_text()}
    assert shown == set(paths)


def test_filters_show_one_picture_a_cell(dataset):
    shown = [panel for panel in draw(dataset, "filters").axes if panel.images]
    assert len(shown) == 6
    assert shown[4].get_title().replace("\n", "  ").startswith("rho=0.1  beta=1  explained variance")
    expected = tile(dataset["decoder_weight"].sel(rho=0.1, beta=1.0, seed=0).values.astype(float), (8, 8))
    np.testing.assert_allclose(shown[4].images[0].get_array(), expected)


def as_images(dataset, side, units):
    """A run with random decoder rows that are images of another size, as many as there are to be."""
    sizes = {**dataset["eval_l0"].sizes, "unit": units, "input": side**2}
    rows = np.random.default_rng(0).normal(size=tuple(sizes.values()))
    rows = xr.DataArray(rows, dims=tuple(sizes), attrs=dataset["decoder_weight"].attrs)
    sides = {name: dataset[name] * 0 + side for name in ("image_height", "image_width")}
    return dataset[["eval_explained_variance", "eval_l0"]].assign(decoder_weight=rows, **sides)


def test_every_weight_is_a_whole_number_of_pixels(tmp_path, dataset):
    run = as_images(dataset, 28, 196)
    for of, name in ((run, "filters"), (run, "filters_best"), (dataset, "filters")):
        with drawing(SCREEN):
            figure = FIGURES[name].draw(of, SCREEN, ())
            save_figure(figure, tmp_path / "filters.png")
        pixels = matplotlib.image.imread(tmp_path / "filters.png")[..., 0]
        for panel in [panel for panel in figure.axes if panel.images]:
            picture = np.asarray(panel.images[0].get_array())
            box = panel.get_window_extent()
            across = round(box.width) / picture.shape[1]
            assert across >= 1 and across == round(box.height) / picture.shape[0] == int(across)
            top, left = round(figure.bbox.height - box.y1), round(box.x0)
            shown = pixels[top : top + round(box.height), left : left + round(box.width)]
            weights = shown[:: int(across), :: int(across)]
            np.testing.assert_array_equal(np.kron(weights, np.ones((int(across), int(across)))), shown)
            expected = np.where(np.isnan(picture), 1, (picture + 1) / 2)
            np.testing.assert_allclose(weights, expected, atol=0.01)
        assert max(pixels.shape) < 2500


def test_units_for_which_there_is_no_room_are_left_out_and_counted(dataset):
    figure = draw(as_images(dataset, 28, 1000), "filters")
    assert re.search(r", (\d+) of 1000 units", caption_of(figure))
    assert figure.bbox.width <= 1900


def test_tiles_are_scaled_each_for_itself_and_apart():
    picture = tile(np.array([[0.0, 2, 4, 6], [1, 1, 1, 2], [5, 5, 5, 5]]), (2, 2))
    assert picture.shape == (7, 7)
    np.testing.assert_allclose(picture[1:3, 1:3], [[-1, -1 / 3], [1 / 3, 1]])
    assert np.nanmax(picture[1:3, 4:6]) == 1
    np.testing.assert_array_equal(picture[4:6, 1:3], 0)
    assert np.all(np.isnan(picture[3])) and np.all(np.isnan(picture[:, 3]))


def test_dead_units_are_faint_and_the_others_are_not(dataset):
    dataset = dataset.copy(deep=True)
    dataset["eval_firing_rate"][:] = [0, 1, 0, 0.5, 1e-3]
    for figure, dead in (
        (draw(dataset, "filters_best"), True),
        (draw(dataset.drop_vars("eval_firing_rate"), "filters"), False),
    ):
        picture = np.asarray(figure.axes[0].images[0].get_array())
        corners = [(1, 1), (1, 10), (1, 19), (10, 1), (10, 10)]
        heights = [np.nanmax(np.abs(picture[top : top + 8, left : left + 8])) for top, left in corners]
        assert heights == pytest.approx([0.25, 1, 0.25, 1, 1] if dead else [1] * 5)
        assert ("faint: dead units" in caption_of(figure)) is dead


def test_a_paper_has_its_columns_small_fonts_and_no_captions(dataset):
    for name in usual_figures(dataset):
        figure = lay_out(dataset, name, PAPER)
        assert not figure.get_suptitle() and caption_of(figure)
        assert figure.get_figwidth() in (pytest.approx(3.35, abs=0.1), pytest.approx(6.9, abs=0.15))
        sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert all(5 <= size <= 7 for size in sizes)


def test_figures_do_not_follow_the_users_own_settings(dataset, tmp_path):
    dataset = dataset[names_of_kind(dataset, "curve")]  # The other figures take most of the time.
    [path] = save_all(dataset, tmp_path / "a")
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linewidth": 9, "savefig.dpi": 30}):
        [other] = save_all(dataset, tmp_path / "b")
        assert matplotlib.rcParams["axes.facecolor"] == "black"
    assert path.stem == "curves" and path.read_bytes() == other.read_bytes()
