"""Write the rows of a data set as a folder of shards.

    python -m experiments.activations --dataset layer:hed/conv3_3 --out runs/conv3_3 --shards 4 --dtype float16
    python -m experiments.activations --dataset digits --out runs/digits-rows

DIR/00000.safetensors, ... hold one array [rows, width] each, called activations: the rows as the source reads them,
neither normalised nor split at random. DIR/names.txt has a line for each row, in the order of the shards, and
DIR/labels.npy a class number, where the source has them. What the source itself holds out is in DIR/heldout, in the
same form. The folder appears in one move, once it is complete.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sae_jax.commands.environment import call, check_new_folder, set_up
from sae_jax.commands.errors import one_line_errors
from sae_jax.commands.flags import checked_settings, named_flags, options_from, options_of, read
from sae_jax.commands.plugin_flags import data_fields, load_plugins
from sae_jax.commands.signals import end_in_order
from sae_jax.data.config import DataConfig
from sae_jax.settings import TEXT, Range, UserError, flag, one_of, setting, settings_of, unread

# What becomes of rows once they are read.
OF_TRAINING = ("classes", "normalize", "subtract_mean", "targets")
# As many as names of five digits tell apart.
MOST_SHARDS = 100_000


@dataclasses.dataclass(frozen=True)
class ActivationsConfig:
    """Where rows are written to, and how."""

    out: str = setting("activations", TEXT, "the folder that is written to; a new or an empty one")
    shards: int = setting(1, Range(low=1, high=MOST_SHARDS), "files that the rows are spread over, in their order")
    dtype: str = setting("float32", one_of(("float32", "float16", "bfloat16")), "precision of the numbers written")


def main(argv: list[str]) -> None:
    """Parse, read, write."""
    with one_line_errors():
        load_plugins(argv)
        of_data = {name: field for name, field in data_fields().items() if name not in OF_TRAINING}
        groups = {"activations": options_of(ActivationsConfig), "data": options_from(of_data)}
        words = read(argv, call("activations"), (__doc__ or "").partition("\n")[0], groups)
        options, config = checked_settings(ActivationsConfig, words), _config(words, named_flags(argv))
        out = Path(options.out)
        check_new_folder(out, "--out")
        # Help need not wait for all that reads.
        from sae_jax.data import read as read_rows
        from sae_jax.data.writing import HELDOUT, write_rows

        set_up()
        end_in_order()
        rows = read_rows(config)
        if rows.every:
            raise UserError(f"rows must not be shards already: got {config.dataset}; copy the folder")
        if rows.heldout is None:
            _refuse(("heldout", "data_seed"), named_flags(argv), config)
        first = slice(config.samples or None)
        rows = rows._replace(
            samples=rows.samples[first],
            names=None if rows.names is None else rows.names[first],
            labels=None if rows.labels is None else rows.labels[first],
        )
        write_rows(rows, out, options.shards, options.dtype, "--out")
        print(f"{rows.name}: rows of {rows.samples.shape[1]} in {options.dtype}")
        print(f"files:\n  {out}: {len(rows.samples)} rows")
        if rows.heldout is not None:
            print(f"  {out / HELDOUT}: {len(rows.heldout)} rows")


def _config(words: Mapping[str, tuple[str, ...]], named: Sequence[str]) -> DataConfig:
    """The settings of the data.

    Raises:
        UserError: one is out of range, or is given and the source does not read it.
    """
    defaults = {name: (str(settings_of(DataConfig)[name].default),) for name in OF_TRAINING}
    config: DataConfig = checked_settings(DataConfig, {**words, **defaults})
    _refuse(unread(DataConfig.UNREAD, {"dataset": config.dataset}), named, config)
    return config


def _refuse(ignored: Iterable[str], named: Sequence[str], config: DataConfig) -> None:
    """Refuse flags that were given and have no effect on the rows of a source."""
    for name in ignored:
        if name in named:
            raise UserError(f"{flag(name)} must have an effect: got it beside --dataset {config.dataset}; leave it out")
