"""What sweep and train share: read the command, claim the run's folder, train, save, draw, tell; on every process."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jax import process_count

from sae_jax.analysis.report import print_table
from sae_jax.commands.cluster import devices_named, launch, words_after
from sae_jax.commands.environment import call, draw_usual, set_up
from sae_jax.commands.extending import check_single, completed, earlier_of, origin_of_run, record_of, version_lines
from sae_jax.commands.flags import Parsed, named_flags, without
from sae_jax.commands.plugin_flags import made_observers, names_of
from sae_jax.commands.report import check_run_page, write_run_page
from sae_jax.commands.resuming import begun_words, named_folder, recorded_words, resumed_words
from sae_jax.commands.run_config import RunConfig
from sae_jax.commands.run_log import RunLog, recorded
from sae_jax.commands.signals import Interrupts, interrupts_of
from sae_jax.data import DataConfig
from sae_jax.settings import UserError, as_json, flag, settings_of
from sae_jax.storage import plugin_list, results
from sae_jax.storage import record as records
from sae_jax.storage import run_folder as runs
from sae_jax.storage.arrays import Opener, in_folder, no_storage
from sae_jax.storage.provenance import LOG_FILE, PROVENANCE_FILE, read_sessions, session_of
from sae_jax.storage.states import STATE_FILE, save_states
from sae_jax.sweeps.devices import machine_description
from sae_jax.sweeps.footprint import footprint_of
from sae_jax.sweeps.keep import keep_parameters
from sae_jax.sweeps.lane_warnings import stopped_early, warnings_of
from sae_jax.sweeps.observers import Observer, Observers
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.processes import agree, gather, leads, started, together
from sae_jax.sweeps.recovery import Interrupted, Recovery, saving, summary, wait
from sae_jax.sweeps.study import Study, check_states_end, packed_as, packing, trained_lanes, unnamed
from sae_jax.sweeps.sweep import train
from sae_jax.sweeps.terminal import Terminal
from sae_jax.sweeps.trackers import Tracker, check_tracker
from sae_jax.sweeps.used_parts import used_by

Parse = Callable[[Sequence[str]], Parsed]
Record = Mapping[str, Any]
States = dict[str, np.ndarray] | None


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
    launch(argv, _devices(command, argv))
    set_up()
    words, parsed = together("read the command", lambda: _read_command(command, argv, parse))
    run = parsed[0]
    agree("read the command", "plug-ins", [[one.name, one.identity] for one in plugin_list.LOADED.values()])
    with contextlib.closing(Observers()) as observer:
        requested = together("read the command", lambda: made_observers(run.observers if leads() else ()))
        terminal, log = (Terminal(), RunLog()) if leads() else (None, None)
        for one in (terminal, log, *requested):
            if one:
                observer.add(one)
        # What is to be said at the end is said once the folder is free again.
        with contextlib.ExitStack() as stack:
            if terminal:
                stack.enter_context(terminal)
            study = together("load the data", lambda: _load_data(command, parsed, words, observer))
            content = _content(command, words, run, study)
            interrupts = stack.enter_context(interrupts_of("interrupted"))
            folder, before = together("claim the folder", lambda: _claim_folder(command, run, content, study, stack))
            together("claim the folder", lambda: _record(folder, command, words, content, log, stack))
            [sizes, *_] = gather("claim the folder", lambda: before and before["packing"])
            study = together("claim the folder", lambda: packed_as(study, sizes) if sizes else study)
            resume_command = (
                f"{call(command)} --resume {shlex.quote(str(folder))}{plugin_list.flags(content['plugins'])}"
            )
            resume_command += " with the --distributed flags of each process" if started() else ""
            if folder:
                interrupts.last_words = (
                    "interrupted before it could save; to resume from what was saved before, if anything: "
                    f"{resume_command}"
                )
            recovery, opened = together(
                "open the checkpoints", lambda: _open_checkpoints(folder, run, study, interrupts, observer, stack)
            )
            if folder and run.track != "none":
                observer.add(Tracker(run.track, folder, folder.name, _key(folder), observer.line))
            for line in [*_resumption(recovery, folder, before, content), *version_lines(run, content)]:
                observer.line(line)
            observer.line(f"plan: {footprint_of(study, run.keep, run.keep_state)}")
            states: States = {} if run.keep_state else None
            dataset = together(
                "train", lambda: _train(study, observer, opened, recovery, interrupts, resume_command, states)
            )
            trained = time.monotonic()
            files = together("write the results", lambda: _write_results(dataset, folder, run, study, opened, states))
        if terminal and log:
            print_table(terminal.console, dataset)
            log.table(dataset)
            times = f"trained in {trained - began:.0f} s, all done in {time.monotonic() - began:.0f} s; files:"
            for line in [*stopped_early(dataset), *warnings_of(dataset), times, *(f"  {path}" for path in files)]:
                observer.line(line)


def _devices(command: str, argv: Sequence[str]) -> int:
    """The devices that a command line asks for, as far as this process can see before it loads any plug-in."""
    resume, folders = words_after(argv, flag("resume")), words_after(argv, flag("runs"))
    if not resume:
        return devices_named(argv)
    with contextlib.suppress(UserError):  # It is refused later.
        run = RunConfig(resume=" ".join(resume))
        run = dataclasses.replace(run, runs=" ".join(folders)) if folders else run
        return devices_named(resumed_words(argv, begun_words(command, run)[0]))
    return 0


def _read_command(command: str, argv: Sequence[str], parse: Parse) -> tuple[Sequence[str], Parsed]:
    """The words of a command and what they say; those of the run that it resumes, where it does.

    Raises:
        UserError: they break a rule, or there is no such run to resume.
    """
    parsed = parse(argv)
    run = parsed[0]
    for name, kind in (("resume", "an unfinished run"), ("extend", "a finished run"), ("start_from", "a finished run")):
        if name in named_flags(argv) and not getattr(run, name):
            raise UserError(f"{name} must name {kind}: got ''; leave it out to begin a new one, or see --runs")
    if not run.resume:
        return argv, parsed
    if run.extend:
        raise UserError(f"extend must be left out beside resume: got {run.extend} and {run.resume}; use one of them")
    # Only the first process need see the run's folder.
    recorded = gather("read the command", lambda: recorded_words(command, run) if leads() else None)[0]
    words = resumed_words(argv, recorded)
    return words, parse(words)


def _load_data(command: str, parsed: Parsed, words: Sequence[str], observer: Observer) -> Study:
    """The sweep that a command line asks for, checked, with its data."""
    run = parsed[0]
    if run.track != "none" and leads():
        check_tracker(run.track)
    folder = named_folder(run)
    if leads() and folder:
        runs.check_claimable(folder)
    earlier, origin = earlier_of(run), origin_of_run(run)
    before = earlier or origin
    _, settings, seeds = completed(parsed, words, before.grid) if before else parsed
    if command == "train":
        check_single(settings, seeds)
    lanes: dict[str, Any] = {"earlier": earlier, "origin": origin, "keep_state": run.keep_state}
    study = prepare(DataConfig(), seeds=seeds, engine=run, observer=observer, **lanes, **settings)
    if run.keep_state:
        check_states_end(study)
    return study


def _claim_folder(
    command: str, run: RunConfig, content: Record, study: Study, stack: contextlib.ExitStack
) -> tuple[Path | None, Record | None]:
    """The run's folder, held until the stack is left, and its record where the run had begun before.

    Both are None on a process that does not write.
    """
    if not leads():
        return None, None
    # The same command resumes its unfinished run, also where the run's name was made of the time.
    folder = named_folder(run) or runs.find_unfinished(Path(run.runs), content, unnamed(study))
    named_by_time = Path(run.runs) / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = folder or stack.enter_context(runs.new_folder(named_by_time))
    if run.report:
        check_run_page(folder)
    return folder, stack.enter_context(runs.claim(folder, content, unnamed(study)))


def _record(
    folder: Path | None,
    command: str,
    words: Sequence[str],
    content: Record,
    log: RunLog | None,
    stack: contextlib.ExitStack,
) -> None:
    """Record in the run's folder, until the stack is left, that this process works on it."""
    if folder is None or log is None:
        return
    line = f"{call(command)} {shlex.join(words)}".rstrip()
    machine = content["versions"]["machine"]
    session = session_of(line, content["devices"], machine, process_count(), content["versions"])
    stack.enter_context(recorded(folder, session, log))


def _key(folder: Path) -> str:
    """By what a tracker knows a run again that is resumed, and tells it from the same command at another time."""
    return f"{runs.identity(folder)} {read_sessions(folder)[0].get('began')}"


def _content(command: str, words: Sequence[str], run: RunConfig, study: Study) -> Record:
    """What config.json says of a run."""
    engine = {name: value for name, value in as_json(run).items() if name in settings_of(Engine) and name != "devices"}
    return records.content_of(
        f"{call(command)} {shlex.join(without(words, [], ('resume',)))}".rstrip(),
        study.grid.as_json(),
        list(study.grid.dims),
        engine,
        study.devices,
        [point.data.summary for point in study.points],
        packing(study),
        machine_description(study.devices),
        plugins=used_by(study.grid, names_of(run.observers)),
        **record_of(run),
    )


def _open_checkpoints(
    folder: Path | None,
    run: RunConfig,
    study: Study,
    interrupts: Interrupts,
    observer: Observer,
    stack: contextlib.ExitStack,
) -> tuple[Recovery, Opener]:
    """What the run can go on from, and where the arrays of all lanes are held, both until the stack is left."""
    if folder is None:
        return stack.enter_context(saving(None, asked_to_end=interrupts.asked)), no_storage
    saved, known = folder / runs.UNFINISHED / runs.CHECKPOINTS, f"{runs.identity(folder)} {trained_lanes(study)}"
    recovery = stack.enter_context(saving(saved, known, run.checkpoint_every, interrupts.asked, observer.line))
    return recovery, stack.enter_context(in_folder(folder / runs.UNFINISHED / "arrays"))


def _resumption(recovery: Recovery, folder: Path | None, before: Record | None, content: Record) -> list[str]:
    """Lines about what a run is resumed from; none where it begins."""
    if before is None:
        return []
    warning = "warning: results are the same to the bit only with the same versions: got"
    changes = [f"{warning} {change}" for change in records.changed_versions(before, content)]
    return [f"resuming {folder}: {summary(recovery)}", *changes]


def _train(
    study: Study,
    observer: Observer,
    opened: Opener,
    recovery: Recovery,
    interrupts: Interrupts,
    resume_command: str,
    states: States,
) -> xr.Dataset:
    """Train what is left of a study, and have all of it on the disk."""
    try:
        dataset = train(study, observer, opened, recovery, states=states)
    except Interrupted as error:
        wait(recovery)
        error.number = interrupts.number
        error.line = f"interrupted; what was trained is saved; to resume: {resume_command}"
        raise
    wait(recovery)
    # What is left to do is done again in a moment, from what is saved.
    interrupts.patience = 0.0
    return dataset


def _write_results(
    dataset: xr.Dataset, folder: Path | None, run: RunConfig, study: Study, opened: Opener, states: States
) -> list[Path]:
    """Write the files of a run into its folder: their paths; none on a process that does not write."""
    if folder is None:
        return []
    if states is not None:
        save_states(states, folder)
    saved = keep_parameters(dataset, run.keep, opened)
    results.save(saved, folder)
    from sae_jax.analysis.summary import write_summary  # Training need not wait for it.

    written = [write_summary(dataset, folder)]
    written += draw_usual(dataset, folder / "figures") if run.figures else []
    written += [write_run_page(saved, folder, [point.data for point in study.points])] if run.report else []
    states_file = [STATE_FILE] if states is not None else []
    names = records.CONFIG_FILE, PROVENANCE_FILE, LOG_FILE, results.RESULTS_FILE, results.PARAMS_FILE, *states_file
    return [*(folder / name for name in names), *written]
