"""A run's page in a browser: what a reader clicks and downloads; nothing is asked of another place."""

import csv
import io
import re
import struct

import numpy as np
import pytest

import sae_jax
from sae_jax import as_data, sweep
from sae_jax.commands import report
from sae_jax.pages.page import Shown, page
from sae_jax.storage import results
from tests.pages.browsing import click_field, downloaded, fragment, until
from tests.pages.chromium import needs_browser

pytestmark = needs_browser


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
    told = "document.querySelector('#view-grid [role=status]').innerText"
    until(tab, f"{told}.startsWith('rho 0.1, beta 1: explained variance')")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#view-units .row")
    assert fragment(tab)["view"] == "units" and tab.is_hidden("#view-grid")


def test_keys_that_follow_one_another_at_once_are_all_obeyed(opened, pages):
    tab = opened(pages["digits"], "#cell=0-0")
    tab.evaluate(
        """() => { const plot = document.querySelector('#view-grid .plot');
                   const press = (key) => plot.dispatchEvent(new KeyboardEvent("keydown", { key }));
                   press("ArrowRight"); press("ArrowDown"); }"""
    )
    assert fragment(tab)["cell"] == "1-1"


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
    assert "Diverged: seed 0 at step 7; left out" in tab.inner_text("#view-grid .warning")
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


def test_a_run_of_which_every_lane_diverged_says_what_is_missing_and_why(opened, tmp_path):
    samples = as_data(np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    trained = sweep(samples, seeds=2, model="topk", k=2, d_hidden=3, learning_rate=1e30, batch_size=10, steps=20)
    steps = trained["diverged_at"].values.ravel()
    assert (steps >= 0).all()
    (tmp_path / "gone.html").write_text(page([Shown("gone", trained, data=samples)], "1"))
    tab = opened(tmp_path / "gone.html")
    words = f"Diverged: seed 0 at step {steps[0]:g}, seed 1 at step {steps[1]:g}; left out of means."
    assert tab.inner_text("#view-grid .warning") == words
    assert "Every lane of this cell diverged" in tab.inner_text("#view-grid")
    tab.click("nav a[data-view=units]")
    tab.wait_for_selector(f"text=This lane diverged at step {steps[0]:g}")
    assert tab.locator("#view-units select option").all_inner_texts() == ["0 (diverged)", "1 (diverged)"]
    tab.click("nav a[data-view=about]")
    assert "for the 2 of 2 lanes that diverged" in tab.inner_text("#view-about")


def test_values_of_an_axis_are_told_apart_and_stand_in_tables_as_they_are(opened, digits, tmp_path):
    rhos, betas = [0.1234567, 0.1234568], [1 / 3, 2 / 3]
    (tmp_path / "near.html").write_text(page([Shown("near", digits.assign_coords(rho=rhos, beta=betas))], "1"))
    tab = opened(tmp_path / "near.html", "#cell=1-0")
    assert tab.inner_text("#view-grid h2") == "rho 0.1234568, beta 0.333333"
    content, _ = downloaded(tab, tab.locator("#view-grid .card button", has_text="CSV").first)
    [_, *rows] = csv.reader(io.StringIO(content.decode()))
    assert [[float(value) for value in row[:2]] for row in rows] == [[rho, beta] for rho in rhos for beta in betas]
    tab.click("nav a[data-view=frontier]")
    content, _ = downloaded(tab, tab.locator("#view-frontier .card button", has_text="CSV"))
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert {row["cell"] for row in rows} == {f"rho {rho}, beta {beta}" for rho in rhos for beta in betas}


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


def test_architectures_are_not_joined_by_a_line(opened, tmp_path):
    data = as_data(np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    named = sweep(data, seeds=1, model=["topk", "jumprelu"], k=2, d_hidden=3, batch_size=10, steps=5)
    (tmp_path / "named.html").write_text(page([Shown("named", named, data=data)], "1"))
    tab = opened(tmp_path / "named.html", "#view=frontier")
    until(tab, "document.querySelector('#view-frontier .plot').view")
    assert "2 cells in 2 series" in tab.get_attribute("#view-frontier .plot", "aria-label")


def test_two_runs_stand_side_by_side(opened, pages):
    tab = opened(pages["both"])
    assert [
        text.partition(":")[0]
        for text in tab.locator("#view-grid .pane h3:first-child").all_inner_texts()
        if "explained" in text
    ] == ["first", "second"]
    box = tab.locator("#view-grid .pane >> nth=1 >> .plot >> nth=0").bounding_box()
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


def test_the_command_writes_a_page_that_opens(opened, digits, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    results.save(digits, tmp_path / "run")
    report.main([str(tmp_path / "run")])
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    tab = opened(tmp_path / "run" / "report.html")
    assert tab.title() == "run - sae_jax"


def test_a_page_stands_in_a_notebook_and_is_saved(browser, digits, tmp_path):
    made = sae_jax.page_of(digits, name="inline")
    assert made.save(tmp_path / "saved.html").read_text() == made.html and len(repr(made)) < 100
    troubles, tab = [], browser.new_page()
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    (tmp_path / "notebook.html").write_text(f"<!doctype html><h1>Notebook</h1>{made._repr_html_()}")
    tab.goto((tmp_path / "notebook.html").as_uri())
    inside = tab.frame_locator("iframe")
    inside.locator("html[data-ready]").wait_for(timeout=20_000)
    inside.get_by_role("link", name="Units").or_(inside.get_by_role("button", name="Units")).first.click()
    inside.locator("#view-units .row").first.wait_for()
    inside.locator("#view-units input[type=search]").fill("3")
    until(tab.frames[1], "location.hash.includes('view=units') && location.hash.includes('=3')")
    assert tab.locator("h1").inner_text() == "Notebook" and not troubles
    tab.close()
