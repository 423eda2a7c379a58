"""Settings that change the compiled program or the data. Frozen, hashable, checked on construction."""

from __future__ import annotations

import dataclasses

from sae_jax.activations import ACTIVATIONS, OUTPUTS
from sae_jax.corruption import CORRUPTIONS
from sae_jax.settings import (
    AT_LEAST_ONE,
    NON_NEGATIVE,
    TEXT,
    TRUE_OR_FALSE,
    Range,
    UserError,
    check_all,
    one_of,
    setting,
)

RECONSTRUCTION_LOSSES = ("squared_error", "half_squared_error", "mean_squared_error", "bernoulli")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained and how: everything that changes the compiled program.

    Raises:
        UserError: a value is out of range, or two values do not go together.
    """

    d_hidden: int = setting(49, AT_LEAST_ONE, "number of hidden units")
    activation: str = setting("sigmoid", one_of(ACTIVATIONS), "activation of the codes")
    output: str = setting("sigmoid", one_of(OUTPUTS), "activation of the reconstruction")
    tied: bool = setting(False, TRUE_OR_FALSE, "the decoder weight is the encoder's transpose")
    reconstruction_loss: str = setting("squared_error", one_of(RECONSTRUCTION_LOSSES), "reconstruction loss")
    corruption: str = setting("none", one_of(CORRUPTIONS), "noise on the encoder's inputs, at level --noise")
    estimator: str = setting(
        "ema", one_of(("ema", "batch")), "rho_hat in the penalty: the running mean, or this batch's own mean"
    )
    ema_start: str = setting(
        "rho", one_of(("rho", "zero")), "the running mean starts at rho, or at 0 and is corrected for it"
    )
    products: str = setting(
        "float32", one_of(("float32", "bfloat16")), "factors of matrix products, which are summed in float32"
    )
    optimizer: str = setting("adam", one_of(("adam", "sgd", "lbfgs")), "Adam, SGD with momentum, or full-batch L-BFGS")
    batch_size: int = setting(128, AT_LEAST_ONE, "samples in a minibatch", "sample")
    steps: int = setting(10_000, AT_LEAST_ONE, "training steps", "step")
    patience: int = setting(
        0, NON_NEGATIVE, "a lane stops after this many logged points without a lower held-out loss; 0 is off"
    )

    def __post_init__(self) -> None:
        check_all(self)
        exact = self.estimator == "batch" and self.corruption == "none" and self.products == "float32"
        if self.optimizer == "lbfgs" and not exact:
            raise UserError(
                "optimizer lbfgs needs the exact gradient of one fixed loss: got estimator "
                f"{self.estimator}, corruption {self.corruption}, products {self.products}; "
                "use estimator batch, corruption none, products float32"
            )
        if self.reconstruction_loss == "bernoulli" and self.output != "sigmoid":
            raise UserError(
                f"reconstruction_loss bernoulli needs probabilities: got output {self.output}; use output sigmoid"
            )


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
