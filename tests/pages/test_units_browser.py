"""The units on a run's page in a browser: sorted, searched, linked, thousands of them."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest

from sae_jax import as_data, sweep
from sae_jax.pages.page import Shown, page
from sae_jax.storage.arrays import no_storage
from sae_jax.sweeps.keep import keep_parameters
from tests.pages.browsing import downloaded, fragment, until
from tests.pages.chromium import needs_browser

pytestmark = needs_browser


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
    assert tab.locator("#view-units h2, #view-units .names").count() == 0
    assert "The search finds no unit." in tab.inner_text("#view-units")
    tab.fill("#view-units input[type=search]", "7")
    until(tab, "document.querySelector('#view-units h2')?.innerText.startsWith('Unit 7')")


def test_a_long_name_leaves_its_activation_in_sight_and_is_searched_to_its_end(opened, words, tmp_path):
    names = tuple(f"{'long ' * 100}{name} last{number}." for number, name in enumerate(words.data.heldout_names))
    data = dataclasses.replace(words.data, heldout_names=names)
    (tmp_path / "long.html").write_text(page([words._replace(data=data)], "1"))
    tab = opened(tmp_path / "long.html", "#view=units")
    title = tab.locator("#view-units .names li").first.get_attribute("title")
    last = re.search(r"last\d+\.", title)[0]
    number, name = (tab.locator(f"#view-units .names li >> nth=0 >> {part}") for part in ("b", "span"))
    assert title.endswith(f", activation {number.inner_text()}") and float(number.inner_text()) != 0
    box, whole = number.bounding_box(), tab.locator("#view-units .names li").first.bounding_box()
    assert box["x"] + box["width"] <= name.bounding_box()["x"]
    assert name.bounding_box()["x"] + name.bounding_box()["width"] <= whole["x"] + whole["width"] + 1
    tab.fill("#view-units input[type=search]", last)
    until(tab, "document.querySelectorAll('#view-units .row').length < 8")
    assert tab.locator("#view-units .row").count() > 0


@pytest.mark.parametrize("part", ["cell=0.5-0", "cell=1-0.5", "seed=0.5", "unit=0.5", "unit=99999", "run=0.5"])
def test_what_an_address_says_wrongly_falls_back(opened, pages, part):
    tab = opened(pages["digits"], "#view=units")
    expected = tab.inner_text("#view-units h2")
    other = opened(pages["digits"], f"#view=units&{part}")
    assert other.inner_text("#view-units h2") == expected and other.locator("#view-units .row").count() == 6
    assert "undefined" not in other.inner_text("#view-units")


def test_thousands_of_units_scroll(opened, words, tmp_path):
    units = 5000
    lane = words.dataset.isel(k=[0], seed=[0])
    wide = lane.isel(unit=np.resize(np.arange(8), units)).assign_coords(unit=np.arange(units), d_hidden=units)
    (tmp_path / "wide.html").write_text(page([Shown("wide", wide, data=words.data)], "1"))
    tab = opened(tmp_path / "wide.html", "#view=units&sort=unit")
    assert tab.locator("#view-units .row").count() < 60
    # However far one scrolls, the next frame has the rows that are in sight, and few others.
    seen = tab.evaluate(
        """async () => { const list = document.querySelector('#view-units .list'), seen = [];
            for (let step = 0; step < 60; step += 1) {
                list.scrollTop = step * 3300;
                await new Promise(requestAnimationFrame);
                await new Promise(requestAnimationFrame);
                const rows = [...list.querySelectorAll('.row')], box = list.getBoundingClientRect();
                const inside = rows.map((row) => row.getBoundingClientRect());
                seen.push([rows.length, Math.min(...inside.map((one) => one.top)) - box.top,
                           box.bottom - Math.max(...inside.map((one) => one.bottom))]); }
            return seen; }"""
    )
    assert all(rows < 60 and above <= 1 and below <= 1 for rows, above, below in seen[:-1]), seen
    assert tab.locator("#view-units .row").count() < 60
    tab.focus("#view-units .list")
    tab.keyboard.press("End")
    until(tab, "document.querySelector('#view-units h2').innerText.startsWith('Unit 4999')")
    tab.fill("#view-units input[type=search]", "4321")
    until(tab, "document.querySelector('#view-units h2').innerText.startsWith('Unit 4321')")


def test_units_active_on_just_a_tenth_of_the_samples_are_not_dense(opened, tmp_path):
    samples = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    trained = sweep(as_data(samples), model="topk", k=1, d_hidden=3, seeds=1, batch_size=10, steps=3)
    rates = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1)), 0.1234567], np.float32)
    changed = trained.assign(eval_firing_rate=trained["eval_firing_rate"].copy(data=rates.reshape(1, -1)))
    changed = keep_parameters(changed, "none", no_storage)
    (tmp_path / "tenth.html").write_text(page([Shown("tenth", changed)], "1"))
    tab = opened(tmp_path / "tenth.html", "#view=units&sort=unit")
    assert "2 dense" in tab.inner_text("#view-units [role=status]")
    content, _ = downloaded(tab, tab.locator("#view-units button", has_text="Units as CSV"))
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert [row["dense"] for row in rows] == ["false", "true", "true"]
    np.testing.assert_array_equal(np.float32([row["density"] for row in rows]), rates)
    means = trained["eval_mean_activation"].values.ravel()
    np.testing.assert_array_equal(np.float32([row["mean activation"] for row in rows]), means)
