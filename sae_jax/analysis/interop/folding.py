"""A lane's normalisation, as part of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.normalise import Normalisation
from sae_jax.models import ARCHITECTURES, active_units, classic_codes
from sae_jax.settings import UserError

Arrays = dict[str, np.ndarray]
# Scales of features are one where they differ by no more than rounding.
SAME = 1e-9


def architecture_of(lane: TrainedLane) -> str:
    """The name of the architecture whose codes and reconstructions a lane's are, that of a variant too.

    Raises:
        UserError: it is a record of one's own.
    """
    model = lane.settings.architecture
    for known in ARCHITECTURES:
        if (known.encode, known.decode) == (model.encode, model.decode):
            return known.name
    raise UserError(
        f"other libraries know architectures of sae_jax alone: got {model.name}, a record of your own; use lane.params"
    )


def units_encoded(s: Any) -> int:
    """How many units a lane of the classic model or of a top-k one keeps on each sample; all where it chooses none.

    Args:
        s: settings of the model, of one lane.
    """
    if isinstance(s, active_units.Settings):
        return int(np.round(float(active_units.count(s))))
    # So many values at least are as large as the last one that is kept.
    return math.ceil(float(classic_codes.units_encoded(s)))


def without_normalisation(params: Mapping[str, np.ndarray], normalisation: Normalisation, centred: bool) -> Arrays:
    """Parameters that act on samples as they are, and give reconstructions on their scale.

        y = a x + b:  We <- We a,  Wd <- Wd / a,  bd <- (bd - b) / a,  and be <- be + We b unless bd is subtracted of y

    Args:
        params: encoder_weight and encoder_bias, where there is an encoder, decoder_weight [units, d_in], decoder_bias.
        normalisation: y of x.
        centred: whether the encoder sees y - bd; else it sees y.

    Returns:
        The same names, float64; what is of units alone as it was.

    Raises:
        UserError: the normalisation clips, or subtracts each sample's own mean: no weights do that.
    """
    gain, offset = _affine(normalisation)
    folded = {name: np.asarray(value, np.float64) for name, value in params.items()}
    if "encoder_weight" in folded:
        if not centred:
            folded["encoder_bias"] = folded["encoder_bias"] + folded["encoder_weight"] @ offset
        folded["encoder_weight"] = folded["encoder_weight"] * gain
    folded["decoder_weight"] = folded["decoder_weight"] / gain
    folded["decoder_bias"] = (folded["decoder_bias"] - offset) / gain
    return folded


def transcoder_without_normalisation(params: Mapping[str, np.ndarray], lane: TrainedLane) -> Arrays:
    """Parameters of a transcoder on inputs as they are, whose outputs are on the targets' scale.

        u = a x + b,  v = c y + d:  We <- We a,  be <- be + We b,  Wd <- Wd / c,  S <- S a / c,
        bd <- (bd + S b - d) / c

    Args:
        params: encoder_weight, encoder_bias, decoder_weight [units, d_out], decoder_bias, and skip_weight, where there
            is a skip.
        lane: whose normalisations of x and y they are.

    Returns:
        The same names, float64; what is of units alone as it was.

    Raises:
        UserError: as `without_normalisation`.
    """
    (read, shift), (written, offset) = _affine(lane.of_inputs), _affine(lane.of_outputs)
    folded = {name: np.asarray(value, np.float64) for name, value in params.items()}
    folded["encoder_bias"] = folded["encoder_bias"] + folded["encoder_weight"] @ shift
    folded["encoder_weight"] = folded["encoder_weight"] * read
    if "skip_weight" in folded:
        folded["decoder_bias"] = folded["decoder_bias"] + folded["skip_weight"] @ shift
        folded["skip_weight"] = folded["skip_weight"] * read / written[:, None]
    folded["decoder_weight"] = folded["decoder_weight"] / written
    folded["decoder_bias"] = (folded["decoder_bias"] - offset) / written
    return folded


def greedy_without_normalisation(
    params: Mapping[str, np.ndarray], normalisation: Normalisation
) -> tuple[Arrays, float]:
    """Parameters of matching pursuit, whose rows are the encoder's and the decoder's, on samples as they are.

        y = a x + b:  bd <- (bd - b) / a;  the rows stay, and codes are f / a

    Args:
        params: decoder_weight [units, d_in] and decoder_bias.
        normalisation: y of x.

    Returns:
        (the same names, float64; a).

    Raises:
        UserError: the normalisation is not affine, or scales features apart, which changes what lies along a row.
    """
    gain, offset = _affine(normalisation)
    if np.ptp(gain) > SAME * np.max(gain):
        raise UserError(
            "matching pursuit's rows encode and decode, and can take in one scale of all features: got one for each; "
            "train with --normalize length, centre or none"
        )
    scale = float(np.mean(gain))
    folded = {name: np.asarray(value, np.float64) for name, value in params.items()}
    return folded | {"decoder_bias": (folded["decoder_bias"] - offset) / scale}, scale


def _affine(normalisation: Normalisation) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of y = a x + b, each [d_in]."""
    if normalisation.limit < math.inf or normalisation.subtract_sample_mean:
        rule = "clips samples" if normalisation.limit < math.inf else "subtracts each sample's own mean"
        raise UserError(
            f"the run's normalisation must be affine to become part of the weights: got one that {rule}; "
            "train with --normalize standardize, centre, length or none"
        )
    gain = normalisation.gain / normalisation.scale
    return gain, normalisation.offset - gain * normalisation.centre
