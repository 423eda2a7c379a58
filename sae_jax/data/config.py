"""Which samples are trained on, and how they are prepared."""

from __future__ import annotations

import dataclasses

from sae_jax.settings import NON_NEGATIVE, TEXT, TRUE_OR_FALSE, Range, check_all, one_of, setting


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which samples are trained on, and how they are prepared.

    Raises:
        UserError: a value is out of range.
    """

    dataset: str = setting("patches", TEXT, "patches, digits, tfds:NAME, images:FILE.npy or array:FILE.npy/.npz")
    data_dir: str = setting("", TEXT, "folder of prepared tensorflow-datasets; empty is TFDS's own default")
    classes: str = setting("", TEXT, "labels of the samples to train on, such as 0-4,7; empty is all")
    samples: int = setting(
        0, NON_NEGATIVE, "training samples: patches to draw (0 is 10000), or the most to take of a dataset (0 is all)"
    )
    patch_size: int = setting(8, Range(low=2), "side of a square patch", "pixel")
    whiten: bool = setting(True, TRUE_OR_FALSE, "Olshausen-Field whitening of the images before patches are drawn")
    normalize: str = setting(
        "auto",
        one_of(("auto", "ufldl", "unit", "none")),
        "ufldl: clip at 3 std, map to [.1, .9]; unit: variance 1, for linear outputs; auto: ufldl for patches only",
    )
    subtract_mean: str = setting(
        "patch", one_of(("patch", "global")), "with ufldl and unit: subtract each sample's own mean, or the global one"
    )
    heldout: float = setting(0.1, Range(low=0, high=0.5, low_open=True), "fraction of the data held out")
    data_seed: int = setting(0, NON_NEGATIVE, "seed of the patches drawn and of the held-out split")

    def __post_init__(self) -> None:
        check_all(self)
