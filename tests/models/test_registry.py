"""What every model declares is what its functions return, and no two declarations share a name."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from sae_jax import models
from sae_jax.data.config import DataConfig
from sae_jax.models import CLASSIC, MODELS, Step, model_of
from sae_jax.models.batch_topk import BATCH_TOPK
from sae_jax.models.jumprelu import JUMPRELU
from sae_jax.settings import UserError, is_swept, settings_of
from sae_jax.sweeps.dataset import variables_of
from sae_jax.sweeps.grid import fields_of
from sae_jax.training.config import TrainingSettings, declared, lane_settings
from sae_jax.training.evaluation import evaluate, measures_of
from tests.example_model import EXAMPLE

UNITS, INPUTS = 9, 4
SIZES = {"unit": UNITS, "input": INPUTS}
EVERY = [*MODELS.values(), EXAMPLE]
every_model = pytest.mark.parametrize("model", EVERY, ids=lambda model: model.name)
# Dimensions and variables of a Dataset beside those that are declared.
RESERVED = {"seed", "step", "unit", "input", "image_height", "image_width"}


def variants(model):
    """Settings of lanes of a model: all that may be off on, all off, and each word of its static settings.

    Combinations that the model refuses are left out.
    """
    fields = settings_of(model.Settings)
    off = {name: field.metadata["off"] for name, field in fields.items() if is_swept(field)}
    off = {name: value for name, value in off.items() if value is not None}
    ranges = {name: field.metadata["range"] for name, field in fields.items()}
    on = {name: value + 1 if value + 1 in ranges[name] else value + 0.5 for name, value in off.items()}
    words = {name: field.metadata["range"].choices for name, field in fields.items()}
    words |= {name: (False, True) for name, field in fields.items() if isinstance(field.default, bool)}
    changed = [{**on, name: word} for name, choices in words.items() for word in choices]
    made = []
    for values in (on, off, *changed):
        try:
            made.append(lane_settings(model, **values, d_hidden=UNITS))
        except UserError:
            assert values not in (on, off)
    assert all(getattr(made[0].model, name) is not None and getattr(made[1].model, name) is None for name in off)
    return made


def shapes_of(settings):
    """Shapes of (the loss's terms, the finished lane's parameters, the measures)."""
    model, own = settings.architecture, settings.model

    def lane(x):
        params, memory = model.init(jax.random.key(0), INPUTS, own), model.memory(own)
        terms, seen = model.loss(params, memory, Step(x, x, jnp.int32(0), 10), own)
        finished = model.finish(params, model.update(memory, seen, own), own)
        return terms, finished, evaluate(finished, x, settings)

    shapes = jax.eval_shape(lane, jax.ShapeDtypeStruct((5, INPUTS), jnp.float32))
    return jax.tree.map(lambda leaf: leaf.shape, shapes, is_leaf=lambda leaf: hasattr(leaf, "shape"))


@every_model
def test_terms_measures_and_parameters_are_those_that_are_declared(model):
    for settings in variants(model):
        terms, finished, measures = shapes_of(settings)
        own = settings.model
        assert terms == dict.fromkeys(model.terms(own), ())
        for declarations, shapes in ((model.parameters(own), finished), (measures_of(model, own), measures)):
            assert shapes == {
                name: tuple(SIZES[dim] for dim in declaration.dims) for name, declaration in declarations.items()
            }


@every_model
def test_what_is_off_adds_no_variable(model):
    on, off, *_ = variants(model)
    assert set(model.terms(off.model)) <= set(model.terms(on.model))
    assert set(variables_of(off)) <= set(variables_of(on))


@pytest.mark.parametrize("model", [CLASSIC, JUMPRELU, BATCH_TOPK, EXAMPLE], ids=lambda model: model.name)
def test_a_term_that_is_off_is_no_curve(model):
    on, off, *_ = variants(model)
    assert set(model.terms(off.model)) < set(model.terms(on.model))
    assert set(variables_of(off)) < set(variables_of(on))


def test_a_declaration_that_a_function_does_not_keep_is_noticed():
    """What the tests above rest on."""
    forgotten = EXAMPLE._replace(terms=lambda s: EXAMPLE.terms(s) | {"forgotten": None})
    terms, *_ = shapes_of(lane_settings(forgotten, d_hidden=UNITS))
    assert set(terms) != set(forgotten.terms(lane_settings(forgotten).model))


@every_model
def test_no_two_settings_share_a_name(model):
    owners = [settings_of(owner) for owner in (model.Settings, TrainingSettings, DataConfig)]
    assert len(fields_of(model)) == sum(map(len, owners))


@every_model
def test_no_two_variables_or_coordinates_of_a_dataset_share_a_name(model):
    for settings in variants(model):
        own = settings.model
        variables = variables_of(settings)
        # The loss, diverged_at and stopped_at are every lane's.
        declarations = (model.terms(own), measures_of(model, own), model.parameters(own))
        assert len(variables) == 3 + sum(map(len, declarations))
        common = set(measures_of(model._replace(measures=lambda s: {}), own))
        # Only the reconstruction error may be measured in a way of the model's own.
        assert set(model.measures(own)) & common <= {"reconstruction"}
        assert not set(variables) & (set(fields_of(model)) | RESERVED)
        assert not set(fields_of(model)) & RESERVED


@every_model
def test_every_setting_has_help_and_lies_in_its_range(model):
    for name, field in declared(model).items():
        assert field.default in field.metadata["range"], name
        assert field.metadata["help"] and field.metadata["unit"], name


@every_model
def test_every_variable_says_what_it_is(model):
    for variable in variables_of(lane_settings(model)).values():
        assert variable.label and variable.units
        assert variable.kind in ("parameter", "curve", "measure", "status")


def test_models_are_known_by_their_names():
    assert model_of("classic") is CLASSIC and all(MODELS[name].name == name for name in MODELS)
    with pytest.raises(UserError, match=r"unknown model clasic: did you mean classic\?"):
        lane_settings("clasic")


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_a_short_file_with_its_paper_at_the_top(name):
    source = Path(models.__file__).with_name(f"{name}.py").read_text()
    assert len(source.splitlines()) <= 120
    assert "\nSource: " in ast.get_docstring(ast.parse(source))
