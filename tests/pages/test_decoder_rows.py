"""What a page holds of decoder rows, whether samples are images or not."""

import re

import numpy as np
import pytest

from sae_jax import DataConfig, as_data, sweep
from sae_jax.pages import page as pages
from sae_jax.pages.page import Shown, page
from tests.pages.conftest import SHORT
from tests.pages.packed import runs_of, weights


def test_rows_that_are_no_images_are_held(words):
    [run] = runs_of(page([words], "1"))
    rows = words.dataset["decoder_weight"].values.reshape(4, 8, 9)
    for number, own in enumerate(rows):
        lane = run["lanes"][str(number)]
        within = 0.5 / 127 * np.abs(own).max(axis=1, keepdims=True)
        assert (np.abs(weights(run, lane) - own) <= 1.05 * within).all() and "shape" not in lane
    assert run["along"] == "input"


def test_weights_of_zero_and_rows_of_zeros_stay_so(words):
    changed = words.dataset["decoder_weight"].copy()
    changed[..., 0, :] = 0
    changed[..., 1, :] = np.array([0.3, -0.3, 0, 0, 0, 0.1, 0, 0, 0])
    [run] = runs_of(page([words._replace(dataset=words.dataset.assign(decoder_weight=changed))], "1"))
    found = weights(run, run["lanes"]["0"])
    assert (found[0] == 0).all() and (found[1, [2, 3, 4, 6, 7, 8]] == 0).all()
    np.testing.assert_allclose(found[1, :2], [0.3, -0.3], rtol=2e-4)


def test_rows_of_transcoders_lie_along_their_targets():
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    data = as_data(x, targets=np.maximum(x[:, :4], 0))
    trained = sweep(data, model="topk", k=2, d_hidden=5, seeds=1, **SHORT)
    [run] = runs_of(page([Shown("pairs", trained, data=data)], "1"))
    assert run["along"] == "target" and run["lanes"]["0"]["rows"]["shape"] == [5, 4]
    own = trained["decoder_weight"].values.squeeze()
    np.testing.assert_allclose(weights(run, run["lanes"]["0"]), own, atol=0.004 * np.abs(own).max())


def test_lanes_of_several_widths_hold_their_own_units():
    trained = sweep(DataConfig(dataset="superposition"), model="topk", k=2, d_hidden=[4, 7], seeds=1, **SHORT)
    [run] = runs_of(page([Shown("widths", trained)], "1"))
    assert [run["lanes"][number]["rows"]["shape"][0] for number in "01"] == [4, 7]


@pytest.mark.parametrize("kind", ["words", "digits"])
def test_rows_beyond_the_room_are_left_out_and_that_is_said(kind, words, digits, monkeypatch):
    shown = words if kind == "words" else Shown("digits", digits)
    lanes = {"words": 4, "digits": 12}[kind]
    monkeypatch.setattr(pages, "ARRAY_BYTES", 2 * (8 * 9 + 4 * 8) / 0.4 if kind == "words" else 2 * 6 * 68 / 0.4)
    text = page([shown], "1")
    said = re.findall(r'<p class="note left-out">(.*?)</p>', text)
    assert any(f"decoder rows of {lanes - 2} of {lanes} lanes are left out" in line for line in said)
    [run] = runs_of(text)
    assert sum("rows" in lane for lane in run["lanes"].values()) == 2
