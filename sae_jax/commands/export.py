"""Write lanes of a finished run for SAELens or PyTorch.

    python -m experiments.sweep --model topk --k 4 8 --d-hidden 64 --steps 200 --dataset digits --name shared
    python -m experiments.export runs/shared --to saelens --lane k=4 seed=0 --out runs/shared-saelens
    python -m experiments.export runs/shared --to torch --best eval_explained_variance --out runs/shared-torch

A folder of SAELens holds cfg.json and sae_weights.safetensors: sae_lens.SAE.load_from_disk reads it, and so does
sae_jax.interop.load. The normalisation of the run's samples becomes part of the weights. A file of PyTorch holds the
parameters, and loader.py beside it the lines that encode and decode with them. With --all each lane has its folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_jax.commands.environment import call, check_new_folder, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import RUN, run_folder
from sae_jax.commands.flags import checked_settings, options_of, read
from sae_jax.commands.lanes import AT, BEST, LANE, chosen_lane
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import TEXT, TRUE_OR_FALSE, UserError, one_of, setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sae_jax.analysis.run import Run
    from sae_jax.analysis.trained_lane import TrainedLane

SAELENS, TORCH = "saelens", "torch"
LONGEST_NAME = 255
WEIGHTS_FILE, LOADER_FILE = "lane.safetensors", "loader.py"


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Which lanes, and where to."""

    to: str = setting(SAELENS, one_of((SAELENS, TORCH)), "whose files are written")
    lane: tuple[str, ...] = LANE
    best: str = BEST
    at: tuple[str, ...] = AT
    all: bool = setting(False, TRUE_OR_FALSE, "every lane of the run, each in a folder of its own inside --out")
    out: str = setting("exported", TEXT, "the folder that is written to; a new or an empty one")
    hook_name: str = setting("", TEXT, "which activations were encoded, such as blocks.8.hook_resid_post, for SAELens")
    model_name: str = setting("", TEXT, "of which model, for SAELens")


def main(argv: list[str]) -> None:
    """Parse, open, write."""
    with one_line_errors():
        load_plugins(argv)
        words = read(
            argv, call("export"), (__doc__ or "").partition("\n")[0], {"export": [RUN, *options_of(ExportConfig)]}
        )
        folder = run_folder(words, "export")
        options = checked_settings(ExportConfig, words)
        _check(options)
        # Help need not wait for all that reads.
        from sae_jax.analysis.run import open as open_run

        set_up()
        end_in_order()
        out = Path(options.out)
        check_new_folder(out, "--out")
        run = open_run(folder)
        if options.all:
            lanes = _named(list(_every(run)))
        else:
            lanes = {"": chosen_lane(run, options.lane, options.best, options.at)}
        written, lines = _write(run, lanes, out, options)
        for text in lines:
            print(text)
        for name, lane in lanes.items():
            print(f"{lane!r}: {out / name}")
        print("\n".join(["files:", *(f"  {file}" for file in written)]))


def _check(options: ExportConfig) -> None:
    """Refuse flags that would be passed over beside others."""
    default = ExportConfig()
    for name in ("lane", "at", "best"):
        if options.all and (given := getattr(options, name)) != getattr(default, name):
            shown = given if isinstance(given, str) else " ".join(given)
            raise UserError(f"--all is every lane: got it beside --{name} {shown}; leave one out")
    for name in ("hook_name", "model_name"):
        if options.to != SAELENS and (given := getattr(options, name)):
            raise UserError(f"--{name.replace('_', '-')} is written for {SAELENS} alone: got {given}; leave it out")


def _write(
    run: Run, lanes: Mapping[str, TrainedLane], out: Path, options: ExportConfig
) -> tuple[list[Path], list[str]]:
    """Write lanes by their folders in --out, all in one move: a later one may have no such form.

    Returns:
        The files, and what is printed of them.
    """
    from sae_jax.storage.atomic import write_file, writing
    from sae_jax.storage.new_folder import filled

    written, lines = [], []
    with writing(out, "--out", "choose another"), filled(out) as unfinished:
        for place, lane in lanes.items():
            (unfinished / place).mkdir(exist_ok=True)
            content = _content(run, lane, options)
            for name, text in content.items():
                write_file(unfinished / place / name, text)
                written.append(out / place / name)
            if LOADER_FILE in content:
                lines.append(content[LOADER_FILE].decode().rstrip())
    return written, lines


def _content(run: Run, lane: TrainedLane, options: ExportConfig) -> dict[str, bytes]:
    """The files of a lane by their names."""
    from sae_jax.analysis.interop import saelens, torch

    if options.to == SAELENS:
        return saelens.files(lane, options.hook_name, options.model_name, _measured(run, lane))
    return {WEIGHTS_FILE: torch.weights(lane), LOADER_FILE: f"{torch.loader(lane, WEIGHTS_FILE)}\n".encode()}


def _every(run: Run) -> Iterator[TrainedLane]:
    """All lanes that a run holds, the seeds fastest; a merged grid may have holes.

    Raises:
        UserError: parameters of one are not there.
    """
    import numpy as np

    from sae_jax.sweeps.reading import present

    present_lanes = present(run.dataset)
    dims = [dim for dim in run.dims if dim in run.dataset.dims]
    for place in np.ndindex(*(run.dataset.sizes[dim] for dim in dims)):
        index = dict(zip(dims, place, strict=True))
        if present_lanes is not None and not bool(present_lanes.isel(index)):
            continue
        one = run.dataset.isel(index)
        names = [name for name in (*run.fields, "seed") if name in one.coords and run.dataset.coords[name].dims]
        yield run.lane(**{name: one.coords[name].item() for name in names if set(run.dataset[name].dims) <= set(dims)})


def _named(lanes: list[TrainedLane]) -> dict[str, TrainedLane]:
    """Lanes by folders that say their places in the sweep; numbers where those are no names or no different ones."""
    places = ["_".join(f"{name}={value}" for name, value in lane.point.items()) for lane in lanes]
    names = [place.replace("/", "-") for place in places]
    if len(set(names)) < len(names) or max(len(name.encode()) for name in names) > LONGEST_NAME:
        names = [f"lane-{number:04d}" for number in range(len(lanes))]
    return dict(zip(names, lanes, strict=True))


def _measured(run: Run, lane: TrainedLane) -> dict[str, Any]:
    """What the run measured of a lane, by the names that SAELens' metadata use."""
    import numpy as np

    dataset = run.dataset
    for name, value in lane.point.items():
        if name in dataset.coords and dataset.coords[name].dims:
            dataset = dataset.isel({dataset[name].dims[0]: np.flatnonzero(dataset[name].values == value)})
    dataset = dataset.isel({dim: 0 for dim in run.dims if dim in dataset.dims})
    notes = {}
    if "eval_l0" in dataset:
        notes["l0"] = float(dataset["eval_l0"])
    if "eval_explained_variance" in dataset:
        notes["explained_variance"] = float(dataset["eval_explained_variance"])
    if "eval_dead_fraction" in dataset:
        notes["num_dead_features"] = round(float(dataset["eval_dead_fraction"]) * lane.d_hidden)
    return notes
