"""What sweep and train share: read the command, claim the run's folder, train, save, draw, tell; on every process."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from sae_jax.analysis.report import print_table, warnings_of
from sae_jax.commands.cluster import Launch, launch
from sae_jax.commands.environment import call, draw_to_files, set_up
from sae_jax.commands.flags import RunConfig, without
from sae_jax.commands.signals import Interrupts, interrupts_of
from sae_jax.commands.terminal import Terminal
from sae_jax.data import DataConfig
from sae_jax.settings import UserError, as_json, settings_of
from sae_jax.storage import record as records
from sae_jax.storage import results
from sae_jax.storage import run_folder as runs
from sae_jax.storage.arrays import Opener, in_folder, no_storage
from sae_jax.sweeps.devices import machine_description
from sae_jax.sweeps.observers import Observer, Observers
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.processes import gather, leads, started, together
from sae_jax.sweeps.recovery import Interrupted, Recovery
from sae_jax.sweeps.sweep import Study, packed_as, packing, prepare, train

# Flags that a command that resumes a run may change.
OF_THE_PROCESS = ("resume", "name", "runs", *settings_of(Launch))

Parsed = tuple[RunConfig, Mapping[str, Any], int | Sequence[int]]
Parse = Callable[[Sequence[str]], Parsed]
Record = Mapping[str, Any]


def run_study(command: str, argv: Sequence[str], parse: Parse) -> None:
    """Train, save and draw a sweep, from where it stood, and tell how it went.

    Every process goes through the same phases, those of `processes.Phase`; the first one alone prints and writes.

    Args:
        command, argv: name of the module and its words, for the run's name and config.json.
        parse: reads words: where the run goes, its settings (a tuple where several values), its seeds.

    Raises:
        UserError: a setting or the data break a rule, or the folder holds another run.
        Interrupted: the process was asked to end.
    """
    began = time.monotonic()
    launch(argv, lambda: _devices(command, argv, parse))
    set_up()
    words, parsed = together("read the command", lambda: _read_command(command, argv, parse))
    run = parsed[0]
    with contextlib.ExitStack() as stack:
        terminal = stack.enter_context(Terminal()) if leads() else None
        observer = Observers([terminal] if terminal else [])
        study = together("load the data", lambda: _load_data(parsed, observer))
        content = _content(command, words, run, study)
        folder, before = together("claim the folder", lambda: _claim_folder(command, run, content, stack))
        [sizes, *_] = gather("claim the folder", lambda: before and before["packing"])
        study = together("claim the folder", lambda: packed_as(study, sizes) if sizes else study)
        resume_command = f"{call(command)} --resume {shlex.quote(str(folder))}"
        resume_command += " with the --distributed flags of each process" if started() else ""
        last_words = (
            f"interrupted before it could save; to resume from what was saved before, if anything: {resume_command}"
        )
        interrupts = stack.enter_context(interrupts_of(last_words if folder else "interrupted"))
        recovery, opened = together(
            "open the checkpoints", lambda: _open_checkpoints(folder, run, interrupts, observer, stack)
        )
        for line in _resumption(recovery, folder, before, content):
            observer.line(line)
        dataset = together("train", lambda: _train(study, observer, opened, recovery, interrupts, resume_command))
        trained = time.monotonic()
        files = together("write the results", lambda: _write_results(dataset, folder))
    if terminal:
        print_table(terminal.console, dataset)
        times = f"trained in {trained - began:.0f} s, all done in {time.monotonic() - began:.0f} s; files:"
        for line in [*warnings_of(dataset), times, *(f"  {path}" for path in files)]:
            observer.line(line)


def _devices(command: str, argv: Sequence[str], parse: Parse) -> int:
    """The devices that a command line asks for, as far as this process can see; what is wrong with it is said later."""
    with contextlib.suppress(UserError):
        [run, *_] = parse(argv)
        return parse(_resumed_words(argv, _recorded_words(command, run)))[0].devices if run.resume else run.devices
    return 0


def _read_command(command: str, argv: Sequence[str], parse: Parse) -> tuple[Sequence[str], Parsed]:
    """The words of a command and what they say; those of the run that it resumes, where it does."""
    parsed = parse(argv)
    if not parsed[0].resume:
        return argv, parsed
    # Only the first process need see the run's folder.
    recorded = gather("read the command", lambda: _recorded_words(command, parsed[0]) if leads() else None)[0]
    words = _resumed_words(argv, recorded)
    return words, parse(words)


def _recorded_words(command: str, run: RunConfig) -> list[str]:
    """The words of the command that began the run to resume."""
    return records.arguments_of(runs.unfinished_record(_resumed_folder(run)), call(command))


def _resumed_words(argv: Sequence[str], recorded: Sequence[str]) -> list[str]:
    """The words of the command that began a run, then those of the one that resumes it."""
    return [*without(recorded, argv, OF_THE_PROCESS), *argv]


def _resumed_folder(run: RunConfig) -> Path:
    """The folder that `--resume` names, by its path or by its name in the folder of all runs."""
    path, named = Path(run.resume), Path(run.runs) / run.resume
    # What else has that name here is not meant where a run has it.
    return named if runs.is_unfinished(named) and not runs.is_unfinished(path) else path


def _named_folder(run: RunConfig) -> Path | None:
    """The run's folder, where the command line names it."""
    return _resumed_folder(run) if run.resume else Path(run.runs) / run.name if run.name else None


def _load_data(parsed: Parsed, observer: Observer) -> Study:
    """The sweep that a command line asks for, checked, with its data."""
    run, settings, seeds = parsed
    folder = _named_folder(run)
    if leads() and folder:
        runs.check_claimable(folder)
    return prepare(DataConfig(), seeds=seeds, engine=run, observer=observer, **settings)


def _claim_folder(
    command: str, run: RunConfig, content: Record, stack: contextlib.ExitStack
) -> tuple[Path | None, Record | None]:
    """The run's folder, held until the stack is left, and its record where the run had begun before.

    Both are None on a process that does not write.
    """
    if not leads():
        return None, None
    # The same command resumes its unfinished run, also where the run's name was made of the time.
    folder = _named_folder(run) or runs.find_unfinished(Path(run.runs), content)
    folder = folder or Path(run.runs) / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
    return folder, stack.enter_context(runs.claim(folder, content))


def _content(command: str, words: Sequence[str], run: RunConfig, study: Study) -> Record:
    """What config.json says of a run."""
    engine = {name: value for name, value in as_json(run).items() if name in settings_of(Engine) and name != "devices"}
    return records.content_of(
        f"{call(command)} {shlex.join(without(words, [], ('resume',)))}".rstrip(),
        study.grid.as_json(),
        list(study.grid.axes),
        engine,
        study.devices,
        [program.data.summary for program in study.programs],
        packing(study),
        machine_description(study.devices),
    )


def _open_checkpoints(
    folder: Path | None, run: RunConfig, interrupts: Interrupts, observer: Observer, stack: contextlib.ExitStack
) -> tuple[Recovery, Opener]:
    """What the run can go on from, and where the arrays of all lanes are held, both until the stack is left."""
    if folder is None:
        return stack.enter_context(Recovery(None, asked_to_end=interrupts.asked)), no_storage
    saved, known = folder / runs.UNFINISHED / runs.CHECKPOINTS, runs.identity(folder)
    recovery = Recovery(saved, known, run.checkpoint_every, interrupts.asked, observer.line)
    return stack.enter_context(recovery), stack.enter_context(in_folder(folder / runs.UNFINISHED / "arrays"))


def _resumption(recovery: Recovery, folder: Path | None, before: Record | None, content: Record) -> list[str]:
    """Lines about what a run is resumed from; none where it begins."""
    if before is None:
        return []
    warning = "warning: results are the same to the bit only with the same versions: got"
    changes = [f"{warning} {change}" for change in records.changed_versions(before, content)]
    return [f"resuming {folder}: {recovery.summary()}", *changes]


def _train(
    study: Study, observer: Observer, opened: Opener, recovery: Recovery, interrupts: Interrupts, resume_command: str
) -> xr.Dataset:
    """Train what is left of a study, and have all of it on the disk."""
    try:
        dataset = train(study, observer, opened, recovery)
    except Interrupted as error:
        recovery.wait()
        error.number, error.line = (
            interrupts.number,
            f"interrupted; what was trained is saved; to resume: {resume_command}",
        )
        raise
    recovery.wait()
    # What is left to do is done again in a moment, from what is saved.
    interrupts.patience = 0.0
    return dataset


def _write_results(dataset: xr.Dataset, folder: Path | None) -> list[Path]:
    """Write the files of a run into its folder: their paths; none on a process that does not write."""
    if folder is None:
        return []
    results.save(dataset, folder)
    draw_to_files()
    from sae_jax.analysis import figures  # Training need not wait for it.

    pictures = figures.save_all(dataset, folder / "figures")
    return [folder / name for name in (records.CONFIG_FILE, results.RESULTS_FILE, results.PARAMS_FILE)] + pictures
