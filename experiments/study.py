"""What sweep and train share: claim the run's folder, train, save, draw, tell."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import RunConfig
from experiments.console import ConsoleReporter, print_table, warnings_of
from experiments.process import set_up
from sae_jax import Config, DataConfig, distributed, results
from sae_jax.arrays import in_folder, nowhere
from sae_jax.chunks import Reporter
from sae_jax.labelled import settings_json
from sae_jax.settings import as_json
from sae_jax.sweeps import Study, prepare, train


def run_study(
    command: str, argv: Sequence[str], run: RunConfig, settings: Mapping[str, Any], seeds: int | Sequence[int]
) -> None:
    """Train, save and draw a sweep, and tell how it went.

    Args:
        command, argv: name of the module and its words, for the run's name and config.json.
        run: where files go and what to run on.
        settings: values of the sweep's settings, a tuple where several.
        seeds: number of seeds, or the seeds.

    Raises:
        UserError: a setting or the data break a rule, or the folder holds another run.
    """
    set_up()
    began = time.monotonic()
    folder = Path(run.runs) / (run.name or f"{command}-{time.strftime('%Y%m%d-%H%M%S')}")
    leads = distributed.leads()

    def ready(reporter: Reporter) -> Study:
        if leads:
            results.check_free(folder)
        return prepare(Config(), DataConfig(), seeds=seeds, engine=run, reporter=reporter, **settings)

    if not leads:
        follow(ready)
        return
    with ConsoleReporter() as reporter, contextlib.ExitStack() as stack:
        study = distributed.together(lambda: ready(reporter))
        words = f"python -m experiments.{command} {shlex.join(argv)}".rstrip()
        claim = results.claim(folder, settings_json(study.grid), words, as_json(run))
        distributed.together(lambda: stack.enter_context(claim))
        dataset = train(study, reporter, stack.enter_context(in_folder(folder / "unfinished")))
        trained = time.monotonic()
        results.save(dataset, folder)
        from sae_jax import plotting  # Training need not wait for pyplot.

        pictures = plotting.save_all(dataset, folder / "figures")
    print_table(reporter.console, dataset)
    for line in warnings_of(dataset):
        reporter.line(line)
    reporter.line(f"trained in {trained - began:.0f} s, all done in {time.monotonic() - began:.0f} s; files:")
    for path in [folder / name for name in (results.CONFIG_FILE, results.RESULTS_FILE, results.PARAMS_FILE)] + pictures:
        reporter.line(f"  {path}")


def follow(ready: Callable[[Reporter], Study]) -> None:
    """Train with the first process, which alone prints and writes."""
    quiet = Reporter()
    study = distributed.together(lambda: ready(quiet))
    distributed.together(lambda: None)  # The first process claims the folder.
    train(study, quiet, nowhere)
