"""Image sets of tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sae_jax.data.checks import check_fits
from sae_jax.data.config import DataConfig, shown
from sae_jax.data.room import SINGLE_BYTES
from sae_jax.data.rows import Rows
from sae_jax.settings import UserError
from sae_jax.storage.atomic import check_regular, mend_unread, read_file

READ_BLOCK = 1000
# Sets that people ask for by their names alone.
WELL_KNOWN = ("mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100", "svhn_cropped")
TFDS_MODULE = "tensorflow_datasets."
# Images of so many channels have alpha as their last one.
WITH_ALPHA = (2, 4)


class Split(NamedTuple):
    """Images [n, height, width] in [0, 1] and, where the set has them, class numbers [n]."""

    images: np.ndarray
    labels: np.ndarray | None

    def rows(self, which: slice) -> Split:
        """Some of the images with their labels."""
        return Split(self.images[which], None if self.labels is None else self.labels[which])


def read(name: str, config: DataConfig) -> Rows:
    """Images of a tensorflow-datasets set as rows of grey values in [0, 1].

    The held-out part is the set's own test split; a set without one gives the last part of its training split.

    Args:
        name: the set's name, such as mnist.
        config: data_dir and heldout are read.

    Raises:
        UserError: the set is unknown, is not prepared and cannot be, or holds no images.
    """
    if not name:
        raise UserError("dataset tfds needs a name: got 'tfds:'; use tfds:mnist")
    if not re.fullmatch(r"[A-Za-z]\w*(/[\w.-]*\w)?(:[0-9]+(\.[0-9]+){2})?", name, re.ASCII):
        # With other names the library looks elsewhere, also on the network.
        raise UserError(f"dataset tfds needs the name of a set: got {name!r}; use NAME, NAME/CONFIG or NAME:1.0.0")
    train, heldout = _read(name, config.data_dir, config.heldout)
    return Rows(
        train.images.reshape(len(train.images), -1),
        f"tensorflow-datasets {name}",
        heldout=heldout.images.reshape(len(heldout.images), -1),
        labels=None if heldout.labels is None else train.labels,
        heldout_labels=None if train.labels is None else heldout.labels,
        image_shape=train.images.shape[1:],
    )


@functools.lru_cache(maxsize=2)
def _read(name: str, data_dir: str, fraction: float) -> tuple[Split, Split]:
    """Both splits; kept, because decoding 70,000 images takes as long as training on them."""
    where = f"--data-dir {shown(data_dir)}" if data_dir else "TFDS's default folder"
    options = f"'{name}', data_dir={data_dir or None!r}, file_format='array_record'"
    prepare = (
        'python -m pip install tensorflow && python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({options}).download_and_prepare()"'
    )
    with _quiet():
        import tensorflow_datasets as tfds

        # The home of a user whom nobody knows is taken for a folder's name, which is said not to hold it.
        folder = Path(os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR)) / re.split("[/:]", name)[0]
        try:
            _check_folder(folder)
            builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
            prepared = builder.data_path.exists()
        except tfds.core.DatasetNotFoundError:
            raise UserError(
                f"tfds:{name} must be a set that tensorflow-datasets knows, or one prepared in {where}: "
                "see https://www.tensorflow.org/datasets for the names"
            ) from None
        except ModuleNotFoundError:
            prepared = False
        except Exception as error:  # A folder that is no such set fails in as many ways as there are file formats.
            raise _unreadable(name, where, error, prepare) from None
        if not prepared:
            raise UserError(
                f"tfds:{name} must be prepared: it is not in {where}, and preparing it needs TensorFlow and a network; "
                f"pass --data-dir to a folder that holds it, or run: {prepare}"
            )
        try:
            return _splits(builder, name, fraction)
        except UserError:
            raise
        except Exception as error:  # So does a set whose files are cut short.
            raise _unreadable(name, where, error, prepare) from None


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is not to be read, or cannot be: the library takes what is closed to it for absent.

    Raises:
        OSError: something in it is no regular file, or closed to this user.
        ValueError: see `_refuse_foreign`.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        for path in [Path(parent, name) for name in names]:
            check_regular(path)
            if path.name == "features.json":
                _refuse_foreign(json.loads(read_file(path)))
            with contextlib.suppress(FileNotFoundError), path.open("rb"):  # A link may lead nowhere.
                pass


def _refuse_foreign(content: Any) -> None:
    """Refuse a features.json, as parsed, that names classes of another package: the library would import it."""
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    for part in parts:
        _refuse_foreign(part)
    name = content.get("pythonClassName", TFDS_MODULE) if isinstance(content, dict) else TFDS_MODULE
    if not str(name).startswith(TFDS_MODULE):
        raise ValueError(f"features.json names {name}, which is none of tensorflow-datasets' own")


def _unreadable(name: str, where: str, error: Exception, prepare: str) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    fix = mend_unread(error, f"to prepare it anew, move it away and run: {prepare}")
    return UserError(f"tfds:{name} must be readable as array_record files in {where}: got {reason}; {fix}")


def _splits(builder: Any, name: str, fraction: float) -> tuple[Split, Split]:
    features, splits = dict(builder.info.features or {}), sorted(builder.info.splits)
    if "image" not in features:
        raise UserError(f"tfds:{name} must have an image feature: got {', '.join(features)}; use a set of images")
    if "train" not in splits:
        raise UserError(f"tfds:{name} must have a train split: got {', '.join(splits)}; use another set")
    train = _images(builder, "train", name)
    if "test" in splits:
        return train, _images(builder, "test", name)
    count = len(train.images)
    if count < 2:
        raise UserError(
            f"tfds:{name} must hold at least 2 images, to train on one and hold one out: got {count}; use another"
        )
    trained = count - max(1, round(fraction * count))
    return train.rows(slice(trained)), train.rows(slice(trained, None))


def _check_files(builder: Any, split: str) -> None:
    """Refuse a split whose files are not those that its metadata name: what they do not name would not be read."""
    from array_record.python.array_record_module import ArrayRecordReader

    info = builder.info.splits[split]
    files = {file.name for file in Path(builder.data_path).glob(f"{builder.name}-{split}.array_record*")}
    if files != set(info.filenames):
        raise ValueError(f"{len(files)} files of its {split} split where dataset_info.json names {len(info.filenames)}")
    for file, number in zip(info.filepaths, info.shard_lengths, strict=True):
        reader = ArrayRecordReader(str(file))
        records = reader.num_records()
        reader.close()
        if records != number:
            raise ValueError(f"{records} images in {Path(file).name} where dataset_info.json names {number}")


def _images(builder: Any, split: str, name: str) -> Split:
    _check_files(builder, split)
    source = builder.as_data_source(split=split)
    if len(source) == 0:
        raise UserError(f"tfds:{name} must not be empty: got no images in its {split} split; use another set")
    first = np.asarray(source[0]["image"])
    if first.ndim != 3:
        raise UserError(
            f"tfds:{name} must hold images [height, width, channels]: got shape {list(first.shape)}; use another"
        )
    # Beside them lie the rows that are made of them.
    check_fits(len(source), 2 * SINGLE_BYTES * len(source) * math.prod(first.shape[:2]))
    images = np.empty((len(source), *first.shape[:2]), np.float32)
    labelled = np.asarray(source[0].get("label")).dtype.kind in "iu"
    labels = np.zeros(len(source), np.int64) if labelled else None
    # Reading records one by one takes three times as long as reading them in blocks.
    for start in range(0, len(source), READ_BLOCK):
        rows = range(start, min(start + READ_BLOCK, len(source)))
        for i, example in zip(rows, source.__getitems__(list(rows)), strict=True):
            pixels = np.asarray(example["image"])
            if pixels.shape != first.shape:
                raise UserError(
                    f"tfds:{name} must hold images of one size: got {list(pixels.shape)} after {list(first.shape)}; "
                    "use another set"
                )
            images[i] = _grey(pixels, name)
            if labels is not None:
                labels[i] = example["label"]
    return Split(images, labels)


def _grey(pixels: np.ndarray, name: str) -> np.ndarray:
    """The mean of an image's colours, in [0, 1]; alpha is none of them, and must be opaque."""
    largest = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    if pixels.shape[-1] in WITH_ALPHA:
        clear = int(np.sum(pixels[..., -1] != largest))
        if clear:
            raise UserError(
                f"tfds:{name} must hold opaque images: got {clear} transparent pixels in one; put them on a background"
            )
        pixels = pixels[..., :-1]
    return pixels.mean(axis=-1) / largest


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TFDS's advice about libraries that it can do without off the terminal."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
