"""Units split over devices: the arrays of a lane lie in parts, and it trains what one device does."""

from types import MappingProxyType

import jax
import numpy as np
import pytest

from sae_jax import UserError, as_data, sweep
from sae_jax.models import MODELS, PRESETS, preset
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps import chunk, program
from sae_jax.sweeps.observers import Observer
from sae_jax.sweeps.plan import Engine, chunk_at
from sae_jax.sweeps.prepare import prepare
from sae_jax.sweeps.program import compiled_advance
from sae_jax.sweeps.program_lanes import carry_at_start, inputs_of, place_lanes
from sae_jax.sweeps.recovery import Interrupted, saving
from sae_jax.sweeps.sweep import train

TWO = {"devices": 2, "unit_parallel": 2}
FOUR = {"devices": 4, "unit_parallel": 4}
BATCHES_TOO = {"devices": 4, "data_parallel": 2, "unit_parallel": 2}
TWO_GROUPS = {"devices": 4, "unit_parallel": 2}
SETTINGS = {"d_hidden": 12, "batch_size": 32, "steps": 100, "learning_rate": 0.01, "seeds": 1}
CHOOSING = ("topk", "abs_topk", "batch_topk", "matryoshka", "matching_pursuit")


# By preset and curve. Where the last bit of the samples is another, on one device too, what thresholds exceed
# pre-activations by moves by up to 3e-5, and no other term by more than 5e-7.
ROUNDING = {"anthropic-january": {"loss_pre_activation": 1e-4}}


def agree(samples, how, bounds=MappingProxyType({}), **settings):
    """Sweeps over devices find what one device does, to 1e-5 of every number and of the largest one of its array.

    Rounding alone would change which codes are among the k largest only where two of them are equal to 1e-7: in samples
    as few as these it does not happen, so that k-sparse models are held to the same bound as all others.
    """
    every = SETTINGS | settings
    alone = sweep(samples, devices=1, **every)
    # Something was learnt that could differ.
    curve = alone["loss_reconstruction"]
    assert np.all(curve.std("step") > 0.02 * curve.mean("step"))
    split = sweep(samples, **every, **how)
    for name, values in alone.data_vars.items():
        if values.dtype.kind == "f":
            most = bounds.get(name, 1e-5)
            atol = most * np.nanmax(np.abs(values), initial=0)
            np.testing.assert_allclose(split[name], values, rtol=most, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(split[name], values, err_msg=name)
    return alone


@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_what_it_does_on_one_device(model, samples):
    agree(samples, FOUR, model=model, **({"k": 3} if model in CHOOSING else {}))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_what_it_does_on_one_device(name, samples):
    model, values = preset(name)
    more = {"k": 2, "k_start": 6} if model == "classic" else {"k": 3} if model in CHOOSING else {}
    variant = {key: value for key, value in values.items() if key not in {*SETTINGS, *more}}
    agree(samples, BATCHES_TOO, ROUNDING.get(name, {}), model=model, **(variant | more))


# Small enough that units are dead within the training.
DEAD = {"d_hidden": 24, "dead_after": 64, "k": 2}
VARIANTS = {
    "auxk": ({"model": "topk", "dead_units": "auxk", "aux": [0.1, 1.0], **DEAD}, TWO),
    "auxk, full": (
        {
            "model": "batch_topk",
            "dead_units": "auxk",
            "aux_form": "full",
            "frozen": "decoder",
            "prefixes": "1/4,1/2",
            **DEAD,
        },
        TWO,
    ),
    "resampling": ({"model": "topk", "dead_units": "resampling", "resample_times": [2, 4], **DEAD}, BATCHES_TOO),
    "target l0": ({"model": "relu", "target_l0": [2.0, 3.0], "dead_units": "pre_activation", "seeds": 2}, TWO),
    "target rate": ({"model": "jumprelu", "target_rate": [0.1, 0.2], "frozen": "soft", "seeds": 2}, TWO_GROUPS),
    "prefixes": ({"model": "topk", "prefixes": "drawn:3", "k": [2.0, 3.0], "seeds": 2, "snapshots": 3}, BATCHES_TOO),
    "tied": ({"tied": True, "rho": [0.05, 0.1], "beta": [0.5, 2.0], "seeds": 2, "cells_per_block": 2}, TWO_GROUPS),
    "batch": (
        {"estimator": "batch", "rho": [0.05, 0.1], "corruption": "gaussian", "noise": 0.1, "lifetime": 0.3}
        | {"activation": "relu", "output": "linear", "contractive": 0.1, "seeds": 2, "blocks": "in_parallel"},
        BATCHES_TOO,
    ),
    "widths": ({"d_hidden": [8, 12], "patience": 20, "k": 3.0, "seeds": 2, "model": "abs_topk"}, TWO_GROUPS),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_help_and_packing_trains_what_it_does_on_one_device(name, samples):
    settings, how = VARIANTS[name]
    found = agree(samples, how, **settings)
    if name.startswith("auxk"):
        assert float(found["loss_aux"].max()) > 0


def test_lanes_that_start_from_others_go_on_as_on_one_device(samples):
    settings = SETTINGS | {"model": "relu", "target_l0": [2.0, 3.0]}
    before = sweep(samples, **settings, **TWO)
    alone, split = (sweep(samples, start_from=before, steps=50, **how) for how in ({"devices": 1}, TWO))
    np.testing.assert_allclose(split["decoder_weight"], alone["decoder_weight"], rtol=1e-5, atol=1e-5)
    assert float(np.abs(split["decoder_weight"] - before["decoder_weight"]).max()) > 1e-3


@pytest.fixture(scope="module")
def study(samples):
    settings = {"d_hidden": 32, "batch_size": 32, "steps": 60, "dead_units": "auxk", "k": [2.0, 3.0]}
    engine = Engine(**TWO_GROUPS, cells_per_block=1, lanes_per_chunk=2)
    return prepare(as_data(samples), "batch_topk", seeds=2, engine=engine, observer=Observer(), **settings)


def bytes_on_devices(tree):
    """Bytes of the arrays of a tree on every device."""
    found = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            found[shard.device] += shard.data.nbytes
    return [*found.values()]


def test_parameters_optimizer_and_memory_lie_split_at_the_start_in_training_and_after_a_resumption(
    study, tmp_path, monkeypatch
):
    seen, in_place, last = [], [], []

    def watched(*how):
        advance = compiled_advance(*how)

        def called(*arguments):
            before = arguments[5]
            seen.append(bytes_on_devices(before))
            places = places_of(before)
            # Of what a chunk starts from, others may hold parts: a checkpoint's memory, or another array.
            follows = bool(last) and last[-1] is before
            after, curves = advance(*arguments)
            seen.append(bytes_on_devices(after))
            if follows:
                in_place.append(places_of(after) == places)
            last.append(after)
            return after, curves

        return called

    def places_of(carry):
        """Where the parts of matrices lie; which of them takes whose place is the compiler's choice."""
        matrices = [leaf for leaf in jax.tree.leaves(carry) if leaf.ndim == 4]
        return {shard.data.unsafe_buffer_pointer() for leaf in matrices for shard in leaf.addressable_shards}

    monkeypatch.setattr(chunk, "compiled_advance", watched)
    with pytest.raises(Interrupted), saving(tmp_path, every=1e9, asked_to_end=lambda: len(seen) > 12) as recovery:
        train(study, Observer(), in_memory(), recovery)
    calls = len(seen)
    with saving(tmp_path, every=1e9) as recovery:
        train(study, Observer(), in_memory(), recovery)
    assert 12 < calls < len(seen)
    assert len(in_place) > 20 and all(in_place)
    # Of a lane: both matrices, the encoder's bias and two moments of each; 32 counts of silence; what has no units is
    # the decoder's bias, its moments and a few numbers.
    split, whole = 4 * (3 * (2 * 32 * 16 + 32) + 32), 4 * 3 * 16
    for each in seen:
        assert len(set(each)) == 1
        assert split / 2 + whole <= each[0] <= split / 2 + whole + 60


def test_the_compiled_step_needs_half_the_memory_on_each_of_two_devices_and_the_plan_says_so(
    monkeypatch,
):
    monkeypatch.setattr(program, "SMALL_BYTES", 0)
    needed, saved = {}, set()
    for parts in (1, 2):
        engine = Engine(devices=parts, unit_parallel=parts)
        settings = {"d_hidden": 4096, "batch_size": 64, "steps": 4}
        samples = as_data(np.random.default_rng(0).uniform(size=(200, 96)))
        study = prepare(samples, "relu", seeds=1, engine=engine, observer=Observer(), **settings)
        needed[parts] = study.programs[0].plan.lane_bytes, compiled_bytes(study)
        saved.add(study.programs[0].plan.state_bytes)
    assert needed[2][0] == -(-needed[1][0] // 2)
    assert len(saved) == 1  # A checkpoint holds all units.
    assert needed[2][1] < 0.6 * needed[1][1]
    # The plan asks for a whole lane's working memory, of which a device's part may be less than its share.
    assert 0.9 < needed[2][0] / needed[2][1] < 2


def compiled_bytes(study):
    """Bytes that a device needs for a lane's state and for a step beside it, as the compiler lays them out."""
    lanes, plan = place_lanes(study, 0, watched=False), study.programs[0].plan
    inputs = inputs_of(lanes, chunk_at(plan, 0))
    carry = carry_at_start(lanes, chunk_at(plan, 0), inputs)
    advance = compiled_advance(lanes.point.data.feed.draw, lanes.mesh, plan.sequential)
    bounds = [np.int32(0)] * 3
    needs = advance.lower(lanes.block, lanes.heldout, *bounds, carry, *inputs).compile().memory_analysis()
    assert needs.alias_size_in_bytes == bytes_on_devices(carry)[0]
    return needs.alias_size_in_bytes + needs.temp_size_in_bytes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"unit_parallel": 2, "d_hidden": 7},
            "d_hidden must be a multiple of unit_parallel: got 7 and 2; use d_hidden 8",
        ),
        (
            {"unit_parallel": 2, "d_hidden": [4, 7]},
            "d_hidden must be a multiple of unit_parallel: got 7 and 2; use d_h",
        ),
        ({"devices": 4, "unit_parallel": 3}, "devices must be a multiple of unit_parallel: got 4 and 3; .* devices 6"),
        (
            {"devices": 2, "unit_parallel": 2, "data_parallel": 2},
            "devices must be a multiple of data_parallel x unit_parallel: got 2 and 4; .* devices 4",
        ),
        ({"optimizer": "lbfgs", "estimator": "batch", "unit_parallel": 2}, "unit_parallel must be 1 for optimizer lbf"),
        ({"unit_parallel": 0}, "unit_parallel must be >= 1: got 0"),
    ],
)
def test_units_that_cannot_be_split_are_refused(samples, settings, message):
    with pytest.raises(UserError, match=message):
        sweep(samples, **{"d_hidden": 6, "steps": 60} | settings)
