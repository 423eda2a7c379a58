"""Every term of the gated loss and its gradients, against the paper's equations 5 to 8 in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sae_jax.models import MODELS, Step
from sae_jax.training.config import lane_settings

RNG = np.random.default_rng(0)
D_IN, UNITS, BATCH, L1 = 6, 9, 20, 0.3
X = RNG.normal(size=(BATCH, D_IN)).astype(np.float32)
# Rows of several norms, so that weighing by them is seen.
PARAMS = {
    name: RNG.normal(scale=0.5, size=shape).astype(np.float32)
    for name, shape in {
        "encoder_weight": (UNITS, D_IN),
        "encoder_bias": (UNITS,),
        "gate_bias": (UNITS,),
        "log_magnitude": (UNITS,),
        "decoder_weight": (UNITS, D_IN),
        "decoder_bias": (D_IN,),
    }.items()
}


def literal(weights):
    """{term: (value, {parameter: gradient})}, float64; a parameter that is left out has none."""
    p = {name: value.astype(float) for name, value in PARAMS.items()}
    x, decoder = X.astype(float), p["decoder_weight"]
    centred, scale = x - p["decoder_bias"], np.exp(p["log_magnitude"])
    shared = centred @ p["encoder_weight"].T
    pi, magnitudes = shared + p["gate_bias"], scale * shared + p["encoder_bias"]
    # No sample lies so near a kink that single precision could take it for one on the other side.
    assert min(np.min(np.abs(pi)), np.min(np.abs(magnitudes))) > 1e-4
    gates, codes = np.maximum(pi, 0), (pi > 0) * np.maximum(magnitudes, 0)

    def encoder(to_gates, to_codes):
        """Gradients of what stands before the decoder, of those to gates and to codes; none passes the step at 0."""
        to_pi, to_magnitudes = to_gates * (pi > 0), to_codes * (pi > 0) * (magnitudes > 0)
        to_shared = to_pi + scale * to_magnitudes
        return {
            "encoder_weight": to_shared.T @ centred,
            "encoder_bias": to_magnitudes.sum(axis=0),
            "gate_bias": to_pi.sum(axis=0),
            "log_magnitude": (to_magnitudes * scale * shared).sum(axis=0),
            # The encoder subtracts it.
            "decoder_bias": -(to_shared @ p["encoder_weight"]).sum(axis=0),
        }

    error, of_gates = (made @ decoder + p["decoder_bias"] - x for made in (codes, gates))
    to_error, to_rebuilt = 2 * error / BATCH, 2 * of_gates / BATCH
    rebuilds = encoder(0, to_error @ decoder.T) | {"decoder_weight": codes.T @ to_error}
    rebuilds["decoder_bias"] += to_error.sum(axis=0)
    norms = np.linalg.norm(decoder, axis=1)
    weigh = norms if weights == "norms" else np.ones(UNITS)
    sparse = encoder(L1 * weigh / BATCH, 0)
    if weights == "norms":
        sparse["decoder_weight"] = L1 * (gates.mean(axis=0) / norms)[:, None] * decoder
    return {
        "reconstruction": (np.mean(np.sum(error**2, axis=1)), rebuilds),
        "l1": (L1 * np.mean(gates @ weigh), sparse),
        # The decoder is a copy that does not learn: neither its rows nor the bias that it adds.
        "gates": (np.mean(np.sum(of_gates**2, axis=1)), encoder(to_rebuilt @ decoder.T, 0)),
    }


@pytest.mark.parametrize("weights", ["plain", "norms"])
def test_every_term_and_its_gradients_are_the_papers(weights):
    settings = lane_settings("rajamanoharan-gated", d_hidden=UNITS, l1=L1, rows="free", l1_weights=weights)
    params = {name: jnp.asarray(value) for name, value in PARAMS.items()}

    def terms(params):
        return MODELS["gated"].loss(params, None, Step(X, X), settings.model)[0]

    values, gradients = jax.jit(lambda params: (terms(params), jax.jacrev(terms)(params)))(params)
    expected = literal(weights)
    assert set(values) == set(expected)
    for term, (value, slopes) in expected.items():
        assert float(values[term]) == pytest.approx(value, rel=1e-5), term
        for name, found in gradients[term].items():
            slope = slopes.get(name, np.zeros_like(found))
            error, size = np.max(np.abs(found - slope)), np.max(np.abs(slope))
            assert error <= 1e-5 * size, f"{name} of {term}: {error:.3g} of {size:.3g}"


def test_the_papers_form_is_the_default_and_the_presets():
    settings = lane_settings("gated").model
    assert (settings.rows, settings.l1_weights, settings.auxiliary_decoder) == ("unit", "plain", False)
    assert vars(lane_settings("rajamanoharan-gated").model) == vars(settings)
