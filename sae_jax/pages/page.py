"""The page of finished runs: one HTML file that needs no network, made from a template, scripts and Bokeh's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from sae_jax.analysis.cells import cell_count, with_presence
from sae_jax.analysis.run import open as open_run
from sae_jax.data import Data
from sae_jax.pages.about import about_part, citation
from sae_jax.pages.cells import lane_parts
from sae_jax.pages.grid import best_first, grid_part
from sae_jax.pages.packing import Packer
from sae_jax.pages.units import run_lanes, unit_parts, words_of_units
from sae_jax.settings import printable
from sae_jax.storage.atomic import write_file, writing

PAGE_FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = (
    "data",
    "state",
    "charts",
    "downloads",
    "heatmap",
    "cell",
    "pictures",
    "decoder_rows",
    "unit_list",
    "unit",
    "frontier",
    "main",
)
# Bytes of arrays in a page of all its runs, before they are compressed and written as text: it stays below 15 MB.
ARRAY_BYTES = 8_500_000
UNITS_SHARE = 0.4


class Shown(NamedTuple):
    """A run that a page shows.

    Attributes:
        name: above it.
        dataset: what `sae_jax.sweep` returned or `sae_jax.storage.results.load` read.
        folder: where its record lies; None where it has none.
        data: its samples, where they are at hand; None loads them again.
        samples_needed: whether there is no page where they cannot be loaded; else the page says so.
    """

    name: str
    dataset: xr.Dataset
    folder: Path | None = None
    data: Data | None = None
    samples_needed: bool = False


def write_page(runs: Sequence[Shown], path: Path, version: str, flag: str, fix: str) -> None:
    """Write the page of runs into a file, in one move.

    Args:
        runs: those that it shows, the first one first.
        path: of the file; its folder is there.
        version: of this package, for the citation.
        flag, fix: what the user calls the file, and what to do where it cannot be written.

    Raises:
        UserError: it cannot be written.
    """
    content = page(runs, version).encode()
    with writing(path, flag, fix):
        write_file(path, content)


def page(runs: Sequence[Shown], version: str) -> str:
    """The page as HTML; arguments are those of `write_page`."""
    from jinja2 import Environment, FileSystemLoader  # Help need not wait for it.
    from markupsafe import Markup

    parts = [_run_part(run, ARRAY_BYTES / len(runs)) for run in runs]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    scripts = "\n".join((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return environment.get_template("report.html.j2").render(
        runs=parts,
        title=" and ".join(part["name"] for part in parts),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        library=Markup(in_script(library())),
        script=Markup(in_script(f'(() => {{\n"use strict";\n{scripts}\n}})();')),
        citation=citation(version),
        version=version,
    )


def library() -> str:
    """The scripts of Bokeh, which draws the charts, as its package brings them."""
    from bokeh.util.paths import static_path

    return "\n".join(
        (static_path() / "js" / f"{name}.min.js").read_text(encoding="utf-8") for name in ("bokeh", "bokeh-api")
    )


def _run_part(run: Shown, size: float) -> dict[str, Any]:
    """What the template shows of a run, and what its script reads, packed."""
    dataset, packer, left_out = with_presence(run.dataset), Packer(), list[str]()
    opened = open_run(run.dataset)
    best, order = best_first(dataset)
    grid = grid_part(opened, dataset, packer, left_out)
    lanes = lane_parts(dataset, order, packer, size * (1 - UNITS_SHARE), left_out)
    programs = run_lanes(dataset, run.data, left_out, run.samples_needed)
    looked = unit_parts(dataset, programs, order, packer, size * UNITS_SHARE, left_out)
    for number, part in looked.lanes.items():
        lanes[number]["detail"] = part
    name = printable(run.name)
    content = {
        "name": name,
        **grid,
        **words_of_units(),
        "along": "target" if opened.kind == "transcoders" else "input",
        "best": packer.put(best),
        "first": order[0] // dataset.sizes["seed"] if order else 0,
        "lanes": {str(number): lane for number, lane in lanes.items()},
        "samples": looked.samples,
    }
    cells, seeds = cell_count(dataset), dataset.sizes["seed"]
    counts = [(axis["name"], len(axis["values"])) for axis in grid["axes"]]
    axes = ", ".join(f"{axis} ({count} {'value' if count == 1 else 'values'})" for axis, count in counts)
    choices = opened.model.choices
    kind = f"{opened.kind} of {len(choices)} architectures" if choices else f"{opened.model.name} {opened.kind}"
    summary = f"{kind}: {cells} {'cell' if cells == 1 else 'cells'} x {seeds} "
    summary += f"{'seed' if seeds == 1 else 'seeds'}{f' over {axes}' if axes else ''}"
    about = about_part(opened, run.folder)
    return {"name": name, "summary": summary, "about": about, "left_out": left_out, "packed": packer.packed(content)}


def in_script(text: str) -> str:
    """A script as it may stand in HTML, where these words would end it."""
    return re.sub(r"</(script)", r"<\\/\1", text, flags=re.IGNORECASE).replace("<!--", "<\\!--")
