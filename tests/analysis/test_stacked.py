"""Stacked autoencoders: each layer is a training on the codes below, and fine-tuning lowers the whole loss."""

import dataclasses

import jax
import numpy as np
import pytest

from sae_jax import DataConfig, encode, fit, lane_settings, load
from sae_jax.analysis.probes import accuracy, fit_probe, probe_loss
from sae_jax.analysis.stacked import encode_stack, fine_tune, pretrain, stack_logits
from sae_jax.training.lane import final_params
from sae_jax.training.step import keys_of

SETTINGS = lane_settings(d_hidden=20, steps=200, batch_size=100, rho=0.1, beta=0.1)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
    return load(DataConfig(dataset="digits"))


@pytest.fixture(scope="module")
def layers(data):
    first = final_params(fit(SETTINGS, data.train, data.heldout, KEY)[0], SETTINGS)
    return jax.jit(lambda: pretrain(SETTINGS, first, (15, 10), data.train, data.heldout, KEY))()


def test_every_layer_is_trained_on_the_codes_of_the_one_below(layers, data):
    assert [params["encoder_weight"].shape for params in layers] == [(20, 64), (15, 20), (10, 15)]
    codes, heldout = (encode(layers[0], x, SETTINGS) for x in (data.train, data.heldout))
    narrower = dataclasses.replace(SETTINGS, model=dataclasses.replace(SETTINGS.model, d_hidden=15))
    alone, _ = fit(narrower, codes, heldout, jax.random.fold_in(keys_of(KEY).layers, 1))
    for name, values in final_params(alone, narrower).items():
        np.testing.assert_allclose(layers[1][name], values, rtol=1e-4, atol=1e-5)
    above = encode(layers[2], encode(layers[1], codes, SETTINGS), SETTINGS)
    np.testing.assert_allclose(encode_stack(layers, data.train, SETTINGS), above, rtol=1e-4)


def test_fine_tuning_moves_every_encoder_and_lowers_the_loss(layers, data):
    labels = data.train_labels
    probe = fit_probe(encode_stack(layers, data.train, SETTINGS), labels, 10, 1e-4, 50)
    tuned, head = jax.jit(lambda: fine_tune(layers, probe, data.train, labels, SETTINGS, 1e-4, 50))()
    losses = [
        float(probe_loss(softmax, encode_stack(net, data.train, SETTINGS), labels, 1e-4))
        for net, softmax in ((layers, probe), (tuned, head))
    ]
    assert losses[1] < 0.5 * losses[0]
    for before, after in zip(layers, tuned, strict=True):
        assert np.any(before["encoder_weight"] != after["encoder_weight"])
        np.testing.assert_array_equal(before["decoder_weight"], after["decoder_weight"])
    scores = [
        float(accuracy(stack_logits(net, softmax, data.heldout, SETTINGS), data.heldout_labels))
        for net, softmax in ((layers, probe), (tuned, head))
    ]
    assert scores[1] > scores[0] and scores[1] > 0.9
