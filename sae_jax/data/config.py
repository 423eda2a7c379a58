"""Which samples are trained on, and how they are prepared."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar

from sae_jax.data.normalise import MEANS, RULES
from sae_jax.settings import NON_NEGATIVE, TEXT, TRUE_OR_FALSE, Range, Unread, check_all, one_of, setting

# Sources whose name is followed by the path of a file or a folder.
OF_FILES = ("images", "array", "activations")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which samples are trained on, and how they are prepared.

    Raises:
        UserError: a value is out of range.
    """

    UNREAD: ClassVar[Unread] = {
        ("dataset", "patches"): ("data_dir",),
        ("dataset", "images"): ("data_dir",),
        ("dataset", "digits"): ("data_dir", "patch_size", "whiten"),
        ("dataset", "array"): ("data_dir", "patch_size", "whiten"),
        ("dataset", "activations"): ("data_dir", "patch_size", "whiten"),
        ("dataset", "tfds"): ("patch_size", "whiten"),
        ("dataset", "table"): ("data_dir", "patch_size", "whiten"),
        ("dataset", "layer"): ("data_dir", "patch_size", "whiten"),
        ("dataset", "superposition"): ("data_dir", "patch_size", "whiten", "subtract_mean"),
        ("normalize", "none"): ("subtract_mean",),
        ("normalize", "centre"): ("subtract_mean",),
        ("normalize", "standardize"): ("subtract_mean",),
        ("normalize", "length"): ("subtract_mean",),
    }
    dataset: str = setting(
        "patches",
        TEXT,
        "patches, digits, tfds:NAME, images:FILE.npy, array:FILE.npy/.npz, activations:DIR of shards, table:wordllama "
        "(token embeddings), layer:hed/conv3_3 (VGG16 on photographs), or superposition, as it is or with settings of "
        "its own, superposition:features=128,inputs=32",
    )
    targets: str = setting(
        "",
        TEXT,
        "what a transcoder makes of each sample, such as an MLP's outputs of its inputs: a folder of shards beside "
        "activations, a file beside array; empty is the samples themselves",
    )
    data_dir: str = setting("", TEXT, "folder of prepared tensorflow-datasets; empty is TFDS's own default")
    classes: str = setting("", TEXT, "labels of the samples to train on, such as 0-4,7; empty is all")
    samples: int = setting(
        0,
        NON_NEGATIVE,
        "training samples: patches to draw (0 is 10000), the excerpt of a superposition (0 is 36000), or the most to "
        "take of a dataset (0 is all)",
    )
    patch_size: int = setting(8, Range(low=2), "side of a square patch", "pixel")
    whiten: bool = setting(True, TRUE_OR_FALSE, "Olshausen-Field whitening of the images before patches are drawn")
    normalize: str = setting(
        "auto",
        one_of(RULES),
        "ufldl: clip at 3 std, map to [.1, .9]; unit: variance 1; standardize: mean 0 and variance 1 of every feature; "
        "centre: mean 0 of every feature; length: mean norm sqrt(inputs); all but ufldl for linear "
        "outputs; auto: ufldl for patches, length for activations, tables and layers, else none",
    )
    subtract_mean: str = setting(
        "auto",
        one_of(MEANS),
        "with ufldl and unit: subtract each image's own mean (patch), or the one of all; auto: patch for images",
    )
    heldout: float = setting(0.1, Range(low=0, high=0.5, low_open=True), "fraction of the data held out")
    data_seed: int = setting(0, NON_NEGATIVE, "seed of the patches drawn and of the held-out split")

    def __post_init__(self) -> None:
        check_all(self)
        # A run's record names files wherever it is read again.
        kind, _, path = self.dataset.partition(":")
        if kind in OF_FILES and path:
            object.__setattr__(self, "dataset", f"{kind}:{_absolute(path)}")
        for name in ("data_dir", "targets"):
            if value := getattr(self, name):
                object.__setattr__(self, name, _absolute(value))


def shown(path: str | Path) -> str:
    """A path as people read it: below the folder that they are in without what leads there."""
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
