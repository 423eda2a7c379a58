"""Put every lane of a finished run to a task, add what it measures to the run's results, and draw it.

    python -m experiments.sweep --dataset digits --classes 0-8 --activation sigmoid --name digits
    python -m experiments.evaluate runs/digits --task probe
    python -m experiments.evaluate runs/digits --task anomaly
    python -m experiments.evaluate runs/digits --task denoising --noise .1 .2 .4

Tasks: probe (a softmax layer on the codes), anomaly (reconstruction error of left-out classes), denoising, inpainting,
retrieval (by similar codes) and stacked (further layers and fine-tuning). The variables go into results.nc, the figure
into figures/TASK.png. Seconds on small data; a probe of 36 lanes on MNIST takes minutes.
"""

from __future__ import annotations

import dataclasses

from sae_jax.analysis.options import TASKS, TaskConfig
from sae_jax.commands.environment import call, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.finished import RUN, Moved, load_run, moved, moved_files_named, run_folder
from sae_jax.commands.flags import checked_settings, options_from, options_of, read
from sae_jax.commands.plugin_flags import load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.settings import NON_NEGATIVE, one_of, setting, settings_of


@dataclasses.dataclass(frozen=True)
class Where:
    """On what it is to be done."""

    devices: int = setting(0, NON_NEGATIVE, "devices to spread lanes over; 0 is all, on a CPU one per core")


def main(argv: list[str]) -> None:
    """Parse, measure, save, draw, tell."""
    with one_line_errors():
        load_plugins(argv)
        Which = dataclasses.make_dataclass(
            "Which", [("task", str, setting("probe", one_of(TASKS), "what to put the lanes to"))], frozen=True
        )
        owners = {name: getattr(task, "Settings", TaskConfig) for name, task in TASKS.items()}
        fields = {name: field for owner in owners.values() for name, field in settings_of(owner).items()}
        of_task = [RUN, *options_of(Which), *options_of(Moved), *options_of(Where)]
        groups = {"task": of_task, "settings": options_from(fields)}
        words = read(argv, call("evaluate"), (__doc__ or "").partition("\n")[0], groups)
        folder = run_folder(words, "evaluate")
        # Help need not wait for all that measures.
        from sae_jax.analysis.style import drawing
        from sae_jax.analysis.summary import write_summary
        from sae_jax.analysis.tasks import measure, with_measurement
        from sae_jax.analysis.tasks.report import print_task
        from sae_jax.storage import results
        from sae_jax.storage.run_folder import check_finished, held
        from sae_jax.sweeps.keep import lanes_left_out
        from sae_jax.sweeps.reading import arranged

        set_up()
        end_in_order()
        task, where = checked_settings(Which, words).task, checked_settings(Moved, words)
        devices = checked_settings(Where, words).devices
        options = checked_settings(owners[task], words)
        before = moved(load_run(folder), where)
        check_finished(folder)
        with moved_files_named(where):
            measurement = measure(task, before, options, devices=devices)
        path = folder / "figures" / f"{task}.png"
        with held(folder):
            # Another process may have added to them meanwhile.
            dataset = with_measurement(moved(load_run(folder), where), measurement)
            with drawing():
                results.save_figure(measurement.figure, path)
            results.save_measures(dataset, folder)
            write_summary(dataset, folder)
        print_task(dataset, task)
        for line in lanes_left_out(arranged(dataset)):
            print(f"warning: {line}")
        print(f"files:\n  {folder / results.RESULTS_FILE}\n  {path}")
