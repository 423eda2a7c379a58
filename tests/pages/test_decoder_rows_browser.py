"""Decoder rows on a page in a browser: heat map, pictures and the chart of a unit, looked at, opened and downloaded."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from sae_jax.pages.page import Shown, page
from sae_jax.settings import printable
from tests.pages.browsing import downloaded, fragment, until
from tests.pages.chromium import needs_browser

pytestmark = needs_browser
CARD = "#view-grid figure.card:has(h3:text('Decoder rows'))"
UNIT_CARD = "#view-units figure.card:has(h3:text('Decoder row of unit'))"
DRAWN = "words => document.querySelector(words)?.querySelector('.plot').view"
HEAT, CHART = "#view-grid .whole", "#view-units .unit > figure.card"
# Where the middle of a field of a chart lies in the window.
PLACE = """([words, x, y]) => { const { view } = document.querySelector(words).querySelector('.plot'), { frame } = view;
    view.el.scrollIntoView({ block: 'center' });
    const at = view.el.getBoundingClientRect();
    return [at.left + frame.x_scale.compute(x), at.top + frame.y_scale.compute(y)]; }"""


def rows_of(words, cell=0, seed=0):
    return words.dataset["decoder_weight"].values.reshape(2, 2, 8, 9)[cell, seed]


def within(rows):
    """How far a weight may be from what the page says of it, in three digits."""
    return 0.006 * float(np.abs(rows).max())


def table(tab, card):
    content, name = downloaded(tab, tab.locator(f"{card} button", has_text="CSV"))
    [head, *rows] = csv.reader(io.StringIO(content.decode()))
    assert name.endswith(".csv")
    return head, np.array(rows)


def picture(tab, card):
    content, name = downloaded(tab, tab.locator(f"{card} button", has_text="PNG").first)
    assert name.endswith(".png")
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), int)


def wide_page(words, units, width, tmp_path):
    """Rows of which the last weight of every unit is its number and one, the others far below it."""
    lane = words.dataset.isel(k=[0], seed=[0])
    wide = lane.isel(unit=np.resize(np.arange(8), units), input=np.resize(np.arange(9), width))
    wide = wide.assign_coords(unit=np.arange(units), input=np.arange(width), d_hidden=units)
    values = np.full(wide["decoder_weight"].shape, 0.001, np.float32)
    values[..., -1] = np.arange(units) + 1
    (tmp_path / "wide.html").write_text(
        page([Shown("wide", wide.assign(decoder_weight=(wide["decoder_weight"].dims, values)))], "1")
    )
    return tmp_path / "wide.html"


def test_a_heat_map_shows_every_weight_of_a_lane_in_its_place_and_sign(opened, pages, words):
    rows = rows_of(words)
    tab = opened(pages["words"], "#cell=0&seed=0")
    until(tab, DRAWN, HEAT)
    alt = tab.get_attribute(f"{HEAT} .plot", "aria-label")
    assert "Heat map of the decoder rows of 8 units, each over 9 inputs." in alt
    assert "Colours reach from -" in tab.inner_text(f"{HEAT} figcaption")
    for unit, place in [
        (0, 8),
        (7, 0),
        np.unravel_index(rows.argmax(), rows.shape),
        np.unravel_index(rows.argmin(), rows.shape),
    ]:
        x, y = tab.evaluate(PLACE, [HEAT, int(place), int(unit)])
        tab.mouse.move(x, y)
        said = tab.inner_text(f"{HEAT} [role=status]")
        assert said.startswith(f"Unit {unit}, input {place}: weight ")
        assert float(said.split()[-1]) == pytest.approx(rows[unit, place], abs=within(rows[unit]))
        # Orange is more red than blue, and blue the reverse, by as much as the weight says.
        colour = np.frombuffer(
            Image.open(io.BytesIO(tab.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})))
            .convert("RGB")
            .tobytes(),
            np.uint8,
        ).astype(int)
        if abs(rows[unit, place]) > 0.1 * np.abs(rows).max():
            assert np.sign(colour[0] - colour[2]) == np.sign(rows[unit, place])
    assert tab.evaluate(PLACE, [HEAT, 0, 0])[1] < tab.evaluate(PLACE, [HEAT, 0, 7])[1]
    head, read = table(tab, CARD)
    assert head == ["unit", *(f"input {place}" for place in range(9))] and read[:, 0].tolist() == [*"01234567"]
    np.testing.assert_allclose(read[:, 1:].astype(float), rows, atol=within(rows))
    colours = picture(tab, CARD)
    assert (colours[..., 0] - colours[..., 2] > 60).any() and (colours[..., 2] - colours[..., 0] > 60).any()


def test_a_row_of_the_heat_map_opens_its_unit_by_a_click_and_by_keys(opened, pages):
    tab = opened(pages["words"], "#cell=1&seed=1")
    until(tab, DRAWN, HEAT)
    tab.mouse.click(*tab.evaluate(PLACE, [HEAT, 4, 5]))
    until(tab, "document.querySelector('#view-units h2')?.innerText.startsWith('Unit 5')")
    assert fragment(tab) == {"view": "units", "run": "0", "cell": "1", "seed": "1", "unit": "5"}
    tab.go_back()
    until(tab, DRAWN, HEAT)
    tab.focus(f"{HEAT} .plot")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown", "ArrowRight"):
        tab.keyboard.press(key)
    assert tab.inner_text(f"{HEAT} [role=status]").startswith("Unit 2, input 1: ")
    tab.keyboard.press("End")
    assert tab.inner_text(f"{HEAT} [role=status]").startswith("Unit 2, input 8: ")
    tab.keyboard.press("Enter")
    until(tab, "location.hash.includes('unit=2')")


def test_pictures_of_rows_are_reached_by_keys_and_kept_as_large_as_they_are_seen(opened, pages, digits):
    tab = opened(pages["digits"], "#cell=0-0&seed=0")
    tab.focus(f"{CARD} .plot")
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft"):
        tab.keyboard.press(key)
    assert tab.inner_text(f"{CARD} [role=status]") == "Unit 4" and tab.is_visible(f"{CARD} .cursor")
    shown = tab.locator(f"{CARD} canvas").bounding_box()
    saved = picture(tab, CARD)
    assert saved.shape[1] >= 2 * shown["width"] and saved.shape[0] >= 2 * shown["height"]
    _, read = table(tab, CARD)
    rows = digits["decoder_weight"].values[0, 0, 0]
    np.testing.assert_allclose(read[:, 1:].astype(float), rows, atol=within(rows))
    tab.focus(f"{CARD} .plot")
    tab.keyboard.press("Enter")
    until(tab, "location.hash.includes('unit=4')")


def test_wide_rows_keep_their_largest_weights_in_sight_and_units_are_shown_in_parts(opened, words, tmp_path):
    tab = opened(wide_page(words, 300, 3000, tmp_path), width=390)
    until(tab, DRAWN, HEAT)
    assert "neighbours" in tab.inner_text(f"{HEAT} figcaption")
    assert "units 0 to 255 of 300" in tab.inner_text(f"{HEAT} [role=status]")
    tab.focus(f"{HEAT} .plot")
    tab.keyboard.press("End")
    assert tab.inner_text(f"{HEAT} [role=status]") == "Unit 0, input 2999: weight 1"
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.focus(f"{HEAT} select")
    tab.select_option(f"{HEAT} select", "1")
    until(
        tab, "document.querySelector('#view-grid .whole [role=status]').innerText.includes('units 256 to 299 of 300')"
    )
    until(tab, DRAWN, HEAT)
    assert tab.evaluate("document.activeElement.closest('label')?.firstChild.textContent") == "units"
    tab.mouse.click(*tab.evaluate(PLACE, [HEAT, 1500, 299]))
    until(tab, "location.hash.includes('unit=299')")
    _, read = table(tab, UNIT_CARD)
    assert read.shape == (1, 3001) and float(read[0, -1]) == 300


def test_a_unit_shows_its_decoder_row_as_bars(opened, pages, words):
    row = rows_of(words)[3]
    tab = opened(pages["words"], "#view=units&cell=0&seed=0&unit=3")
    until(tab, DRAWN, CHART)
    largest = int(np.abs(row).argmax())
    assert f"Largest: input {largest} ({row[largest]:.3g}"[:-1] in tab.get_attribute(f"{CHART} .plot", "aria-label")
    for place in (0, largest):
        tab.mouse.move(*tab.evaluate(PLACE, [CHART, place, 0]))
        tip = tab.locator(".bk-Tooltip .bk-tooltip-row-value")
        tip.first.get_by_text(str(place), exact=True).wait_for(timeout=20_000)
        assert float(tip.nth(1).inner_text()) == pytest.approx(row[place], abs=within(row))
    drawn = tab.evaluate(
        """words => { const { view } = document.querySelector(words).querySelector('.plot');
                      return [...view.model.renderers[0].data_source.data.weight]; }""",
        CHART,
    )
    np.testing.assert_allclose(drawn, row, atol=within(row))
    head, read = table(tab, UNIT_CARD)
    assert head[1] == "input 0" and read.shape == (1, 10)
    np.testing.assert_allclose(read[0, 1:].astype(float), row, atol=within(row))
    assert len(np.unique(picture(tab, UNIT_CARD).reshape(-1, 3), axis=0)) > 5


def test_samples_of_a_unit_are_kept_as_pictures_and_as_numbers(opened, pages, digits):
    best = int(digits["eval_explained_variance"].values[0, 0].argmax())
    tab = opened(pages["digits"], f"#view=units&cell=0-0&seed={best}")
    card = "#view-units figure.card:has(h3:text('Held-out samples'))"
    head, read = table(tab, card)
    assert head == ["samples", "sample", "activation"] and len(set(read[:, 0])) == 4
    shown = tab.locator(f"{card} figure").evaluate_all("all => all.map((one) => one.title)")
    told = [f"sample {number}, activation {float(value):.3g}" for _, number, value in read]
    assert [one.split(",")[0] for one in shown] == [one.split(",")[0] for one in told]
    saved = picture(tab, card)
    # A picture of every sample is in it: the middle of each has the colour that it has on the page.
    for canvas in tab.locator(f"{card} canvas").all()[:: len(shown) - 1]:
        grey, x, y = canvas.evaluate(
            """(one) => { const at = one.getBoundingClientRect(), box = one.closest('.plot').getBoundingClientRect();
                const place = [3, 4], pixel = one.getContext('2d').getImageData(...place, 1, 1).data[0];
                const part = (from, to, index) => to + ((place[index] + 0.5) / 8) * from;
                return [pixel, part(at.width, at.left - box.left, 0), part(at.height, at.top - box.top, 1)]; }"""
        )
        assert abs(int(saved[int(2 * y) + 68, int(2 * x) + 16, 0]) - grey) <= 1
    lead = "#view-units .lead"
    assert picture(tab, lead).shape[0] >= 300
    head, read = table(tab, lead)
    assert head[1] == "pixel 0" and read.shape == (1, 65)


def test_samples_with_names_have_these_in_their_table(opened, pages, words):
    tab = opened(pages["words"], "#view=units")
    card = "#view-units figure.card:has(h3:text('Held-out samples'))"
    head, read = table(tab, card)
    assert head == ["samples", "sample", "name", "activation"] and len(read) == tab.locator(f"{card} li").count()
    assert [row[2] for row in read] == [printable(words.data.heldout_names[int(row[1])]) for row in read]
    assert tab.locator(f"{card} button", has_text="PNG").count() == 0
