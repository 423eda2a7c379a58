"""The page of results in a notebook, or as a file of a program's own."""

from __future__ import annotations

import dataclasses
import html
from pathlib import Path

import xarray as xr

from sae_jax.data import Data
from sae_jax.pages.page import Shown, page
from sae_jax.settings import check_type
from sae_jax.storage.atomic import as_path, write_file, writing
from sae_jax.storage.version import version
from sae_jax.sweeps.reading import check_results

HEIGHT = 900


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of results, which a notebook shows as it is.

    Attributes:
        html: the whole of it; it needs no network.
    """

    html: str = dataclasses.field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write it into a file.

        Raises:
            UserError: it cannot be written.
        """
        path = as_path("path", path, "the path of a file", "use report.html")
        with writing(path, "path", "choose another path"):
            write_file(path, self.html.encode())
        return path

    def _repr_html_(self) -> str:
        # Not as an address of the kind data:, which Chromium takes up to 2 MB of.
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="Page of results" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )


def page_of(dataset: xr.Dataset, data: Data | None = None, name: str = "results") -> Page:
    """The page of results: grid, units, frontier, settings, as `report` writes it for a run.

    Args:
        dataset: what `sae_jax.sweep` returned or `sae_jax.results.load` read.
        data: its samples, as `as_data` returns them, where they were handed over as arrays; else they are loaded again.
        name: above the page.

    Raises:
        UserError: an argument is not what it is to be.
    """
    check_type("dataset", dataset, xr.Dataset, "a Dataset of results", "use what sae_jax.sweep returned")
    check_type("data", data, (Data, type(None)), "Data", "use sae_jax.as_data(samples)")
    check_type("name", name, str, "a text", "use results")
    check_results(dataset)
    return Page(page([Shown(name, dataset, data=data)], version()))
