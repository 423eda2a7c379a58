"""What is wrong with a plug-in ends in one line, and nothing of it is registered."""

import pytest

import sae_jax
from sae_jax import UserError
from sae_jax.plugins import LOADED, load
from sae_jax.sweeps.observers import OBSERVERS
from tests.plugins.files import EXAMPLE, written

OFF = "swept(0.0, NON_NEGATIVE, '', off=0.0)"
TASK = "Task('t_score', fails, fails)"
BROKEN = {
    "no parts": ("{}", "a plug-in must declare its parts by name in PARTS: got {} in parts.py"),
    "a list": ("[term()]", r"got \[.*\] in parts.py"),
    "another kind": ("{'a': 3}", "a part must be a Model, AddedTerm, .* got 3 as a in parts.py"),
    "a name with a dash": ("{'a-b': term()}", "names of parts must be of small letters, digits and _: got 'a-b'"),
    "a model of another name": ("{'a': mine('b')}", "must have the name under which it is declared: got b"),
    "a model without loss": ("{'a': mine('a', loss=None)}", "model a of parts.py must have a function loss: got None"),
    "settings of none": ("{'a': mine('a', Settings=dict)}", "must have Settings derived from .* got the class dict"),
    "no terms": ("{'a': mine('a', terms=lambda s: {})}", "terms must return a dict of Term by name: got {}"),
    "a part that fails": (
        "{'a': mine('a', terms=fails)}",
        r"a plug-in must not raise an exception: got RuntimeError\(not today\) at line 17 of parts.py",
    ),
    "an architecture": ("{'topk': mine('topk')}", "got model topk of parts.py, also model topk of sae_jax; rename it"),
    "a preset": ("{'gao': mine('gao')}", "got model gao of parts.py, also model gao of sae_jax"),
    "a term that is on": (
        "{'a': term(weight=swept(1.0, NON_NEGATIVE, ''))}",
        "the weight of term a of parts.py must be off unless it is given: got a default of 1.0",
    ),
    "a plain weight": ("{'a': term(weight=1.0)}", "settings of term a of parts.py must be made by .*swept or static"),
    "a setting of the training": ("{'steps': term()}", "got steps of term steps of parts.py, also of the training"),
    "a setting of the data": ("{'heldout': term()}", "got heldout of term heldout of parts.py, also of the data"),
    "a setting of a model": ("{'l1': term()}", "got l1 of term l1 of parts.py, also of model classic"),
    "a term's name": ("{'reconstruction': term()}", "terms must have names of their own: got term reconstruction"),
    "a term of no model": (
        "{'a': term(models=('tpk',))}",
        "models of term a of parts.py must be among .*'tpk'",
    ),
    "one setting twice": (
        f"{{'a': term(), 'b': term(settings={{'a': {OFF}}})}}",
        "settings must have names of their own: got a of term a of parts.py, also of term b",
    ),
    "a measure's name": ("{'l0': Measure(fails, 'a')}", "got measure l0 of parts.py, also measure l0 of sae_jax"),
    "dims": (
        "{'a': Measure(fails, 'a', dims=('step',))}",
        r"dims of measure a .* got \('step',\)",
    ),
    "a source's name": ("{'mnist': Source(fails, 'a')}", "got source mnist of parts.py, also source mnist of sae_jax"),
    "a source without help": ("{'a': Source(fails, '')}", "source a of parts.py must have its help in words: got ''"),
    "a source's settings": ("{'a': Source(fails, 'a', dict)}", "settings of source a of parts.py must be a dataclass"),
    "a task's name": ("{'probe': Task('probe_a', fails, fails)}", "got task probe of parts.py, also task probe of sae"),
    **{
        f"a task {name}": (
            f"{{'{name}': Task('{name}_x', fails, fails)}}",
            f"variables of tasks must begin as no other variable of a run does: got task {name} .* meet {met}",
        )
        for name, met in {
            **{"encoder": "encoder_weight", "decoder": "decoder_weight", "eval": "eval_", "loss": "loss_"},
            **{"truth": "truth_", "data": "data_summary", "gate": "gate_bias", "d": "d_hidden", "seed": "seed"},
            **{"eval_x": "eval_", "probe_more": "probe_", "threshold": "threshold", "input": "input"},
        }.items()
    },
    "two tasks": (
        "{'a': Task('a_x', fails, fails), 'a_b': Task('a_b_x', fails, fails)}",
        "got task a of parts.py, whose a_... meet a_b_",
    ),
    **{
        f"a parameter {name}": (
            f"{{'a': mine('a', parameters=lambda s: {{{name!r}: Parameter(('input',), 'p')}})}}",
            f"model a of parts.py: {message}",
        )
        for name, message in {
            **{"a/b": "names of parameters must be of letters", "a b": "names of parameters must be of letters"},
            **dict.fromkeys(
                ["loss", "loss_x", "eval_l0", "truth_x", "rho", "steps", "samples", "seed", "unit", "stopped_at"],
                "parameters must have names of their own: got ",
            ),
        }.items()
    },
    "no parameter along input": (
        "{'a': mine('a', parameters=lambda s: {'p': Parameter(('unit',), 'p')})}",
        "model a of parts.py must have a parameter along input, .*: got p; give one the dims",
    ),
    "a parameter along samples": (
        "{'a': mine('a', parameters=lambda s: {'p': Parameter(('batch',), 'p')})}",
        r"dims of parameters must be among unit, input and target: got \('batch',\) of p",
    ),
    "a training that is none": ("{'a': mine('a', training=3)}", r"training of model a .* pairs .*: got 3"),
    "a training of nothing": (
        "{'a': mine('a', training=(('nope', 1),))}",
        "training of model a .*: unknown setting nope",
    ),
    "a training out of range": (
        "{'a': mine('a', training=(('learning_rate', -1),))}",
        "training of model a of parts.py: learning_rate must be > 0: got -1",
    ),
    "choices": ("{'a': mine('a', choices=3)}", "model a of parts.py must be one model: got choices 3"),
    "what is missed": (
        "{'a': mine('a', missed='x')}",
        "must have as missed why a target is missed and what to try: got",
    ),
    "a rule": ("{'a': mine('a', active_rule=lambda s: 3)}", "active_rule must return words: got 3"),
    "a term in words": (
        "{'a': mine('a', terms=lambda s: {'x/y': Term('a', 'b')})}",
        "names of terms must be of small letters, digits and _: got x/y of model a",
    ),
    "an observer that needs more": (
        "{'a': type('A', (Observer,), {'__init__': lambda self, more: None})}",
        "observer a of parts.py must be made of nothing: got missing a required argument: 'more'",
    ),
    "a task's score": ("{'a': Task('score', fails, fails)}", "SCORE of task a of parts.py must begin with a_: got 'sc"),
    "a task without draw": (
        "{'t': Task('t_a', fails, None)}",
        "task t of parts.py must have a function draw",
    ),
    "an observer that is made": ("{'a': Observer()}", "a part must be .* derived from Observer: got a Observer as a"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_parts_are_refused(case, tmp_path):
    parts, message = BROKEN[case]
    with pytest.raises(UserError, match=message) as refused:
        load(written(tmp_path, parts))
    assert str(refused.value).isprintable() and not LOADED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", r"as it is read: got SyntaxError\(invalid syntax\) at line 1 of parts.py; correct it there"),
        ("\x00", "as it is read: got .*Error.* parts.py"),
        ("\n1 / 0\n", r"got ZeroDivisionError\(division by zero\) at line 2 of parts.py"),
        ("import nowhere_at_all", r"got ModuleNotFoundError\(No module named 'nowhere_at_all'\) at line 1 of parts.py"),
        ("raise SystemExit(3)", r"got SystemExit\(3\) at line 1 of parts.py"),
        ("x = 3", "must declare its parts by name in PARTS: got none in parts.py; write PARTS = "),
        ("Parts = {}", "got none in parts.py; rename Parts"),
        ("from sae_jax import Model\nPARTS = {'a': Model('a')}", r"got TypeError\(.*missing.*\) at line 2 of parts.py"),
    ],
)
def test_files_that_are_no_plug_ins_are_refused(text, message, tmp_path):
    path = tmp_path / "parts.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load(path)
    assert not LOADED and [one.name for one in tmp_path.iterdir()] == ["parts.py"]


def test_a_folder_and_a_file_that_is_missing_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere.py"):
        with pytest.raises(UserError, match="a plug-in must be a file of Python that can be read: got "):
            load(path)


def test_two_plug_ins_may_not_declare_the_same(tmp_path):
    load(EXAMPLE)
    for parts, message in [
        ("{'softplus': mine('softplus')}", "got model softplus of parts.py, also in .*my_parts.py; rename it"),
        ("{'student_t': term()}", "got student_t of term student_t of parts.py, also of term student_t in .*my_parts"),
        (f"{{'a': term(models=('topk',), settings={{'student_scale': {OFF}}})}}", "student_scale .* in .*my_parts.py"),
        ("{'row_norm': Measure(fails, 'a')}", "got measure row_norm of parts.py, also in .*my_parts.py"),
    ]:
        with pytest.raises(UserError, match=message):
            load(written(tmp_path, parts))
    assert len(LOADED) == 1


@pytest.mark.parametrize(
    ("parts", "words", "message"),
    [
        (
            "{'a': term(lambda codes, *_: codes)}",
            {"a": 1.0},
            r"term a of parts.py must have shape \[\]: got shape \[",
        ),
        (
            "{'a': term(lambda *_: 'a')}",
            {"a": 1.0},
            r"term a of parts.py must have shape \[\]: got a str;",
        ),
        (
            "{'a': Measure(lambda lane: lane.codes, 'a')}",
            {},
            r"measure a of parts.py must have shape \[\]: got shape",
        ),
        ("{'a': Measure(lambda lane: 1.0, 'a', dims=('unit',))}", {}, r"measure a of .* shape \[3\]: got shape \[\]"),
        (
            "{'a': mine('a', loss=lambda *_: 1)}",
            {"model": "a"},
            r"loss of model a of parts.py must return .* a int",
        ),
        (
            "{'a': mine('a', loss=lambda p, m, step, s: ({'b': 1.0}, None))}",
            {"model": "a"},
            "loss of model a of parts.py must return the terms that terms declares, reconstruction, .*: got b",
        ),
        *(
            (f"{{'a': mine('a', {made})}}", {"model": "a"}, f"{made.partition('=')[0]} of model a of parts.py {said}")
            for made, said in [
                ("encode=lambda p, x, s: x[:, :1]", r"must have shape \[\d+, 3\]: got shape \[\d+, 1\]"),
                ("decode=lambda p, codes, s: codes", r"must have shape \[\d+, 16\]: got shape \[\d+, 3\]"),
                ("decode=lambda p, codes, s: None", r"must have shape \[\d+, 16\]: got a NoneType"),
                ("active=lambda codes, s: True", r"must have shape \[\d+, 3\]: got shape \[\]"),
                ("active=lambda codes, s: codes", "must return booleans: got dtype float32"),
                ("memory=lambda s: 3", "must return arrays: got 3"),
                ("update=lambda *_: 3", r"must return memory of the shapes that it receives, .*: got 3"),
                ("constrain=lambda *_: {}", r"must return parameters .* encoder_weight \[3, 16\].*: got none"),
                (
                    "init=lambda k, d, s: {'extra': jnp.zeros(d)}",
                    "must return the parameters that are declared, .* extra",
                ),
                (
                    "init=lambda k, d, s: {'decoder_bias': jnp.zeros(d)}",
                    "must return the parameters .* got decoder_bias",
                ),
            ]
        ),
        (
            "{'a': mine('a', init=lambda k, d, s: {**CLASSIC.init(k, d, s), 'decoder_bias': jnp.zeros(2)})}",
            {"model": "a"},
            r"decoder_bias from init of model a of parts.py must have shape \[16\]: got shape \[2\]; return dims input",
        ),
        (
            "{'a': mine('a', init=lambda k, d, s: {**CLASSIC.init(k, d, s), 'decoder_bias': jnp.zeros(d, int)})}",
            {"model": "a"},
            "decoder_bias from init of model a of parts.py must hold real numbers: got dtype int32",
        ),
        *(
            (f"{{'a': Source(lambda *_: {rows}, 'rows')}}", {"data": "a"}, said)
            for rows, said in [
                ("3", "source a of parts.py must return sae_jax.data.Rows: got 3"),
                ("Rows(jnp.zeros(9), 'x')", r"samples of source a of parts.py must be an array .*: got shape \[9\]"),
                ("Rows(None, 'x')", "samples of source a of parts.py must be an array .*: got None"),
                ("Rows(jnp.zeros((9, 5)), 'x', labels=[0] * 3)", "labels of source a of parts.py must .* got"),
                ("Rows(jnp.zeros((9, 5)), 'x', labels=['a'] * 9)", "labels of source a of parts.py must hold real num"),
                (
                    "Rows(jnp.zeros((9, 5)), 'x', names=['a'])",
                    "names of source a of parts.py must be one a sample, 9: got 1",
                ),
                (
                    "Rows(jnp.zeros((9, 5)), 'x', jnp.zeros((9, 4)))",
                    "heldout of source a .* 5 inputs wide as its samples",
                ),
            ]
        ),
    ],
)
def test_what_has_another_shape_than_it_says_is_named(parts, words, message, samples, tmp_path):
    load(written(tmp_path, parts))
    data = sae_jax.DataConfig(dataset=words["data"]) if "data" in words else samples
    words = {name: value for name, value in words.items() if name != "data"}
    with pytest.raises(UserError, match=message):
        sae_jax.sweep(data, d_hidden=3, steps=1, batch_size=16, progress=False, **words)


def test_a_key_that_the_codes_of_a_model_miss_is_no_parameter(samples, tmp_path):
    loss = "lambda p, m, step, s: (dict.fromkeys(CLASSIC.terms(s), 0.0), None)"
    model = f"mine('a', encode=lambda p, x, s: {{}}['oops'], loss={loss})"
    load(written(tmp_path, f"{{'a': {model}, 't': term(models=('a',))}}"))
    with pytest.raises(KeyError, match="oops"):
        sae_jax.sweep(samples, "a", t=0.1, d_hidden=3, steps=1, batch_size=16, progress=False)


def test_settings_without_a_field_are_settings(samples, tmp_path):
    text = """
@dataclasses.dataclass(frozen=True)
class Empty:
    pass
class Watching(Observer):
    Settings = Empty
    def __init__(self, settings): self.settings = settings
"""
    rows = "Rows(jnp.arange(300.0).reshape(60, 5) % 7, 'x')"
    path = written(tmp_path, f"{{'rows': Source(lambda *_: {rows}, 'rows', Empty), 'watching': Watching}}")
    path.write_text(path.read_text().replace("\nPARTS", f"{text}\nPARTS"))
    load(path)
    assert sae_jax.data.read(sae_jax.DataConfig(dataset="rows")).samples.shape == (60, 5)
    OBSERVERS["watching"]("")
    wrong = sae_jax.DataConfig(dataset="rows:a=1")
    for ask in (lambda: OBSERVERS["watching"]("a=1"), lambda: sae_jax.data.read(wrong)):
        with pytest.raises(UserError, match="has no settings: got a=1; leave out what follows the colon"):
            ask()
