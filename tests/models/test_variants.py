"""Architectures whose settings start elsewhere: presets and variants, as models and as an axis."""

import jax
import numpy as np
import pytest

import sae_jax
from sae_jax import DataConfig, UserError
from sae_jax.analysis.select import selected
from sae_jax.commands.flags import parse
from sae_jax.models import MODELS, model_of
from sae_jax.models.presets import PRESETS, preset
from sae_jax.training.config import lane_settings

DATA = DataConfig(dataset="superposition", samples=1000)
SMALL = {"d_hidden": 16, "steps": 20, "batch_size": 32, "seeds": 2}
MIXED = ["gao", "bussmann", "batch_topk:prefixes=1/4,1/2,rows=unit", "topk"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_model_with_its_settings(name):
    model, settings = preset(name)
    lane, expected = lane_settings(f"preset:{name}"), lane_settings(model, **settings)
    assert lane.architecture.name == f"preset:{name}" and lane.architecture.loss is MODELS[model].loss
    assert vars(lane.model) == vars(expected.model) and lane.training == expected.training


def test_a_variant_is_an_architecture_with_other_defaults():
    lane = lane_settings("batch_topk:frozen=decoder,prefixes=1/4,1/2,dead-units=auxk", d_hidden=8, k=2)
    assert (lane.model.frozen, lane.model.prefixes, lane.model.dead_units) == ("decoder", "1/4,1/2", "auxk")
    assert lane_settings("bussmann", rows="free").model.rows == "free"
    assert model_of("topk:k=4") is model_of("topk:k=4") and lane_settings("topk:k=4").model.k == 4
    assert jax.tree.structure(lane_settings("topk:k=4")) == jax.tree.structure(lane_settings("topk:k=4", k_warmup=0.2))


def test_a_name_of_both_an_architecture_and_a_preset_takes_settings_as_the_architecture():
    lane = lane_settings("matryoshka:prefixes=1/4,1/2,rows=free")
    assert (lane.model.prefixes, lane.model.rows) == ("1/4,1/2", "free")
    assert lane.architecture.loss is MODELS["matryoshka"].loss


def test_a_variant_is_what_its_name_says():
    for model in ("topk:frozen=decoder", ["topk", "topk:frozen=decoder"]):
        with pytest.raises(
            UserError, match=r"^model topk:frozen=decoder sets frozen: got 'none' beside it; leave one out"
        ):
            sae_jax.sweep(DATA, model, frozen="none", k=2)
    with pytest.raises(UserError, match=r"^model topk:k=3 sets k: got "):
        sae_jax.sweep(DATA, ["topk", "topk:k=3"], k=[2, 4])
    assert lane_settings("topk:frozen=decoder", frozen="decoder").model.frozen == "decoder"
    assert lane_settings("topk:k=3", k=3).model.k == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("topk:frozn=decoder", "unknown setting of model topk frozn: did you mean frozen?"),
        ("topk:", "a variant of a model must give its settings values: got topk:; use topk:NAME=VALUE"),
        ("topk:decoder", "a variant of a model must give its settings values: got topk:decoder; use topk:NAME=VALUE"),
        ("topk:frozen=x", "frozen must be one of none, decoder, encoder, soft: got 'x'"),
        ("topc:frozen=decoder", "unknown model topc: did you mean topk?"),
        ("bussman", "unknown model bussman: did you mean bussmann?"),
        ("topk:steps=3", "unknown setting of model topk steps"),
        ("topk:k=3,k=4", "a variant of a model must set k once: got k=3,k=4; leave one"),
        ("gao:k=3", "settings stand behind the name of an architecture: got gao:k=3, of preset gao; use topk:k=3"),
        ("preset:gaos", "unknown preset gaos: did you mean gao?"),
    ],
)
def test_what_is_no_variant_is_refused(name, reason):
    with pytest.raises(UserError) as refused:
        model_of(name)
    assert str(refused.value).startswith(reason)


@pytest.fixture(scope="module")
def run():
    return sae_jax.sweep(DATA, MIXED, k=3.0, **SMALL)


def test_presets_and_variants_are_an_axis_with_all_that_they_set_along_it(run):
    assert run["eval_l0"].dims == ("model", "seed") and run["model"].values.tolist() == MIXED
    for name in MIXED:
        lane = run.sel(model=name)
        settings = lane_settings(name, k=3.0, d_hidden=16, steps=20, batch_size=32)
        for one in ("rows", "prefixes", "dead_units", "centre"):
            assert lane[one].item() == getattr(settings.model, one), (name, one)
        assert lane["learning_rate"].item() == pytest.approx(settings.training.learning_rate)
    assert sae_jax.open(run).lane(model="bussmann", seed=1).settings.training.learning_rate == pytest.approx(3e-4)


@pytest.mark.parametrize("name", MIXED[:3])
def test_a_lane_of_the_axis_is_the_one_that_is_trained_alone(name, run):
    alone = sae_jax.sweep(DATA, name, k=3.0, **SMALL)
    for variable, values in alone.data_vars.items():
        of_axis = run[variable].sel(model=name)
        np.testing.assert_allclose(of_axis, values, rtol=1e-5, atol=1e-6, err_msg=variable)


def test_a_variant_is_selected_and_extended_and_merged(run):
    [name] = [one for one in MIXED if "," in one]
    part = selected(run, [f"model=topk,{name},gao", "seed=0"])
    assert part["model"].values.tolist() == ["gao", name, "topk"]
    assert selected(run, [f"model={name}"])["model"].item() == name
    more = sae_jax.extend(run, seeds=3)
    assert more["eval_l0"].dims == ("model", "seed") and more["model"].values.tolist() == MIXED
    united = sae_jax.merge(run, sae_jax.sweep(DATA, MIXED, k=3.0, **SMALL | {"seeds": [5]}))
    assert united["eval_l0"].dims == ("model", "seed") and united["seed"].values.tolist() == [0, 1, 5]


def test_the_command_line_takes_several_presets_and_flags_beside_them():
    defaults = {"learning_rate": (9.0,), "k": (5.0,), "steps": (7,)}
    words = ["--preset", "gao", "matryoshka", "--rows", "free", "--k", "3", "4"]
    _, settings, _ = parse(words, "sweep", "", defaults, several=True)
    # The commands' own default of what a preset sets gives way to it.
    assert settings == {"model": ("gao", "preset:matryoshka"), "rows": "free", "k": (3.0, 4.0), "steps": 7}
    with pytest.raises(UserError, match="--preset takes one value: got 2"):
        parse(["--preset", "gao", "bussmann"], "train", "", {}, several=False)


def test_a_sweep_of_presets_is_extended(tmp_path, monkeypatch):
    from sae_jax.commands import sweep

    monkeypatch.chdir(tmp_path)
    words = ["--preset", "gao", "bussmann", "--dataset", "digits", "--steps", "10", "--d-hidden", "6", "--k", "2"]
    sweep.main(
        [*words, "--batch-size", "20", "--seeds", "1", "--figures", "False", "--report", "False", "--name", "one"]
    )
    sweep.main(["--extend", "one", "--seeds", "2", "--figures", "False", "--report", "False", "--name", "two"])
    one, two = (sae_jax.results.load(tmp_path / "runs" / name) for name in ("one", "two"))
    assert two["eval_l0"].dims == ("model", "seed") and dict(two.sizes)["seed"] == 2
    np.testing.assert_array_equal(two["decoder_weight"].sel(seed=[0]), one["decoder_weight"])
    assert two["learning_rate"].values.tolist() == pytest.approx([0.007, 3e-4])
