"""Encode samples with a lane of a finished run, and write the codes into a file.

    python -m experiments.sweep --dataset digits --rho .05 .1 --beta .1 --steps 2000 --name codes
    python -m experiments.encode runs/codes --lane rho=.05 seed=0 --out runs/codes.npz
    python -m experiments.encode runs/codes --best eval_reconstruction --dataset array:new.npy --out runs/new.npz

Samples are normalised as those that the run was trained on. The file holds the array codes [samples, units], in the
samples' own order, and labels where they carry some.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sae_jax.commands.environment import call, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import RUN, Moved, moved_files_named, run_folder
from sae_jax.commands.flags import checked_settings, options_of, read
from sae_jax.commands.lanes import AT, BEST, LANE, chosen_lane
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import TEXT, setting


@dataclasses.dataclass(frozen=True)
class EncodeConfig:
    """Which lane, of which samples."""

    lane: tuple[str, ...] = LANE
    best: str = BEST
    at: tuple[str, ...] = AT
    dataset: str = setting(
        "",
        TEXT,
        "samples: a source as of a sweep, such as array:FILE.npy; empty is that of the run, all of its samples",
    )
    data_dir: str = setting("", TEXT, "folder of prepared tensorflow-datasets; empty is that of the run")
    out: str = setting("codes.npz", TEXT, "the file of codes")


def main(argv: list[str]) -> None:
    """Parse, read, encode, write."""
    with one_line_errors():
        load_plugins(argv)
        words = read(
            argv, call("encode"), (__doc__ or "").partition("\n")[0], {"encode": [RUN, *options_of(EncodeConfig)]}
        )
        folder = run_folder(words, "encode")
        options = checked_settings(EncodeConfig, words)
        # Help need not wait for all that encodes.
        from sae_jax.analysis.encoding import encode_to_file
        from sae_jax.analysis.run import open as open_run
        from sae_jax.commands.environment import check_file

        set_up()
        end_in_order()
        check_file(Path(options.out), "--out")
        run = open_run(folder)
        lane = chosen_lane(run, options.lane, options.best, options.at)
        changed = {name: value for name in ("dataset", "data_dir") if (value := getattr(options, name))}
        with moved_files_named(Moved(options.dataset)):
            number = encode_to_file(lane, run.data_config(lane, **changed), Path(options.out))
        print(f"{lane!r}: {number} samples\nfiles:\n  {options.out}")
