"""The page of units: it shows what is kept of them, for samples of every kind."""

import re

import matplotlib
import numpy as np
import pytest

import sae_jax
from sae_jax.analysis import unit_page
from sae_jax.analysis.figures import usual_figures
from sae_jax.analysis.style import STYLES, caption_of
from tests.analysis.drawing import draw, titles
from tests.analysis.kept_units import DIGITS, SHORT

matplotlib.use("Agg")


def test_the_page_of_images_shows_rows_and_samples(digits, kept):
    figure = draw(kept, "units")
    place = unit_page.best_of_units(kept)
    density = kept["units_density"].isel(place).values
    best = kept["eval_explained_variance"].isel(place)
    assert best == kept["eval_explained_variance"].max()
    living = np.sort(density[density > 0])[::-1]
    assert [title.split(": ")[1] for title in left_titles(figure)] == [unit_page._share(one) for one in living]
    picture = figure.axes[0].images[0].get_array()
    unit = int(left_titles(figure)[0].split()[1].strip(":"))
    row = kept["decoder_weight"].isel(place).values[unit].reshape(8, 8)
    centred = row - row.mean()
    np.testing.assert_allclose(picture[:16:2, :16:2], centred / np.abs(centred).max(), rtol=1e-5)
    sample = sae_jax.load(DIGITS).heldout[int(kept["units_top_sample"].isel(place)[unit, 0])].reshape(8, 8)
    np.testing.assert_allclose(
        np.corrcoef(picture[:8, 19:27].filled(np.nan).ravel(), np.ravel(sample))[0, 1], 1, atol=0.02
    )
    assert caption_of(figure).startswith(f"{len(living)} units, from the densest to the rarest, of the lane d_hidden=")
    assert "units" not in usual_figures(kept)


def left_titles(figure):
    return [panel.get_title(loc="left") for panel in figure.axes]


@pytest.mark.parametrize("style", list(STYLES.values()), ids=list(STYLES))
def test_the_page_of_names_shows_each_once_as_it_can_be_drawn(words, style):
    figure = draw(words, "units", style)
    texts = {text.get_text() for panel in figure.axes for text in panel.texts}
    firing = {name for name in words["units_top_name"].values.ravel() if name}
    known = {"\u2423of": " of", "\u2423\\u6771": " \u6771", "\u2423\u2423": "  "}
    shown = {known.get(text, text) for text in texts}
    assert firing <= shown and firing == {"the", " of", "\\n", "$x^2$", " \u6771", "  "}
    bars = [bar.get_width() for panel in figure.axes for bar in panel.patches]
    assert max(bars) == pytest.approx(0.88) and min(bars) > 0


def test_the_page_of_plain_samples_shows_numbers_and_neighbours(words, monkeypatch):
    plain = words.drop_vars("units_top_name")
    figure = draw(plain, "units")
    scatter, table = figure.axes
    lane = plain.isel(seed=0)
    drawn = np.concatenate([line.get_xydata() for line in scatter.lines[:2]])
    expected = np.stack([lane["units_density"], lane["units_mean_active"]], axis=1)
    expected = expected[lane["units_density"] > 0]
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)], rtol=1e-6)
    texts = [text.get_text() for text in table.texts]
    first = int(np.argmax(lane["units_density"].values))
    assert texts[:4] == ["unit", "density", "mean code", "nearest units (cosine)"] and texts[4] == str(first)
    assert texts[7].startswith(
        f"{int(lane['units_nearest'][first, 0])} ({float(lane['units_nearest_cosine'][first, 0]):.2f})"
    )


def test_the_page_of_a_run_put_together(digits, kept):
    other = sae_jax.sweep(DIGITS, model="topk", k=3, d_hidden=7, seeds=1, **SHORT)
    both = sae_jax.merge(kept.sel(d_hidden=[5]), other)
    assert both["units_top_sample"].dtype.kind == "f"
    figure = draw(both, "units")
    assert "d_hidden=5" in caption_of(figure)
    alone = draw(kept.sel(d_hidden=[5]), "units")
    for one, same in zip(figure.axes, alone.axes, strict=True):
        np.testing.assert_array_equal(one.images[0].get_array(), same.images[0].get_array())
    plain = both.assign(image_height=0 * both["image_height"])
    near = [text.get_text() for text in draw(plain, "units").axes[1].texts if "(0." in text.get_text()]
    assert near and all(re.match(r"[0-4] \(", text) for text in near)


def test_a_lane_none_of_whose_units_fires_says_so(words):
    silent = words.copy(deep=True)
    silent["units_density"][:] = 0
    figure = draw(silent, "units")
    assert figure.texts[0].get_text() == "no unit is active on a held-out sample" and not titles(figure)
