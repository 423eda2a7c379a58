"""What is kept of every unit, from the command line."""

import matplotlib
import numpy as np
import pytest

import sae_jax
from sae_jax import DataConfig
from sae_jax.commands import draw, evaluate
from sae_jax.commands.units import main
from sae_jax.data import SOURCES, Rows
from sae_jax.storage import results
from tests.commands.test_commands import run as run_alone

matplotlib.use("Agg")
RNG = np.random.default_rng(0)
RUN = DataConfig(dataset="digits", samples=200)
SHORT = {"batch_size": 20, "steps": 30}


def saved(folder, *arguments, **settings):
    """A finished run in a folder."""
    folder.mkdir(parents=True)
    results.save(sae_jax.sweep(*arguments, **SHORT, **settings), folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run of two rho and two seeds on digits, in the folder runs of an otherwise empty one."""
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path / "runs" / "r", RUN, rho=[0.05, 0.2], d_hidden=6, seeds=2)


def test_a_run_keeps_its_units_once_and_again(folder, capsys):
    before = results.load(folder)
    main(["r"])
    said, first = capsys.readouterr(), results.load(folder)
    assert not said.err and said.out.splitlines()[-2:] == ["  runs/r/results.nc", "  runs/r/figures/units.png"]
    assert "units, mean +- sample standard deviation over 2 seeds" in said.out and "dead, mean" in said.out
    kept = [name for name in first.data_vars if name.startswith("units_")]
    assert set(first.data_vars) - set(before.data_vars) == set(kept) and len(kept) == 12
    assert first["units_density"].dims == ("rho", "seed", "unit")
    np.testing.assert_allclose(first["units_density"], first["eval_firing_rate"], rtol=1e-6)
    np.testing.assert_array_equal(
        first["units_top_activation"].max("top_rank").fillna(0) > 0.1, first["units_dead"] == 0
    )
    assert matplotlib.image.imread(folder / "figures" / "units.png").std() > 0.05
    main(["r", "--top", "3", "--quantiles", "0", ".5", "--each", "2", "--nearest", "2"])
    second = results.load(folder)
    assert {name for name in second.data_vars if name.startswith("units_")} == set(kept)
    assert {second.sizes[dim] for dim in ("top_rank", "activation_quantile", "quantile_rank", "nearest_rank")} == {2, 3}
    np.testing.assert_array_equal(second["units_top_sample"], first["units_top_sample"][..., :3])
    evaluate.main(["r", "--task", "denoising", "--noise", ".1"])
    assert "units_density" in results.load(folder)


@pytest.mark.parametrize(
    ("words", "point"),
    [
        (["--lane", "rho=.2", "seed=1"], {"rho": 0.2, "seed": 1}),
        (["--best", "eval_reconstruction"], None),
    ],
)
def test_one_lane_alone(folder, words, point, capsys):
    main(["r", *words])
    found = results.load(folder)["units_density"].notnull().any("unit")
    point = sae_jax.open(folder).best("eval_reconstruction").point if point is None else point
    assert int(found.sum()) == 1 and bool(found.sel(point))
    assert " ".join(f"{name}={value:g}" for name, value in point.items()) in " ".join(capsys.readouterr().out.split())


def test_the_page_is_drawn_again_for_a_paper_and_of_another_lane(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        draw.main(["r", "--figure", "units"])
    assert ended.value.code == 2
    assert (
        "figure units needs samples of units, which the command units keeps: the run holds none"
        in capsys.readouterr().err
    )
    main(["r"])
    capsys.readouterr()
    draw.main(["r", "--figure", "units", "--style", "paper", "--format", "pdf", "--select", "rho=.05", "seed=1"])
    said = capsys.readouterr().out
    assert said.startswith("runs/r/drawn/units.pdf\n") and "of the lane seed=1" in said and "rho=0.05 alone" in said
    draw.main(["r"])
    assert "units" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "units needs the folder of one finished run, before its flags: got none"),
        (["none"], "a finished run's folder must hold results.nc: got none"),
        (["r", "--lane", "rho=.3", "seed=0"], "rho must be a value of the sweep: got 0.3; use one of 0.05, 0.2"),
        (["r", "--lane", "rho"], "--lane takes words NAME=VALUE: got 'rho'"),
        (["r", "--lane", "rho=.05"], "lane needs a value for seed: got none"),
        (["r", "--lane", "rho=.05", "seed=0", "--best", "eval_l0"], "--lane and --best each name a lane: got rho=.05"),
        (["r", "--at", "eval_l0=2"], "--at limits --best: got eval_l0=2 without it; add --best"),
        (["r", "--best", "eval_l1"], "unknown measure of whole lanes eval_l1"),
        (["r", "--top", "0"], "top must be >= 1: got 0; the default is 16"),
        (["r", "--top", "2000000000"], "what is kept of units must fit in memory: got 4 lanes of 6 units"),
        (["r", "--quantiles", "2"], "quantiles must be in [0, 1]: got 2; the default is 0.25 0.5 0.75"),
        (["r", "--quantiles", ".5", ".5"], "quantiles must not name a quantile twice: got 0.5, 0.5; leave one"),
        (["r", "--each", "x"], "each must be a whole number: got 'x'; the default is 4"),
        (["r", "--nearest", "-1"], "nearest must be >= 1: got -1; the default is 5"),
        (["r", "--nearst", "1"], "unknown flag --nearst: did you mean --nearest?"),
        (["r", "--dataset", "array:no.npy"], "dataset array needs a file that exists: got no.npy"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(folder, words, message, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_lane_that_diverged_is_left_out_and_refused_alone(folder, capsys):
    wild = results.load(folder)
    wild["diverged_at"].loc[{"rho": 0.05, "seed": 0}] = 3
    results.save(wild, folder)
    main(["r"])
    assert "warning: 1 lanes had turned non-finite in training; they are left out" in capsys.readouterr().out
    assert results.load(folder)["units_density"].sel(rho=0.05, seed=0).isnull().all()
    with pytest.raises(SystemExit) as ended:
        main(["r", "--lane", "rho=.05", "seed=0"])
    assert ended.value.code == 2 and "the lane must not have diverged: got one that has" in capsys.readouterr().err


def test_samples_with_names_in_a_file_that_was_moved(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = RNG.uniform(size=(120, 6)).astype(np.float32)

    def read(argument, config):
        return Rows(x, "words", names=[f"word {number % 3}" for number in range(120)])

    monkeypatch.setitem(SOURCES, "words", read)
    saved(tmp_path / "runs" / "w", DataConfig(dataset="words"), d_hidden=4, seeds=1)
    main(["w", "--top", "4"])
    names = results.load("runs/w")["units_top_name"]
    assert names.attrs["kind"] == "name" and set(names.values.ravel()) <= {"", "word 0", "word 1", "word 2"}
    np.save("x.npy", x)
    saved(tmp_path / "runs" / "m", DataConfig(dataset="array:x.npy"), d_hidden=4, seeds=1)
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    with pytest.raises(SystemExit):
        main(["m"])
    assert "(where it was moved, add --dataset array:NEW.npy)" in capsys.readouterr().err
    main(["m", "--dataset", "array:y.npy"])
    assert results.load("runs/m")["dataset"].item() == f"array:{tmp_path / 'y.npy'}"
    assert "units_top_name" not in results.load("runs/m")


def test_as_a_process_of_its_own(tmp_path):
    saved(tmp_path / "runs" / "r", RUN, d_hidden=4, seeds=1)
    done = run_alone("units", "r", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "figures/units.png" in done.stdout
