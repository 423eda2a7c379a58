"""Settings that change the compiled program. Frozen, hashable, checked on construction."""

from __future__ import annotations

import dataclasses

from sae_jax.data.corruption import CORRUPTIONS
from sae_jax.models.activations import ACTIVATIONS, OUTPUTS
from sae_jax.settings import (
    AT_LEAST_ONE,
    NON_NEGATIVE,
    TRUE_OR_FALSE,
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
