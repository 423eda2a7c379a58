"""The benchmark: its numbers, its table, and peers that train the same model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.benchmark.__main__ import main
from experiments.benchmark.lbfgs import numpy_cost
from experiments.benchmark.shapes import ACCELERATOR, CPU, Shape, samples
from experiments.benchmark.tables import markdown_tables
from experiments.reproduce.ufldl import FULL_BATCH
from experiments.reproduce.ufldl_patches import BETA, RHO, WEIGHT_DECAY
from sae_jax import CLASSIC, init_state, keys_of, lane_settings, train_step
from sae_jax.training.config import lane_at
from sae_jax.training.stopping import heldout_loss

SHAPE = Shape(16, 8, 32, 4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "numbers.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        main(["--quick", "--json", str(path)])
    return path


def test_every_row_has_its_rates_and_what_is_missing_is_said(saved):
    content = json.loads(saved.read_text())
    assert len(content["rows"]) == 2
    for row in content["rows"]:
        rates = row["model_steps_per_second"]
        assert set(rates) == {"engine", "products", "vmap", "lax.map"} and min(rates.values()) > 0
        assert row["gflops"] == pytest.approx(rates["engine"] * Shape(*row["shape"]).flop / 1e9)
        assert row["ratios"]["vmap"] == pytest.approx(rates["engine"] / rates["vmap"])
        assert row["compile_seconds"] > 0 and row["memory_mib"] > 0
    lists, products = content["dictionaries"]
    assert (lists["preset"], products["preset"]) == ("saelens-topk", "saelens-gated")
    assert set(lists["ratios"]) == {"products", "all codes"} and set(products["ratios"]) == {"products"}
    assert "by active codes alone" in lists["plan"] and "by active codes alone" not in products["plan"]
    rates = lists["model_steps_per_second"]
    assert lists["ratios"]["all codes"] == pytest.approx(rates["engine"] / rates["all codes"])
    assert content["square_gflops"] > 0
    fits = content["lbfgs"]
    assert fits["fits"] == fits["as low"] == 2 and 1 <= fits["iterations"]["engine"] <= 10
    ratio = fits["seconds"]["SciPy"] / fits["seconds"]["engine"]
    assert 0.1 * ratio < fits["ratio"] < 10 * ratio
    assert markdown_tables(content).count("not installed") == 4 + 2


def test_a_saved_file_is_printed_as_a_table(saved, capsys):
    main(["--table", str(saved)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| shape | model-steps/s | GFLOP/s |") and lines[5].startswith("| 16-8 x 32 x 8 |")


def test_the_fits_alone_are_measured_anew_beside_the_other_numbers(saved, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    path.write_text(saved.read_text())
    main(["--only", "lbfgs", "--quick", "--json", str(path)])
    before, after = json.loads(saved.read_text()), json.loads(path.read_text())
    assert before.pop("lbfgs")["seconds"] != after.pop("lbfgs")["seconds"] and before == after
    assert "remembering 100 steps, until a fit is within 0.01%" in capsys.readouterr().out


def test_the_dictionaries_alone_are_measured_anew_beside_the_other_numbers(saved, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    path.write_text(saved.read_text())
    main(["--only", "dictionaries", "--quick", "--json", str(path)])
    before, after = json.loads(saved.read_text()), json.loads(path.read_text())
    old, new = before.pop("dictionaries"), after.pop("dictionaries")
    assert before == after and [row["preset"] for row in new] == [row["preset"] for row in old]
    assert all(row["machine"] == before["machine"] for row in new)
    rates = [[row["model_steps_per_second"] for row in rows] for rows in (old, new)]
    assert all(one != other for one, other in zip(*rates, strict=True))
    printed = capsys.readouterr().out
    assert "Dictionaries (" in printed and "saelens-topk 16-80 x 32 x 1: 1 lane" in printed


def test_training_on_shards_is_measured_beside_the_other_numbers(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / "numbers.json"
    path.write_text(saved.read_text())
    main(["--only", "streams", "--quick", "--json", str(path)])
    content = json.loads(path.read_text())
    stream = content.pop("streams")
    assert content == json.loads(saved.read_text())
    assert stream["bytes"] == 2**22 and 0 < stream["waiting_share"] < 1 and stream["step_seconds"] > 0
    assert 2**26 < stream["peak_bytes"] < 2**32
    assert min(stream["random_bytes_per_second"], stream["sequential_bytes_per_second"]) > 2**20
    assert [one.name for one in tmp_path.iterdir()] == ["numbers.json"], "the shards are removed"
    assert "the device waits for rows" in capsys.readouterr().out
    assert "the device waits for rows" in markdown_tables(content | {"streams": stream})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "nowhere.json", "--only", "lbfgs"], "--table measures nothing: got it beside --only; leave one"),
        (["--table", "nowhere.json"], "--table must name a file written by --json: got nowhere.json"),
        (["--json", "no/such/folder.json"], "--json must be writable: got no/such/folder.json"),
        (["--json", "."], "--json must be writable: got .: Is a directory; choose another"),
        (["--jsn", "a"], "unknown flag --jsn: did you mean --json?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("shape", [*CPU, *ACCELERATOR], ids=str)
def test_a_shape_has_as_many_lanes_as_it_says(shape):
    assert len(shape.cells().model.rho) * len(shape.seeds) == shape.lanes


def test_the_cost_given_to_scipy_is_the_objective_with_its_gradient():
    data = samples(16).train[:200]
    settings = lane_settings(d_hidden=8, rho=RHO, beta=BETA, weight_decay=WEIGHT_DECAY, **FULL_BATCH)
    start, rebuild = ravel_pytree(CLASSIC.init(jax.random.key(0), 16, settings.model))
    expected, gradient = jax.value_and_grad(lambda w: heldout_loss(rebuild(w), data, settings))(start)
    cost = numpy_cost(data.astype(np.float64), {name: part.shape for name, part in rebuild(start).items()})
    value, slope = cost(np.asarray(start, np.float64))
    assert value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-4, atol=1e-5)


def test_one_step_of_both_peers_is_one_step_of_ours():
    torch = pytest.importorskip("torch")
    from experiments.benchmark.torch_peers import Autoencoders, step_of, tensors

    data, rows = samples(16), np.arange(32)
    settings = jax.tree.map(jnp.asarray, lane_at(SHAPE.cells(), 0))
    keys = [keys_of(jax.random.key(seed)).init for seed in SHAPE.seeds]
    starts = [tensors(CLASSIC.init(key, 16, settings.model)) for key in keys]
    states = [train_step(settings, init_state(key, settings, 16), data.train[rows])[0] for key in keys]
    defaults, train = lane_settings(**SHAPE.settings), torch.from_numpy(data.train)
    rho = torch.tensor(float(settings.model.rho))

    alone = Autoencoders(starts[0], rho, defaults.model)
    stacked = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    together = Autoencoders(stacked, rho.expand(len(starts))[:, None], defaults.model)
    for model in (alone, together):
        step_of(model, train, defaults.training.learning_rate, compile_it=False)(torch.from_numpy(rows))
    for seed, state in enumerate(states):
        for name, value in state.params.items():
            np.testing.assert_allclose(getattr(together, name)[seed].detach(), value, atol=1e-5)
            if seed == 0:
                np.testing.assert_allclose(getattr(alone, name).detach(), value, atol=1e-5)
        np.testing.assert_allclose(together.mean_activation[seed], state.memory.average, atol=1e-6)


def test_a_shape_without_memory_is_left_out_and_what_was_measured_is_kept(saved, tmp_path, monkeypatch, capsys):
    rows, numbers = json.loads(saved.read_text())["rows"], tmp_path / "numbers.json"

    def measured(shape, devices, seconds):
        if shape == Shape(*rows[0]["shape"]):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore")
        return rows[1]

    def ended(*_):
        assert json.loads(numbers.read_text())["rows"] == rows[1:]
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.benchmark.__main__.measure", measured)
    monkeypatch.setattr("experiments.benchmark.__main__.against_scipy", ended)
    with pytest.raises(SystemExit) as end:
        main(["--quick", "--json", str(numbers)])
    assert end.value.code == 130
    said = f"left out {Shape(*rows[0]['shape'])}: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\n"
    assert said in capsys.readouterr().err
