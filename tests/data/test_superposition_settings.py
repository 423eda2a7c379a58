"""What follows the colon of superposition: presets, changes of them, and what is refused."""

from pathlib import Path

import pytest

from sae_jax import DataConfig, UserError, load
from sae_jax.data import checks, superposition
from sae_jax.data.sampling import Tree
from sae_jax.data.superposition import PRESETS, Settings, settings_from
from sae_jax.settings import settings_of

SMALL = "features=12,inputs=6,apart_steps=20"


def test_presets_are_the_published_recipe_and_may_be_changed():
    one = settings_from("preset=synthsaebench")
    assert one == Settings(
        **{"features": 16384, "inputs": 768, "firing": "zipf", "exponent": 0.5, "p_max": 0.4, "p_min": 5e-4},
        **{"mean": 5, "mean_last": 4, "std": 0.5, "std_spread": 0.5, "correlation": "low_rank", "rank": 25},
        **{"scale": 0.1, "roots": 128, "branching": 4, "depth": 3, "bias": 0.5, "apart_steps": 100},
        apart_rate=3e-4,
    )
    assert one.tree == Tree(128, 4, 3, exclusive=True, scaled=True) and one.tree.features == 10_880 and one.compensated
    small = settings_from("preset=synthsaebench-4k")
    assert {name for name in vars(one) if getattr(one, name) != getattr(small, name)} == {"features", "inputs", "roots"}
    # The same share of the features is in the hierarchy.
    assert small.tree.features / small.features == one.tree.features / one.features
    assert settings_from("bias=0, preset=synthsaebench-4k").bias == 0
    assert settings_from("") == Settings() and set(PRESETS) == {"synthsaebench", "synthsaebench-4k"}


def test_every_setting_and_preset_is_in_its_document():
    text = (Path(__file__).parents[2] / "docs" / "superposition.md").read_text()
    rows = "".join(line.partition("|")[2].partition("|")[0] for line in text.splitlines() if line.startswith("| `"))
    assert {name for name in settings_of(Settings) if f"`{name}`" not in rows} == set()
    assert all(f"`preset={name}`" in text for name in PRESETS)


BAD = [
    ("featurs=3", "unknown setting of superposition featurs", "did you mean features?"),
    ("features", "superposition must be followed by NAME=VALUE,...: got 'features'", "features=128"),
    ("p=.1,p=.2", "p of superposition must be given once: got it twice", "leave one out"),
    ("p=0", "p must be in (0, 1]: got 0", "the default is 0.05"),
    ("p=often", "p must be a finite number: got 'often'", "the default is 0.05"),
    ("features=0", "features must be >= 1: got 0", "the default is 64"),
    ("features=2.5", "features must be a whole number: got '2.5'", "the default is 64"),
    ("firing=zip", "firing must be one of constant, zipf, linear, random: got 'zip'", "did you mean zipf?"),
    ("firing=zipf,p=.1", "p of superposition must have an effect: got it beside firing zipf", "change firing"),
    ("exponent=2", "exponent of superposition must have an effect: got it beside firing constant", "leave it out"),
    ("rank=3", "rank of superposition must have an effect: got it beside correlation none", "leave it out"),
    ("depth=2", "depth of superposition must have an effect: got it beside roots 0", "change roots"),
    ("firing=linear,p_min=.5,p_max=.1", "p_min must be at most p_max: got 0.5 and 0.1", "swap them"),
    (
        "roots=2",
        "features must hold the hierarchy, at least 170 of 2 roots at branching 4 and depth 3: got 64",
        "fewer roots",
    ),
    (
        "roots=3,branching=2,depth=61",
        "the hierarchy, at least 93 of 3 roots at branching 2 and depth 61: got 64",
        "use",
    ),
    (
        "roots=1,branching=1,depth=2147483647",
        "the hierarchy, at least 2147483648 of 1 roots at branching 1 and depth 2147483647: got 64",
        "use",
    ),
    ("roots=2147483647,branching=2147483647", "the hierarchy, at least 2147483647 of 2147483647 roots", "use"),
    ("inputs=2147483647", "features x inputs must fit in memory: got 64 x 2147483647, which take", "use fewer"),
    ("features=2147483647", "features x inputs must fit in memory: got 2147483647 x 32, which take", "use fewer"),
    (
        "correlation=low_rank,rank=2147483647",
        "features x rank must fit in memory: got 64 x 2147483647, which take",
        "use fewer",
    ),
    ("correlation=full,features=5000", "correlation full must be of at most 4096 features: got 5000", "low_rank"),
    ("preset=synthsaebench4k", "unknown preset of superposition synthsaebench4k", "did you mean synthsaebench-4k?"),
    ("exclusive=maybe", "exclusive must be True or False: got 'maybe'", "the default is True"),
    ("=3", "unknown setting of superposition ''", "known: "),
]


@pytest.mark.parametrize(("argument", "rule", "fix"), BAD, ids=[case[0] for case in BAD])
def test_bad_settings_are_refused_in_one_line_before_anything_is_made(argument, rule, fix, monkeypatch):
    monkeypatch.setattr(superposition, "world_of", None)
    monkeypatch.setattr(checks, "available_memory", lambda: 2**36)
    with pytest.raises(UserError) as error:
        load(DataConfig(dataset=f"superposition:{argument}"))
    text = str(error.value)
    assert rule in text and fix in text.partition(rule)[2] and "\n" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize": "unit"}, "samples that are made must stay as they are: got unit normalisation"),
        ({"classes": "1"}, "classes needs labelled samples"),
        ({"samples": 2**31 - 1}, "samples must fit in memory"),
    ],
)
def test_what_does_not_go_with_made_samples_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        load(DataConfig(dataset=f"superposition:{SMALL}", **({"samples": 50} | settings)))
