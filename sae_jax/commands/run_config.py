"""Settings of a run that are none of what it trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sae_jax.settings import NON_NEGATIVE, TEXT, TRUE_OR_FALSE, Range, UserError, one_of, setting
from sae_jax.storage.record import KEEP
from sae_jax.sweeps.plan import Engine
from sae_jax.sweeps.trackers import PACKAGES


@dataclasses.dataclass(frozen=True)
class RunConfig(Engine):
    """Where a run's files go and what it runs on."""

    name: str = setting("", TEXT, "name of the run; empty is that of an unfinished run alike, or the command and time")
    runs: str = setting("runs", TEXT, "folder of all runs")
    extend: str = setting("", TEXT, "a finished run, by folder or name, whose lanes a larger grid need not train again")
    start_from: str = setting(
        "", TEXT, "a finished run, or a SAELens folder, whose lanes are trained on; what is not given is as it was"
    )
    keep_state: bool = setting(False, Range(), "keep what lanes carry, so that --start-from goes on with the optimizer")
    resume: str = setting("", TEXT, "an unfinished run to resume: its folder, or its name among all runs")
    checkpoint_every: float = setting(60.0, NON_NEGATIVE, "time between checkpoints", "s")
    keep: str = setting(
        "all",
        one_of(KEEP),
        "whose parameters the files keep: those of all lanes, of the seed of the lowest eval_reconstruction of every "
        "cell, or none",
    )
    figures: bool = setting(True, TRUE_OR_FALSE, "draw the usual figures at the end; the command draw does it later")
    observers: tuple[str, ...] = setting(
        ("",), TEXT, "who of plug-ins watches the training, by name, or NAME:SETTING=VALUE,..."
    )
    report: bool = setting(
        True, TRUE_OR_FALSE, "write the page report.html at the end; the command report does it later"
    )
    track: str = setting("none", one_of(("none", *PACKAGES)), "tracker of experiments to which lanes' curves are sent")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name and self.resume:
            raise UserError(f"name must be left out beside resume: got {self.name} and {self.resume}; use one of them")
        if self.extend and (self.start_from or self.keep_state):
            other = f"start_from, {self.start_from}" if self.start_from else "keep_state"
            raise UserError(
                f"extend must be left out beside start_from and keep_state: got it beside {other}; train the other "
                "lanes alone, and merge"
            )
        if self.name and (self.name == ".." or self.name != Path(self.name).name):
            raise UserError(
                f"name must be that of a folder inside --runs: got {self.name}; leave out what is before the last /, "
                "or pass it to --runs"
            )
