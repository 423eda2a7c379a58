"""Names of samples on a page."""

import dataclasses

from sae_jax.pages.page import page
from tests.pages.packed import runs_of


def test_names_of_samples_are_shown(words):
    [run] = runs_of(page([words], "1"))
    [samples] = run["samples"]
    assert len(samples["names"]) == len(run["read"](samples["numbers"])) > 0 and "pictures" not in samples
    assert any("nearest" in lane.get("detail", {}) for lane in run["lanes"].values())


def test_long_names_are_held_with_a_mark_where_they_end(words):
    names = tuple(f"{number} {'word ' * (50 if number % 2 else 500)}end" for number in range(len(words.data.heldout)))
    [run] = runs_of(page([words._replace(data=dataclasses.replace(words.data, heldout_names=names))], "1"))
    [samples] = run["samples"]
    for number, name in zip(run["read"](samples["numbers"]), samples["names"], strict=True):
        assert name == names[number] if number % 2 else name == names[number][:999] + "\N{HORIZONTAL ELLIPSIS}"
    assert len({len(name) for name in samples["names"]}) > 1
