"""The commands of docs/sharing.md, as a user types them one after another, and runs that start from its folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import sae_jax
from sae_jax import UserError, interop
from sae_jax.analysis import figures
from sae_jax.analysis.beside import beside
from sae_jax.commands import draw, encode, evaluate, export, merge, sweep
from sae_jax.storage import results
from sae_jax.sweeps.dataset import SUMMARY
from sae_jax.sweeps.dictionaries import digest
from tests.commands.pages import typed_commands

PAGE = Path(__file__).parents[2] / "docs" / "sharing.md"


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The folder in which every command of the page was typed, and what each of them printed."""
    folder = tmp_path_factory.mktemp("sharing")
    with typed_commands(PAGE.read_text(), folder) as typed:
        yield folder, {f"{name} {words[-1]}": said for name, words, said in typed}


@pytest.fixture
def here(typed, monkeypatch):
    """That folder, as the working directory."""
    monkeypatch.chdir(typed[0])
    monkeypatch.setattr(figures, "save_all", lambda dataset, folder: [])
    return typed[0]


def refused(main, words, capsys):
    """The line of a command that ends with the exit code of bad input."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_the_page_has_every_command(typed):
    names = ["sweep shared", "export shared-saelens", "export shared-torch", "sweep imported", "sweep tuned"]
    assert list(typed[1]) == [*names, "frontier frontier", "draw tuned"]
    written = [path.name for folder in ("shared-saelens", "shared-torch") for path in (typed[0] / folder).iterdir()]
    assert sorted(written) == ["cfg.json", "lane.safetensors", "loader.py", "sae_weights.safetensors"]


def test_a_folder_is_measured_as_the_lane_was_that_it_was_written_from(here, typed):
    imported, shared = results.load("runs/imported"), results.load("runs/shared").sel(k=4, seed=0)
    for name in ("eval_explained_variance", "eval_l0", "eval_dead_fraction", "eval_reconstruction"):
        np.testing.assert_allclose(imported[name].squeeze("seed"), shared[name], rtol=1e-5)
    record = json.loads(Path("runs/imported/config.json").read_text())
    folder = here / "shared-saelens"
    assert (record["started_from"], record["extends"]) == (str(folder), digest(folder))
    assert record["settings"]["model"] == "topk" and record["settings"]["normalize"] == "none"
    told = typed[1]["sweep imported"]
    assert f"starting from {folder}: the parameters of a SAELens folder (topk), which takes samples as they are" in told
    assert "1 lane (1 cell x 1 seed)" in told


def test_the_page_says_what_training_on_explains(here):
    for run, said in (("imported", ".56"), ("tuned", ".63")):
        explained = float(results.load(f"runs/{run}")["eval_explained_variance"].mean())
        assert f"{explained:.2f}".removeprefix("0") == said and said in PAGE.read_text()


def test_such_a_run_is_read_like_any_other(here, tmp_path, capsys):
    evaluate.main(["imported", "--task", "probe"])
    assert 0.5 < float(results.load("runs/imported")["probe_accuracy"].squeeze()) <= 1
    draw.main(["imported", "--figure", "filters", "mean_activation", "--out", str(tmp_path / "drawn")])
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"filters.png", "mean_activation.png"}
    encode.main(["imported", "--out", str(tmp_path / "codes.npz")])
    codes = np.load(tmp_path / "codes.npz")["codes"]
    assert (np.count_nonzero(codes, axis=1) == 4).all()
    export.main(["tuned", "--lane", "seed=1", "--out", str(tmp_path / "again")])
    lane, back = sae_jax.open("runs/tuned").lane(seed=1), interop.load(tmp_path / "again")
    for name, value in lane.params.items():
        np.testing.assert_allclose(back.params[name], value, atol=1e-6)


def test_a_run_is_resumed_to_the_same_bytes_and_not_from_another_folder(here, capsys):
    folder, files = Path("runs/tuned"), ("results.nc", "params.safetensors")
    before = {name: (folder / name).read_bytes() for name in files}

    def begun():
        for name in files:
            (folder / name).unlink()
        (folder / "unfinished").mkdir()

    begun()
    weights = Path("shared-saelens/sae_weights.safetensors")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + np.float32(9).tobytes())
    line = refused(sweep.main, ["--resume", "runs/tuned"], capsys)
    assert "the command must be the one that started the run: got runs/tuned with extends" in line
    weights.write_bytes(kept)
    sweep.main(["--resume", "runs/tuned"])
    assert {name: (folder / name).read_bytes() for name in files} == before


def test_runs_of_one_folder_are_merged(here):
    merge.main(["runs/imported", "runs/tuned", "--name", "steps"])
    both = results.load("runs/steps")
    assert both["steps"].values.tolist() == [0, 300] and both.attrs["started_from"] == str(here / "shared-saelens")
    # 300 steps of one rate, none of another.
    lanes = both["eval_explained_variance"].stack(lane=both["eval_explained_variance"].dims).dropna("lane")
    assert lanes.size == 3


def test_a_run_of_several_sets_of_samples_names_the_axis_to_choose_from():
    sets = [["[1]", "[2]"]] * 2
    run = xr.Dataset(coords={SUMMARY: (("model", "targets"), sets), "targets": ["a.npy", "b.npy"]})
    line = r"one set of samples: got 2; choose lanes of one of them by --select targets=VALUE$"
    with pytest.raises(UserError, match=line):
        beside(run, {"other": run})
    with pytest.raises(UserError, match=r"got 0; train it again$"):
        beside(run.drop_vars(SUMMARY), {"other": run})


def test_points_beside_a_frontier_are_those_of_the_runs(here, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("sae_jax.storage.results.save_figure", lambda figure, path: drawn.append(_points(figure)))
    draw.main(["frontier", "--figure", "frontier", "--beside", "imported", "tuned", "--out", str(tmp_path)])
    [points] = drawn
    for run, marker in (("imported", "*"), ("tuned", "D")):
        dataset = results.load(f"runs/{run}").mean("seed")
        expected = float(dataset["eval_l0"]), float(dataset["eval_explained_variance"])
        np.testing.assert_allclose(points[marker], expected, rtol=1e-6)
    assert points["legend"] >= {"imported", "tuned", "on the Pareto front, grey points aside"}


def test_markers_are_enough_for_six_runs(here):
    dataset = results.load("runs/imported")
    assert len(beside(dataset, {str(number): dataset for number in range(6)})) == 6
    with pytest.raises(UserError, match="--beside takes at most 6 runs: got 7; leave some out"):
        beside(dataset, {str(number): dataset for number in range(7)})


def _points(figure):
    """The single points of the first panel by their marker, and what the legend says."""
    lines = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("*", "D")]
    points = {line.get_marker(): (line.get_xdata()[0], line.get_ydata()[0]) for line in lines}
    return points | {"legend": {text.get_text() for legend in figure.legends for text in legend.get_texts()}}


@pytest.mark.parametrize(
    ("main", "words", "reason"),
    [
        (draw.main, ["frontier", "--figure", "cosines", "--beside", "imported"], "--beside is shown by frontier: got"),
        (draw.main, ["frontier", "--beside", *(7 * ["imported"])], "--beside must name a run once: got imported twice"),
        (draw.main, ["frontier", "--beside", "nowhere"], "a finished run's folder must hold results.nc"),
        (draw.main, ["frontier", "--beside", "scaled"], "measured on the same samples: got scaled, on others; measure"),
        (sweep.main, ["--start-from", "shared-saelens", "--model", "relu"], "the model must be topk: got relu; leave"),
        (sweep.main, ["--start-from", "shared-saelens", "--dataset", "superposition"], "samples of as many inputs"),
        (sweep.main, ["--start-from", "shared-torch"], "a finished run's folder must hold results.nc"),
        (sweep.main, ["--start-from", "broken"], "broken must be a folder that SAELens 6 wrote: got"),
        (sweep.main, ["--start-from", "transcoder"], "decoder_weight must be as d_in, d_sae and d_out say"),
        (sweep.main, ["--steps", "0"], "steps must be >= 1 where lanes start at random: got 0"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(main, words, reason, here, capsys):
    if "scaled" in words and not Path("runs/scaled").exists():
        common = ["--start-from", "shared-saelens", "--steps", "0", "--dataset", "digits", "--normalize", "standardize"]
        sweep.main([*common, "--name", "scaled"])
    if "broken" in words:
        shutil.copytree("shared-saelens", "broken", dirs_exist_ok=True)
        Path("broken/sae_weights.safetensors").write_bytes(b"")
    if "transcoder" in words:
        shutil.copytree("shared-saelens", "transcoder", dirs_exist_ok=True)
        config = json.loads(Path("transcoder/cfg.json").read_text())
        Path("transcoder/cfg.json").write_text(json.dumps(config | {"architecture": "transcoder", "d_out": 3}))
    capsys.readouterr()
    rest = ["--dataset", "digits"] if main is sweep.main and "--dataset" not in words else []
    line = refused(main, [*words, *rest], capsys)
    assert line.startswith("error: ") and reason in line
