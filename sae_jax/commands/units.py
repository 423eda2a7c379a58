"""Keep what a reader needs of every unit, and draw a page of them.

    python -m experiments.sweep --model topk --k 4 --d-hidden 64 --dataset digits --seeds 2 --steps 500 --name read
    python -m experiments.units runs/read
    python -m experiments.units runs/read --lane seed=0 --top 32 --quantiles 0 .5 .9

On held-out samples: how many samples a unit is active on, those of its largest activations and some at quantiles below,
the units of the nearest decoder rows, and the nearest unit of every other seed. The variables units_density,
units_top_sample and so on go into results.nc, in place of those of an earlier time, and the figure of the best lane's
units into figures/units.png. All lanes are looked at unless --lane or --best names one; the others then hold nothing.
"""

from __future__ import annotations

import dataclasses

from sae_jax.analysis.options import UnitsConfig
from sae_jax.commands.environment import call, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import RUN, Moved, load_run, moved, moved_files_named, run_folder
from sae_jax.commands.flags import checked_settings, options_of, read
from sae_jax.commands.lanes import AT, chosen_lane
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import TEXT, UserError, setting


@dataclasses.dataclass(frozen=True)
class Which:
    """Which lanes."""

    lane: tuple[str, ...] = setting(("",), TEXT, "place of one lane, such as rho=.05 seed=0; empty is all lanes")
    best: str = setting("", TEXT, "the measure that tells which one lane to look at; empty is all lanes")
    at: tuple[str, ...] = AT


def main(argv: list[str]) -> None:
    """Parse, look at units, save, draw, tell."""
    with one_line_errors():
        load_plugins(argv)
        groups = {"units": [RUN, *options_of(Which), *options_of(Moved)], "kept": options_of(UnitsConfig)}
        words = read(argv, call("units"), (__doc__ or "").partition("\n")[0], groups)
        folder = run_folder(words, "units")
        which, options = checked_settings(Which, words), checked_settings(UnitsConfig, words)
        where = checked_settings(Moved, words)
        _check(which)
        # Help need not wait for all that looks at units.
        from sae_jax.analysis.run import open as open_run
        from sae_jax.analysis.style import caption_of, drawing
        from sae_jax.analysis.summary import write_summary
        from sae_jax.analysis.tasks.report import print_task
        from sae_jax.analysis.unit_variables import SHOWN_IN_TABLES
        from sae_jax.analysis.units import measure, with_units
        from sae_jax.storage import results
        from sae_jax.storage.run_folder import check_finished, held
        from sae_jax.sweeps.keep import lanes_left_out
        from sae_jax.sweeps.reading import arranged

        set_up()
        end_in_order()
        before = moved(load_run(folder), where)
        check_finished(folder)
        one = any(which.lane) or bool(which.best)
        point = chosen_lane(open_run(before), which.lane, which.best, which.at).point if one else None
        with moved_files_named(where):
            measurement = measure(before, options, point)
        path = folder / "figures" / "units.png"
        with held(folder):
            # Another process may have added to them meanwhile.
            dataset = with_units(moved(load_run(folder), where), measurement.variables)
            with drawing():
                results.save_figure(measurement.figure, path)
            results.save_measures(dataset, folder)
            write_summary(dataset, folder)
        shown = [name for name in dataset.data_vars if name in (*SHOWN_IN_TABLES, "diverged_at")]
        print_task(dataset[shown].assign_attrs(dataset.attrs), "units")
        for line in [] if one else lanes_left_out(arranged(dataset)):
            print(f"warning: {line}")
        print(f"{caption_of(measurement.figure)}\nfiles:\n  {folder / results.RESULTS_FILE}\n  {path}")


def _check(which: Which) -> None:
    """Refuse flags that would be passed over beside others."""
    at, lane = " ".join(which.at), " ".join(which.lane)
    if at and not which.best:
        raise UserError(f"--at limits --best: got {at} without it; add --best eval_explained_variance, say")
    if lane and which.best:
        raise UserError(f"--lane and --best each name a lane: got {lane} beside {which.best}; leave one out")
