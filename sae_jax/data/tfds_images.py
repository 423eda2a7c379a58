"""Image sets of tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from sae_jax.config import DataConfig
from sae_jax.data.base import Data, finish
from sae_jax.settings import UserError

READ_BLOCK = 1000


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
    with _quiet():
        builder = _builder(name, config.data_dir)
        features, splits = dict(builder.info.features or {}), sorted(builder.info.splits)
        if "image" not in features:
            raise UserError(f"tfds:{name} must have an image feature: it has {', '.join(features)}")
        if "train" not in splits:
            raise UserError(f"tfds:{name} must have a train split: it has {', '.join(splits)}")
        train = _images(builder, "train", name)
        if "test" in splits:
            heldout = _images(builder, "test", name)
        else:
            held = max(1, round(config.heldout * len(train)))
            train, heldout = train[:-held], train[-held:]
    shape = (train.shape[1], train.shape[2])
    return finish(
        train.reshape(len(train), -1),
        heldout.reshape(len(heldout), -1),
        config,
        f"tensorflow-datasets {name}",
        normalize="none",
        image_shape=shape,
    )


def _builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    where = f"--data-dir {data_dir}" if data_dir else "TFDS's default folder"
    options = f"'{name}', data_dir={data_dir or None!r}, file_format='array_record'"
    prepare = (
        'python -m pip install tensorflow && python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({options}).download_and_prepare()"'
    )
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format="array_record")
        prepared = builder.data_path.exists()
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"tfds:{name} must be a set that tensorflow-datasets knows, or one prepared in {where}: "
            "see https://www.tensorflow.org/datasets for the names"
        ) from None
    except ModuleNotFoundError:
        prepared = False
    except Exception as error:  # A folder that is no TFDS set fails in as many ways as there are file formats.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"tfds:{name} must be readable in {where}: {reason}") from None
    if not prepared:
        raise UserError(
            f"tfds:{name} must be prepared: it is not in {where}, and preparing it needs TensorFlow and a network; "
            f"pass --data-dir to a folder that holds it, or run: {prepare}"
        )
    return builder


def _images(builder: Any, split: str, name: str) -> np.ndarray:
    try:
        source = builder.as_data_source(split=split)
    except (NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"tfds:{name} must be prepared with file_format='array_record': {reason}") from None
    if len(source) == 0:
        raise UserError(f"tfds:{name} must not be empty: its {split} split has no images")
    first = np.asarray(source[0]["image"])
    if first.ndim != 3:
        raise UserError(f"tfds:{name} must hold images [height, width, channels]: got shape {list(first.shape)}")
    images = np.empty((len(source), *first.shape[:2]), np.float32)
    # Reading records one by one takes three times as long as reading them in blocks.
    for start in range(0, len(source), READ_BLOCK):
        rows = range(start, min(start + READ_BLOCK, len(source)))
        for i, example in zip(rows, source.__getitems__(list(rows)), strict=True):
            pixels = np.asarray(example["image"])
            if pixels.shape != first.shape:
                raise UserError(
                    f"tfds:{name} must hold images of one size: got {list(pixels.shape)} after {list(first.shape)}"
                )
            images[i] = pixels.mean(axis=-1) / 255.0
    return images


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
