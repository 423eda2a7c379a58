"""Codes of a whole data set, written piece by piece: they may be larger than memory."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np

from sae_jax import data as sources
from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.config import DataConfig
from sae_jax.storage.atomic import write_file, writing
from sae_jax.training.shapes import check_samples

CODES, LABELS = "codes", "labels"
ROWS_AT_ONCE = 4096


def encode_to_file(lane: TrainedLane, config: DataConfig, path: Path) -> int:
    """Encode all samples of a source, training and held-out ones alike, into a .npz file.

    Args:
        lane: what encodes them; its normalisation is applied, not one fitted on these samples.
        config: names the source; one that holds samples out itself gives them after the others. Targets are not read.
        path: of the file; it holds codes [samples, d_hidden] and, where samples carry them, labels [samples].

    Returns:
        The number of samples.

    Raises:
        UserError: the samples cannot be read, are of another width, or the file cannot be written.
    """
    every = sources.read(dataclasses.replace(config, targets="")).parts
    parts = [part.samples for part in every]
    labels = [part.labels for part in every if part.labels is not None]
    if len(labels) < len(every):  # Those of some samples alone would be taken for those of others.
        labels = []
    number = sum(map(len, parts))

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open(f"{CODES}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "<f4", "fortran_order": False, "shape": (number, lane.d_hidden)}
                np.lib.format.write_array_header_1_0(stream, header)
                for part in parts:
                    for start in range(0, len(part), ROWS_AT_ONCE):
                        stream.write(lane.encode(part[start : start + ROWS_AT_ONCE]).astype("<f4").tobytes())
            if labels:
                with archive.open(f"{LABELS}.npy", "w") as stream:
                    np.lib.format.write_array(stream, np.concatenate(labels), allow_pickle=False)

    for part in parts:  # What cannot be encoded is refused before a file is begun.
        check_samples(part if isinstance(part, np.ndarray) else part[:1], lane.params, lane.settings)
    with writing(path, "--out", "choose another"):
        write_file(path, write)
    return number
