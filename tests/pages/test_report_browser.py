"""A run's page in a browser: what a reader clicks, types and downloads; nothing is asked of another place."""

import csv
import io
import re
import shutil
import struct
import time

import numpy as np
import pytest

from sae_jax.commands import report
from sae_jax.pages.page import Shown, page
from sae_jax.storage import results

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: requirements-dev.txt names it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function that opens a page: a file, a fragment, and what a browser's window is like."""
    troubles, contexts = [], []

    def open_page(path, fragment="", width=1400, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda one: None if re.match("file:|data:|blob:", one.url) else troubles.append(one.url))
        tab.goto(f"{path.as_uri()}{fragment}")
        tab.wait_for_selector("html[data-ready]", timeout=20_000)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="module")
def pages(digits, words, three, tmp_path_factory):
    """Pages by name: of digits, of named samples, of three axes, and of two runs."""
    folder, written = tmp_path_factory.mktemp("pages"), {}
    shown = {"digits": [Shown("digits", digits)], "words": [Shown("words", words)], "three": [Shown("three", three)]}
    shown["both"] = [Shown("first", digits), Shown("second", digits.isel(rho=[0]))]
    for name, runs in shown.items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(page(runs, "1"))
    return written


def click_field(tab, column, row, columns, rows):
    """Click a field of the heatmap, whose frame Bokeh knows."""
    box = tab.evaluate(
        """() => { const view = document.querySelector('#view-grid .plot').view, at = view.el.getBoundingClientRect();
                   const inner = view.frame.bbox;
                   return [at.left + inner.left, at.top + inner.top, inner.width, inner.height]; }"""
    )
    tab.mouse.click(box[0] + box[2] * (column + 0.5) / columns, box[1] + box[3] * (row + 0.5) / rows)


def until(tab, condition, *given):
    """Wait until a condition holds in the page, whose own rules allow no library to poll there."""
    began = time.monotonic()
    while not tab.evaluate(condition, *given):
        assert time.monotonic() - began < 20, f"{condition}: got {tab.url}"
        tab.wait_for_timeout(20)


def fragment(tab):
    return dict(part.split("=") for part in tab.evaluate("location.hash.slice(1)").split("&") if part)


def test_a_click_on_the_grid_shows_that_cell_and_back_goes_back(opened, pages, digits):
    tab = opened(pages["digits"])
    until(tab, "document.querySelector('#view-grid .plot').view")
    before = tab.inner_text("#view-grid h2")
    places = [(row, column) for row in (0, 1) for column in (0, 1)]
    row, column = next(
        place for place in places if f"rho {[0.05, 0.1][place[0]]:g}, beta {place[1] * 0.5 + 0.5:g}" != before
    )
    click_field(tab, column, row, 2, 2)
    after = f"rho {[0.05, 0.1][row]:g}, beta {column * 0.5 + 0.5:g}"
    until(tab, "words => document.querySelector('#view-grid h2').innerText === words", after)
    assert fragment(tab)["cell"] == f"{row}-{column}"
    mean = digits["eval_explained_variance"].values[row, column].mean()
    told = re.search(r"explained variance (\S+) ", tab.inner_text("#view-grid [role=status]"))[1]
    assert float(told) == pytest.approx(mean, rel=5e-3)
    assert tab.locator("#view-grid .charts .card").count() == 4
    tab.go_back()
    until(tab, "words => document.querySelector('#view-grid h2').innerText === words", before)


def test_arrow_keys_move_in_the_grid_and_enter_opens_the_units(opened, pages):
    tab = opened(pages["digits"], "#cell=0-0")
    tab.focus("#view-grid .plot")
    tab.keyboard.press("ArrowRight")
    until(tab, "location.hash.includes('cell=0-1')")
    tab.keyboard.press("ArrowDown")
    until(tab, "location.hash.includes('cell=1-1')")
    assert "rho 0.1, beta 1: explained variance" in tab.inner_text("#view-grid [role=status]")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#view-units .row")
    assert fragment(tab)["view"] == "units" and tab.is_hidden("#view-grid")


def test_the_measure_and_the_axes_are_chosen(opened, pages):
    tab = opened(pages["digits"])
    tab.select_option("#view-grid .controls select >> nth=0", "eval_dead_fraction")
    until(tab, "document.querySelector('#view-grid h3').innerText.includes('share of units active on no')")
    tab.select_option("#view-grid .controls select >> nth=1", "beta")
    until(tab, "location.hash.includes('y=beta') && location.hash.includes('x=rho')")
    assert "rows beta, columns rho" in tab.get_attribute("#view-grid .plot", "aria-label")


def test_further_axes_are_chosen_or_averaged_over_and_what_is_missing_is_said(opened, pages, three):
    tab = opened(pages["three"], "#measure=eval_reconstruction&cell=0-1-1")
    told = "document.querySelector('#view-grid .pane [role=status]').innerText"
    until(tab, f"{told}.endsWith('none')")
    assert "Nobody trained a lane of this cell." in tab.inner_text("#view-grid .pane")
    click_field(tab, 1, 1, 2, 2)
    until(tab, f"{told}.endsWith('diverged')")
    assert "Diverged: seed 0" in tab.inner_text("#view-grid .warning")
    axis = tab.locator("#view-grid .pane .controls select")
    axis.select_option("mean")
    values = three["eval_reconstruction"].values[..., 0].astype(float)
    number = tab.locator("#view-grid .card button", has_text="CSV").first
    content, _ = downloaded(tab, number)
    [_, *rows] = csv.reader(io.StringIO(content.decode()))
    values[1, 1, 1] = np.nan
    np.testing.assert_allclose([float(row[2]) for row in rows], np.nanmean(values, axis=-1).ravel(), rtol=1e-6)
    tab.locator("#view-grid .pane .controls select").select_option("0")
    until(tab, "location.hash.includes('cell=1-1-0') && !location.hash.includes('over=')")


def downloaded(tab, locator):
    with tab.expect_download() as download:
        locator.click()
    return download.value.path().read_bytes(), download.value.suggested_filename


def test_what_is_shown_is_downloaded(opened, pages, digits):
    tab = opened(pages["digits"], "#measure=eval_reconstruction&cell=1-0")
    until(tab, "document.querySelector('#view-grid .plot').view")
    content, name = downloaded(tab, tab.locator("#view-grid .card button", has_text="CSV").first)
    [head, *rows] = csv.reader(io.StringIO(content.decode()))
    assert head == ["rho", "beta", "mean", "standard deviation", "seeds"] and name.endswith(".csv")
    values = digits["eval_reconstruction"].values.astype(float)
    np.testing.assert_allclose([float(row[2]) for row in rows], values.mean(axis=-1).ravel())
    np.testing.assert_allclose([float(row[3]) for row in rows], values.std(axis=-1, ddof=1).ravel())
    for button in tab.locator("#view-grid .card button", has_text="PNG").all():
        content, name = downloaded(tab, button)
        width, height = struct.unpack(">II", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and width > 40 and height > 40 and name.endswith(".png")
    curve = tab.locator("#view-grid .charts .card").first
    content, _ = downloaded(tab, curve.locator("button", has_text="CSV"))
    [head, *rows] = csv.reader(io.StringIO(content.decode()))
    assert head == ["step", "seed 0", "seed 1", "seed 2"] and len(rows) == digits.sizes["step"]
    np.testing.assert_allclose([float(row[2]) for row in rows], digits["loss"].values[1, 0, 1], rtol=1e-3)


def test_units_are_sorted_searched_and_linked(opened, pages, digits):
    tab = opened(pages["digits"], "#view=units&cell=0-1&seed=2&unit=4")
    assert tab.inner_text("#view-units h2").startswith("Unit 4")
    tab.click("#view-units .heads button[data-sort=mean]")
    tab.wait_for_selector("button[data-sort=mean][data-order=down]")
    numbers = [int(text) for text in tab.locator("#view-units .row > span:nth-child(2)").all_inner_texts()]
    means = digits["eval_mean_activation"].values[0, 1, 2]
    np.testing.assert_array_equal(numbers, np.argsort(-means, kind="stable"))
    tab.click("#view-units .heads button[data-sort=mean]")
    tab.wait_for_selector("button[data-sort=mean][data-order=up]")
    tab.fill("#view-units input[type=search]", "3")
    until(tab, "document.querySelectorAll('#view-units .row').length === 1")
    assert tab.inner_text("#view-units h2").startswith("Unit 3")
    assert tab.evaluate("document.activeElement.type") == "search"
    tab.fill("#view-units input[type=search]", "")
    until(tab, "document.querySelectorAll('#view-units .row').length === 6")
    link = tab.evaluate("location.href")
    assert fragment(tab)["sort"] == "mean" and fragment(tab)["seed"] == "2"
    other = opened(pages["digits"], link[link.index("#") :])
    assert other.inner_text("#view-units h2") == tab.inner_text("#view-units h2")


def test_a_unit_shows_its_samples_and_leads_to_its_match(opened, pages, digits):
    best = int(digits["eval_explained_variance"].values[0, 0].argmax())
    tab = opened(pages["digits"], f"#view=units&cell=0-0&seed={best}")
    assert tab.locator("#view-units .strip figure canvas").count() > 4
    first = tab.inner_text("#view-units h2")
    tab.focus("#view-units .list")
    tab.keyboard.press("ArrowDown")
    until(tab, "words => document.querySelector('#view-units h2').innerText !== words", first)
    chosen = tab.locator("#view-units .row[aria-selected=true]")
    assert chosen.get_attribute("id") == tab.get_attribute("#view-units .list", "aria-activedescendant")
    match = tab.locator("#view-units .strip button", has_text="seed ").first
    seed, unit = re.match(r"seed (\d+): unit (\d+)", match.inner_text().strip()).groups()
    match.click()
    until(tab, "words => document.querySelector('#view-units h2').innerText.startsWith(words)", f"Unit {unit}")
    assert fragment(tab)["seed"] == seed and fragment(tab)["unit"] == unit


def test_units_are_found_by_the_names_of_their_samples(opened, pages):
    tab = opened(pages["words"], "#view=units")
    total = tab.locator("#view-units .row").count()
    assert total == 8 and tab.locator("#view-units .names li").count() > 0
    tab.fill("#view-units input[type=search]", "$x^2$")
    until(tab, "total => document.querySelectorAll('#view-units .row').length < total", total)
    assert tab.locator("#view-units .row").count() > 0 and "$x^2$" in tab.inner_text("#view-units .names")
    tab.fill("#view-units input[type=search]", "no such word")
    tab.wait_for_selector("text=No unit is found.")


def test_a_point_of_the_frontier_leads_to_its_cell(opened, pages):
    tab = opened(pages["digits"], "#view=frontier&fx=eval_reconstruction&fy=eval_explained_variance")
    until(tab, "document.querySelector('#view-frontier .plot').view")
    tab.focus("#view-frontier .plot")
    tab.keyboard.press("ArrowRight")
    told = tab.inner_text("#view-frontier [role=status]")
    assert told.startswith("rho 0.05, beta 0.5: ") and "\N{PLUS-MINUS SIGN}" in told
    point = tab.evaluate(
        """() => { const { view } = document.querySelector('#view-frontier .plot');
                   const at = view.el.getBoundingClientRect();
                   const data = view.model.renderers.find((one) => one.glyph.type === 'Scatter').data_source.data;
                   const { x_scale, y_scale } = view.frame;
                   const [x, y] = [x_scale.compute(data.x[1]), y_scale.compute(data.y[1])];
                   return [at.left + x, at.top + y, data.cell[1]]; }"""
    )
    tab.mouse.click(point[0], point[1])
    until(tab, "words => document.querySelector('#view-grid h2')?.innerText === words", point[2])


def test_two_runs_stand_side_by_side(opened, pages):
    tab = opened(pages["both"])
    assert [
        text.partition(":")[0]
        for text in tab.locator("#view-grid .pane h3:first-child").all_inner_texts()
        if "explained" in text
    ] == ["first", "second"]
    box = tab.locator("#view-grid .plot[role=application] >> nth=1").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2 - 60, box["y"] + 40)
    until(tab, "location.hash.includes('bcell=')")
    assert "&cell=" not in tab.evaluate("location.hash")
    tab.click("nav a[data-view=frontier]")
    tab.wait_for_selector("#view-frontier .plot")
    assert "6 cells" in tab.get_attribute("#view-frontier .plot", "aria-label")
    tab.click("nav a[data-view=about]")
    assert tab.locator("#view-about article").count() == 3


@pytest.mark.parametrize("name", ["digits", "words", "three", "both"])
@pytest.mark.parametrize("view", ["grid", "units", "frontier", "about"])
def test_nothing_is_wider_than_a_telephone_and_everything_has_a_name(opened, pages, name, view):
    tab = opened(pages[name], f"#view={view}", width=390, height=844, scheme="dark")
    tab.wait_for_timeout(300)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll('canvas, button, select, input, [role=img], [role=application]')]
            .filter((one) => one.getClientRects().length && !one.getAttribute('aria-label') && !one.innerText?.trim()
                && !one.closest('label') && !one.closest('[aria-label]')).map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_dark_is_as_the_reader_has_it_and_can_be_changed(opened, pages):
    tab = opened(pages["digits"], scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(ground)
    tab.click("#theme")
    assert tab.evaluate(ground) != dark and tab.inner_text("#theme") == "Dark"


HOSTILE = "<script>window.hit=1</script><img src=x onerror='window.hit=1'>$$\\frac{1}{2}$$"


def test_names_from_files_are_words_and_nothing_else(opened, digits, tmp_path):
    labelled = digits.copy()
    for name in ("loss", "eval_explained_variance", "rho", "beta"):
        labelled[name].attrs["long_name"] = f"{HOSTILE} {name}"
    (tmp_path / "hostile.html").write_text(page([Shown(HOSTILE, labelled.assign_coords(data_dir=HOSTILE))], "1"))
    for view in ("grid", "units", "frontier", "about"):
        tab = opened(tmp_path / "hostile.html", f"#view={view}")
        tab.wait_for_timeout(200)
        assert tab.evaluate("window.hit") is None and tab.inner_text("h1") == HOSTILE


def test_thousands_of_units_scroll(opened, words, tmp_path):
    units = 5000
    lane = words.isel(k=[0], seed=[0])
    wide = lane.isel(unit=np.resize(np.arange(8), units)).assign_coords(unit=np.arange(units), d_hidden=units)
    (tmp_path / "wide.html").write_text(page([Shown("wide", wide)], "1"))
    tab = opened(tmp_path / "wide.html", "#view=units&sort=unit")
    assert tab.locator("#view-units .row").count() < 60
    began = time.monotonic()
    frames = tab.evaluate(
        """async () => { const list = document.querySelector('#view-units .list'), times = [];
            for (let step = 0; step < 60; step += 1) { const before = performance.now();
                list.scrollTop = step * 3300;
                await new Promise(requestAnimationFrame);
                times.push(performance.now() - before); }
            return times; }"""
    )
    assert np.median(frames) < 100 and time.monotonic() - began < 20
    assert tab.locator("#view-units .row").count() < 60
    tab.focus("#view-units .list")
    tab.keyboard.press("End")
    until(tab, "document.querySelector('#view-units h2').innerText.startsWith('Unit 4999')")
    tab.fill("#view-units input[type=search]", "4321")
    until(tab, "document.querySelector('#view-units h2').innerText.startsWith('Unit 4321')")


def test_the_command_writes_a_page_that_opens(opened, digits, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    results.save(digits, tmp_path / "run")
    report.main([str(tmp_path / "run")])
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    tab = opened(tmp_path / "run" / "report.html")
    assert tab.title() == "run - sae_jax"
