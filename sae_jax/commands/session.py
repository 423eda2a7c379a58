"""What sweep and train share: claim the run's folder, train, save, draw, tell."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from sae_jax.analysis.report import print_table, warnings_of
from sae_jax.commands.cluster import Launch
from sae_jax.commands.environment import draw_to_files, set_up
from sae_jax.commands.flags import RunConfig, without
from sae_jax.commands.signals import heard
from sae_jax.commands.terminal import ConsoleReporter
from sae_jax.data import DataConfig
from sae_jax.settings import as_json, settings_of
from sae_jax.storage import record as records
from sae_jax.storage import results
from sae_jax.storage import run_folder as runs
from sae_jax.storage.arrays import in_folder, nowhere
from sae_jax.sweeps import processes as distributed
from sae_jax.sweeps.chunk import Reporter
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.processes import together
from sae_jax.sweeps.recovery import Checkpoints, Interrupted
from sae_jax.sweeps.sweep import Study, packed_as, packing, prepare, train

# What a command that goes on with a run may say anew.
OF_THE_PROCESS = ("resume", "name", "runs", *settings_of(Launch))

Parsed = tuple[RunConfig, Mapping[str, Any], int | Sequence[int]]


def run_study(command: str, argv: Sequence[str], parsed: Callable[[Sequence[str]], Parsed]) -> None:
    """Train, save and draw a sweep, from where it stood, and tell how it went.

    Args:
        command, argv: name of the module and its words, for the run's name and config.json.
        parsed: reads words: where the run goes, its settings (a tuple where several values), its seeds.

    Raises:
        UserError: a setting or the data break a rule, or the folder holds another run.
        Interrupted: the process was asked to end.
    """
    set_up()
    began = time.monotonic()
    argv, (run, settings, seeds) = _resolved(command, argv, parsed)
    folder = _resumed(run) if run.resume else Path(run.runs) / run.name if run.name else None

    def ready(reporter: Reporter) -> Study:
        if distributed.leads() and folder:
            runs.check_claimable(folder)
        return prepare(DataConfig(), "classic", seeds=seeds, engine=run, reporter=reporter, **settings)

    if not distributed.leads():
        follow(ready)
        return
    with ConsoleReporter() as reporter, contextlib.ExitStack() as stack:
        study = together(lambda: ready(reporter))
        content = _content(command, argv, run, study)
        # The same command goes on where it stood, also where the run's name was made of the time.
        folder = folder or runs.find_unfinished(Path(run.runs), content)
        folder = folder or Path(run.runs) / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
        dataset, trained = _trained(command, folder, run, study, content, reporter, stack)
        results.save(dataset, folder)
        draw_to_files()
        from sae_jax.analysis import figures as plotting

        pictures = plotting.save_all(dataset, folder / "figures")
    print_table(reporter.console, dataset)
    for line in warnings_of(dataset):
        reporter.line(line)
    reporter.line(f"trained in {trained - began:.0f} s, all done in {time.monotonic() - began:.0f} s; files:")
    for path in [folder / name for name in (records.CONFIG_FILE, results.RESULTS_FILE, results.PARAMS_FILE)] + pictures:
        reporter.line(f"  {path}")


def _trained(
    command: str,
    folder: Path,
    run: RunConfig,
    study: Study,
    content: Mapping[str, Any],
    reporter: Reporter,
    stack: contextlib.ExitStack,
) -> tuple[xr.Dataset, float]:
    """Hold a run's folder until the stack is left, and train what is left of the study: its lanes, and the time."""
    before = together(lambda: stack.enter_context(runs.claim(folder, content)))
    distributed.told(json.dumps(before and before["packing"]))
    go_on = f"python -m experiments.{command} --resume {shlex.quote(str(folder))}"
    go_on += " with the --distributed flags of each process" if distributed.started() else ""
    last_words = f"interrupted before it could save; to go on from what was saved before, if anything: {go_on}"
    interrupts, unfinished = stack.enter_context(heard(last_words)), folder / runs.UNFINISHED

    def looked() -> Checkpoints:
        kept, known = unfinished / runs.CHECKPOINTS, runs.identity(folder)
        return Checkpoints(kept, known, run.checkpoint_every, interrupts.asked, reporter.line)

    checkpoints = stack.enter_context(together(looked))
    if before:
        reporter.line(f"going on with {folder}: {checkpoints.standing}")
        for change in records.changed_versions(before, content):
            reporter.line(f"warning: results are the same to the bit only with the same versions: got {change}")
        study = together(lambda: packed_as(study, before["packing"]))
    opened = stack.enter_context(in_folder(unfinished / "arrays"))
    try:
        dataset = train(study, reporter, opened, checkpoints)
    except Interrupted as error:
        checkpoints.wait()
        error.number, error.line = interrupts.number, f"interrupted; what was trained is saved; to go on: {go_on}"
        raise
    checkpoints.wait()
    # What is left to do is done again in a moment, from what is kept.
    interrupts.patience = 0.0
    return dataset, time.monotonic()


def follow(ready: Callable[[Reporter], Study]) -> None:
    """Train with the first process, which alone prints and writes."""
    quiet = Reporter()
    study = together(lambda: ready(quiet))
    together(lambda: None)  # The first process claims the folder.
    sizes = json.loads(distributed.told(""))
    with heard("interrupted") as interrupts:
        checkpoints = together(lambda: Checkpoints(None, asked_to_end=interrupts.asked))
        try:
            train(together(lambda: packed_as(study, sizes)) if sizes else study, quiet, nowhere, checkpoints)
        except Interrupted as error:
            error.number = interrupts.number
            raise


def _resolved(
    command: str, argv: Sequence[str], parsed: Callable[[Sequence[str]], Parsed]
) -> tuple[Sequence[str], Parsed]:
    """The words of a command and what they say; those of the run that it goes on with, where it does."""
    said = together(lambda: parsed(argv))
    if not said[0].resume:
        return argv, said

    def begun() -> list[str]:
        folder = _resumed(said[0])
        return records.words_of(runs.recorded(folder), f"experiments.{command}") if distributed.leads() else []

    before = together(begun)
    kept = without(json.loads(distributed.told(json.dumps(before))), argv, OF_THE_PROCESS)
    return [*kept, *argv], together(lambda: parsed([*kept, *argv]))


def _content(command: str, argv: Sequence[str], run: RunConfig, study: Study) -> dict[str, Any]:
    """What config.json says of a run."""
    engine = {name: value for name, value in as_json(run).items() if name in settings_of(Engine) and name != "devices"}
    return records.content_of(
        f"python -m experiments.{command} {shlex.join(without(argv, [], ('resume',)))}".rstrip(),
        study.grid.as_json(),
        list(study.grid.axes),
        engine,
        study.devices,
        [program.data.summary for program in study.programs],
        packing(study),
    )


def _resumed(run: RunConfig) -> Path:
    """The folder that `--resume` names, by its path or by its name in the folder of all runs."""
    path, named = Path(run.resume), Path(run.runs) / run.resume
    # What else has that name here is not meant where a run has it.
    return named if runs.is_unfinished(named) and not runs.is_unfinished(path) else path
