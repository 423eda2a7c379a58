"""What a lane is: one file an architecture, and the parts that they share.

base          Model, the record of functions that the engine trains, and the types that these pass
classic       the classic family
kl            the KL penalty with its custom_vjp; terms: the other terms of losses
memory        SparsityState: the running mean activation
linear        two layers of weights, and every trick of layout; activations, selection: what codes are made by
"""

from sae_jax.models.base import Across, Measure, Model, Parameter, Step, Term
from sae_jax.models.classic import CLASSIC
from sae_jax.settings import unknown

# Every architecture that the command line knows by its name.
MODELS = {model.name: model for model in (CLASSIC,)}


def model_of(name: str) -> Model:
    """The model of a name.

    Raises:
        UserError: there is none.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    return MODELS[name]


__all__ = ["CLASSIC", "MODELS", "Across", "Measure", "Model", "Parameter", "Step", "Term", "model_of"]
