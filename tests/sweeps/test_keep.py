"""Runs that kept fewer parameters than those of all lanes, put together with others, extended and trained on."""

import warnings

import numpy as np
import pytest

import sae_jax
from sae_jax import DataConfig, SweepWarning, UserError, extend, merge
from sae_jax.analysis import units
from sae_jax.analysis.lanes import trained
from sae_jax.analysis.tasks import TaskConfig, apply
from sae_jax.storage import results
from sae_jax.storage.arrays import in_memory
from sae_jax.sweeps.keep import keep_parameters, lanes_left_out, with_parameters

DIGITS = DataConfig(dataset="digits", samples=100)
SETTINGS = {"d_hidden": 4, "batch_size": 20, "steps": 8, "progress": False}
NAMES = ["encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"]
QUICK = TaskConfig(noise=(0.1,))


@pytest.fixture(scope="module")
def whole():
    return sae_jax.sweep(DIGITS, "topk", k=2, learning_rate=[0.001, 0.01], seeds=2, **SETTINGS)


def kept(dataset, keep, rate):
    return keep_parameters(dataset.sel(learning_rate=[rate]), keep, in_memory())


def joined(whole, first, second):
    """The lower rate's lanes, and the higher rate's, each as a run would that kept so many parameters."""
    return merge(kept(whole, first, 0.001), kept(whole, second, 0.01))


def of_lanes(whole, first, second):
    """Which lanes have parameters."""
    best = whole["eval_reconstruction"].argmin("seed").values
    rows = {"all": lambda _: [True, True], "none": lambda _: [False, False], "best": lambda b: [b == 0, b == 1]}
    return np.asarray([rows[keep](best[i]) for i, keep in enumerate((first, second))])


@pytest.mark.filterwarnings("ignore::sae_jax.SweepWarning")
@pytest.mark.parametrize(
    ("first", "second"), [("none", "all"), ("all", "none"), ("best", "all"), ("best", "none"), ("best", "best")]
)
def test_lanes_without_parameters_are_left_out_where_others_have_some(first, second, whole, tmp_path):
    made, has = joined(whole, first, second), of_lanes(whole, first, second)
    np.testing.assert_array_equal(with_parameters(made), has)
    for name in NAMES:
        assert made[name].attrs == whole[name].attrs
        expected = whole[name].where(with_parameters(made)).transpose(*whole[name].dims)
        np.testing.assert_array_equal(made[name], expected)
    results.save(made, tmp_path)
    measured = units.with_units(made, units.measure(results.load(tmp_path)).variables)
    np.testing.assert_array_equal(measured["units_density"].notnull().all("unit"), has)
    psnr = apply("denoising", made, QUICK)[0]["denoising_psnr"]
    np.testing.assert_array_equal(psnr.notnull().all("noise_level"), has)
    [line] = lanes_left_out(made)
    assert line == f"left out for want of parameters (--keep): {4 - has.sum()} of 4 lanes"
    run = sae_jax.open(made)
    for rate, seed in np.argwhere(has):
        place = {"learning_rate": made["learning_rate"].values[rate], "seed": seed}
        np.testing.assert_array_equal(
            run.lane(**place).params["encoder_weight"], whole["encoder_weight"].sel(place).values
        )
    rate, seed = np.argwhere(~has)[0]
    with pytest.raises(UserError, match=r"must hold the parameters of the lane: got NaN alone \(--keep\); choose"):
        run.lane(learning_rate=made["learning_rate"].values[rate], seed=seed)
    with pytest.raises(UserError, match=f"start-from needs the parameters .*: got {4 - has.sum()} of 4 lanes without"):
        sae_jax.sweep(DIGITS, "topk", start_from=made, steps=2)


def test_nothing_is_left_out_where_all_have_parameters_or_none_has(whole):
    assert lanes_left_out(whole) == [] and with_parameters(whole) is None
    # Of lanes that diverged nothing is asked.
    nothing = whole.assign({name: whole[name] * np.nan for name in NAMES})
    only_diverged = whole.assign({name: whole[name].where(whole["learning_rate"] > 0.005) for name in NAMES})
    only_diverged["diverged_at"] = whole["diverged_at"].where(whole["learning_rate"] < 0.005, 3)
    for dataset in (nothing, only_diverged):
        assert lanes_left_out(dataset) == []
        with pytest.raises(UserError, match="parameters of lanes that did not diverge must be finite: got NaN"):
            trained(dataset)
    # A lane of which some is there is damaged, and not left out.
    damaged = whole.copy(deep=True)
    damaged["encoder_weight"][0, 0, 0, 0] = damaged["encoder_bias"][0, 0, 0] = np.nan
    damaged["decoder_weight"][0, 0, 0, 0] = damaged["decoder_bias"][0, 0, 0] = np.nan
    assert lanes_left_out(damaged) == []
    with pytest.raises(UserError, match="parameters of lanes that did not diverge must be finite: got NaN"):
        trained(damaged)


@pytest.mark.filterwarnings("ignore::sae_jax.SweepWarning")
def test_holes_are_no_lanes_that_are_left_out(whole):
    made = merge(kept(whole, "none", 0.001), kept(whole, "all", 0.01).sel(seed=[0]))
    assert lanes_left_out(made) == ["left out for want of parameters (--keep): 2 of 3 lanes"]
    assert int(with_parameters(made).sum()) == 1


@pytest.mark.filterwarnings("ignore::sae_jax.SweepWarning")
def test_lanes_that_several_hold_have_the_parameters_of_those_that_kept_them(whole):
    best, none = (keep_parameters(whole, keep, in_memory()) for keep in ("best", "none"))
    for made in (merge(best, whole), merge(whole, best, none)):
        for name in NAMES:
            np.testing.assert_array_equal(made[name], whole[name])


def test_runs_that_kept_none_are_a_run_that_kept_none(whole, tmp_path):
    made = joined(whole, "none", "none")
    results.save(made, tmp_path)
    assert results.load(tmp_path).attrs["parameters_of"] == "none"
    with pytest.raises(UserError, match=r"units needs the parameters .*: got a run that kept none"):
        units.measure(made)


@pytest.mark.parametrize("keep", ["best", "none"])
def test_a_run_that_kept_fewer_is_extended(keep, whole):
    made = extend(keep_parameters(whole, keep, in_memory()), seeds=3)
    has = np.ones((2, 3), bool)
    has[:, :2] = of_lanes(whole, keep, keep)
    np.testing.assert_array_equal(with_parameters(made), has)
    np.testing.assert_array_equal(made["eval_l0"].sel(seed=[0, 1]), whole["eval_l0"])
    assert made["encoder_weight"].attrs == whole["encoder_weight"].attrs


def test_a_merge_says_what_is_nan_of_which_run(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merge(whole, whole)
    low, high = kept(whole, "all", 0.001), kept(whole, "none", 0.01)
    low = apply("denoising", low, QUICK)[0]
    high = high.drop_vars("eval_l0")
    said = r"NaN for its lanes: got b without {}denoising_psnr, parameters; measure it there too, or train it again"
    for order, names in (((low, high), ["a", "b"]), ((high, low), ["b", "a"])):
        with pytest.warns(SweepWarning, match=said.format("eval_l0, ")) as warned:
            made = merge(*order, names=names)
        assert len(warned) == 1 and bool(made["eval_l0"].sel(learning_rate=0.01).isnull().all())
    with pytest.warns(SweepWarning, match="got sweep 1 without denoising_psnr and sweep 3 without denoising_psnr;"):
        merge(kept(whole, "all", 0.01), low, kept(whole, "all", 0.01))
    with pytest.raises(UserError, match="names must be one a sweep, 2: got 'ab'; leave them out"):
        merge(low, low, names="ab")
