"""Image sets of tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sae_jax.data.config import DataConfig
from sae_jax.data.samples import Data, finish
from sae_jax.settings import UserError

READ_BLOCK = 1000
TFDS_MODULE = "tensorflow_datasets."


class Split(NamedTuple):
    """Images [n, height, width] in [0, 1] and, where the set has them, class numbers [n]."""

    images: np.ndarray
    labels: np.ndarray | None

    def rows(self, which: slice) -> Split:
        """Some of the images with their labels."""
        return Split(self.images[which], None if self.labels is None else self.labels[which])


def load(name: str, config: DataConfig) -> Data:
    """Images of a tensorflow-datasets set as rows of grey values in [0, 1].

    The held-out part is the set's own test split; a set without one gives the last part of its training split.

    Args:
        name: the set's name, such as mnist.
        config: data_dir, samples and heldout are read.

    Raises:
        UserError: the set is unknown, is not prepared and cannot be, or holds no images.
    """
    if not name:
        raise UserError("dataset tfds needs a name: got 'tfds:'; use tfds:mnist")
    if not re.fullmatch(r"[A-Za-z]\w*(/[\w.-]*\w)?(:[0-9]+(\.[0-9]+){2})?", name, re.ASCII):
        # With other names the library looks elsewhere, also on the network.
        raise UserError(f"dataset tfds needs the name of a set: got {name!r}; use NAME, NAME/CONFIG or NAME:1.0.0")
    train, heldout = _read(name, config.data_dir, config.heldout)
    return finish(
        train.images.reshape(len(train.images), -1),
        heldout.images.reshape(len(heldout.images), -1),
        config,
        f"tensorflow-datasets {name}",
        normalize="none",
        image_shape=train.images.shape[1:],
        labels=None if train.labels is None or heldout.labels is None else (train.labels, heldout.labels),
    )


@functools.lru_cache(maxsize=2)
def _read(name: str, data_dir: str, fraction: float) -> tuple[Split, Split]:
    """Both splits; kept, because decoding 70,000 images takes as long as training on them."""
    where = f"--data-dir {data_dir}" if data_dir else "TFDS's default folder"
    options = f"'{name}', data_dir={data_dir or None!r}, file_format='array_record'"
    prepare = (
        'python -m pip install tensorflow && python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({options}).download_and_prepare()"'
    )
    with _quiet():
        import tensorflow_datasets as tfds

        folder = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / re.split("[/:]", name)[0]
        try:
            for file in folder.rglob("features.json"):
                _refuse_foreign(json.loads(file.read_text()))
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
    return UserError(
        f"tfds:{name} must be readable as array_record files in {where}: got {reason}; "
        f"to prepare it anew, move it away and run: {prepare}"
    )


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


def _images(builder: Any, split: str, name: str) -> Split:
    source = builder.as_data_source(split=split)
    if len(source) == 0:
        raise UserError(f"tfds:{name} must not be empty: got no images in its {split} split; use another set")
    first = np.asarray(source[0]["image"])
    if first.ndim != 3:
        raise UserError(
            f"tfds:{name} must hold images [height, width, channels]: got shape {list(first.shape)}; use another"
        )
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
            images[i] = pixels.mean(axis=-1) / 255.0
            if labels is not None:
                labels[i] = example["label"]
    return Split(images, labels)


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
