"""Runs whose pages are looked at."""

import re

import pytest

from sae_jax import DataConfig, load, sweep
from sae_jax.data import SOURCES
from sae_jax.pages.page import Shown, page
from sae_jax.sweeps.merge import merge
from tests.analysis.kept_units import read_words
from tests.pages.chromium import CHROMIUM

SHORT = {"batch_size": 32, "steps": 20}


@pytest.fixture(scope="session")
def digits():
    """Two rho, two beta, three seeds of lanes on digits."""
    return sweep(DataConfig(dataset="digits"), seeds=3, rho=[0.05, 0.1], beta=[0.5, 1.0], d_hidden=6, **SHORT)


@pytest.fixture(scope="session")
def three():
    """Three axes, one seed, of which one cell was trained by nobody and one diverged."""
    axes = {"rho": [0.05, 0.1], "beta": [0.5, 1.0], "ema_decay": [0.5, 0.9]}
    trained = sweep(DataConfig(dataset="digits"), seeds=1, d_hidden=4, **axes, **SHORT)
    diverged = trained["diverged_at"].copy()
    diverged[1, 1, 1] = 7
    trained = trained.assign(diverged_at=diverged)
    first = trained.isel(rho=[0])
    return merge(first.isel(beta=[0]), first.isel(beta=[1], ema_decay=[0]), trained.isel(rho=[1]))


@pytest.fixture(scope="session")
def words():
    """Lanes on samples that have names, as a page shows them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(SOURCES, "words", read_words)
        config = DataConfig(dataset="words", heldout=0.5)
        return Shown("words", sweep(config, model="topk", k=[2, 3], d_hidden=8, seeds=2, **SHORT), data=load(config))


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright  # Tests that need it are skipped where it is missing.

    with sync_playwright() as started:
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


@pytest.fixture(scope="session")
def pages(digits, words, three, tmp_path_factory):
    """Pages by name: of digits, of named samples, of three axes, and of two runs."""
    folder, written = tmp_path_factory.mktemp("pages"), {}
    shown = {"digits": [Shown("digits", digits)], "words": [words], "three": [Shown("three", three)]}
    shown["both"] = [Shown("first", digits), Shown("second", digits.isel(rho=[0]))]
    for name, runs in shown.items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(page(runs, "1"))
    return written
