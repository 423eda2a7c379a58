"""docs/plugins.md as a user types it: parts of each kind from a file, and runs that execute nothing by themselves."""

import hashlib
import json
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import sae_jax
from sae_jax.commands import draw, encode, evaluate, export, merge, runs, sweep, table, units
from sae_jax.plugins import LOADED
from sae_jax.storage import results
from tests.commands.pages import typed_commands
from tests.commands.test_commands import tree
from tests.commands.test_help import flags_of, helped
from tests.plugins.files import EXAMPLE, HEAD, forgotten, install, written
from tests.processes import ended, start

PAGE = EXAMPLE.with_name("plugins.md")
PLUGIN = ("--plugin", "docs/my_parts.py")
QUICK = ("--d-hidden", "4", "--seeds", "1", "--figures", "False", "--batch-size", "50", "--steps", "2")
QUICK += ("--report", "False")


@pytest.fixture(autouse=True)
def no_plugin_stays_loaded():
    with forgotten():
        yield


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The folder in which the commands of the page were typed; whoever executes its plug-in leaves a mark there."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "docs").mkdir()
    mark = f"\nwith open({str(folder / 'executed')!r}, 'a') as file:\n    file.write('x')\n"
    (folder / "docs" / "my_parts.py").write_text(EXAMPLE.read_text() + mark)
    with forgotten(), typed_commands(PAGE.read_text(), folder) as commands:
        assert [name for name, _, _ in commands] == ["sweep", "sweep", "evaluate"]
    return folder


@pytest.fixture
def there(typed, monkeypatch):
    monkeypatch.chdir(typed)
    return typed


def refused(main, *words, capsys):
    """What a command says before it ends with exit code 2 and one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*words])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said


def test_every_kind_of_part_is_used_as_the_page_says(there):
    rings, sharp = results.load("runs/rings"), results.load("runs/sharp")
    assert rings.sizes["student_t"] == 2 and rings.sizes["input"] == 8  # The source: two inputs for each of 4 rings.
    curve = rings["loss_student_t"]
    assert np.all(curve.isel(student_t=0) == 0) and np.all(curve.isel(student_t=1) > 0)
    assert curve.attrs["units"] == "nat" and rings["student_t"].attrs["long_name"].startswith("weight of the Student-t")
    for run in (rings, sharp):
        rows = np.linalg.norm(run["decoder_weight"].values, axis=-1)
        np.testing.assert_allclose(run["eval_row_norm"], rows, rtol=1e-5)
    assert sharp["sharpness"].values.tolist() == [1, 2, 4] and json.loads(sharp.attrs["config"])["model"] == "softplus"
    sae_jax.plugins.load("docs/my_parts.py")
    lane = sae_jax.open("runs/sharp").lane(sharpness=2, seed=1)
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    z = rows @ lane.params["encoder_weight"].T + lane.params["encoder_bias"]
    np.testing.assert_allclose(lane.encode(rows), np.log1p(np.exp(2 * z)) / 2, rtol=1e-4, atol=1e-6)
    assert rings["spread_std"].dims == ("student_t", "seed") and float(rings["spread_std"].min()) > 0
    assert Path("runs/rings/figures/spread.png").stat().st_size > 5_000
    diary = np.loadtxt("diary.txt")
    np.testing.assert_allclose(diary[:, 1], rings["loss"].mean(["student_t", "seed"]), rtol=1e-5)
    np.testing.assert_array_equal(diary[:, 0], rings["step"])


def test_a_run_says_what_it_used(there):
    record = json.loads(Path("runs/rings/config.json").read_text())
    [used] = record["plugins"]
    sha256 = hashlib.sha256(Path("docs/my_parts.py").read_bytes()).hexdigest()
    assert (used["file"], used["sha256"]) == (str(there / "docs" / "my_parts.py"), sha256)
    kinds = {"term": ["student_t"], "measure": ["row_norm"], "source": ["rings"]}
    assert used["parts"] == kinds | {"observer": ["diary"]}
    assert record["versions"]["plug-in my_parts.py"] == f"sha256 {sha256[:12]}"
    assert json.loads(results.load("runs/rings").attrs["plugins"])[0]["parts"] == kinds
    assert json.loads(Path("runs/sharp/config.json").read_text())["plugins"][0]["parts"]["model"] == ["softplus"]


def test_help_shows_the_settings_of_a_plug_in_with_their_ranges(there, capsys):
    usual = helped(sweep, "--help", capsys=capsys)
    short = helped(sweep, *PLUGIN, "--help", capsys=capsys)
    added = {"--sharpness", "--student-t", "--student-scale", "--observers", "--plugin"}
    assert set(flags_of(short)) - set(flags_of(usual)) == added
    words = " ".join(short.split())
    assert "weight of the Student-t penalty on the codes; >= 0 (default: 0)" in words
    assert "noise (standard deviation across a ring; >= 0, default 0.1)" in words
    assert max(map(len, short.splitlines())) <= 80
    whole = helped(sweep, "--plugin=docs/my_parts.py", "--help", "all", capsys=capsys)
    assert added < set(flags_of(whole)) and "matching_pursuit, softplus, or one" in " ".join(whole.split())
    task = " ".join(helped(evaluate, "--help", *PLUGIN, capsys=capsys).split())
    assert (
        "spread: held-out samples to look at, at most; >= 1 [sample] (default: 200)" in task
        and "stacked, spread" in task
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "softplus", "--sharpness", "0"), "--sharpness: sharpness must be > 0: got 0; the default is 1"),
        (("--student-t", "-1"), "--student-t: student_t must be >= 0: got -1"),
        (("--model", "topk", "--student-t", ".1"), "--student-t is no setting of model topk"),
        (("--model", "softplu"), "unknown model softplu: did you mean softplus?"),
        (("--dataset", "rings:noise=-1"), "noise must be >= 0: got -1; the default is 0.1"),
        (("--dataset", "rings:noses=1"), "unknown setting of rings noses: did you mean noise?"),
        (("--dataset", "rings:4"), "rings must be followed by NAME=VALUE,...: got '4'; as in rings:rings=3"),
        (("--observers", "dairy"), "unknown observer dairy: known: diary"),
        (("--observers", "diary:file"), "diary must be followed by NAME=VALUE,...: got 'file'"),
        (("--sharpnes", "1"), "unknown flag --sharpnes: did you mean --sharpness?"),
        (("--plugin", "nowhere.py"), "a plug-in must be a file of Python that can be read: got nowhere.py: No such"),
        (("--plugin",), "--plugin needs a file: got none; as in --plugin my_parts.py"),
        (("--plugin", "docs"), "a plug-in must be a file of Python that can be read: got docs: Is a directory"),
    ],
)
def test_bad_values_end_in_one_line_and_write_nothing(words, message, there, capsys):
    before = tree(there / "runs")
    words = words if "--plugin" in words else (*PLUGIN, *words)
    assert message in refused(sweep.main, *QUICK, *words, "--name", "bad", capsys=capsys)
    assert tree(there / "runs") == before


@pytest.mark.parametrize(
    ("parts", "words", "message"),
    [
        ("3", (), "a plug-in must declare its parts by name in PARTS: got 3 in parts.py"),
        ("1 / 0", (), "as it is read: got ZeroDivisionError(division by zero) at line 19 of parts.py"),
        ("{'name': term()}", (), "got name of term name of parts.py, also a flag of every training; rename it"),
        ("{'t': Task('t_a', fails, fails, Own)}", (), "got noise of task t of parts.py, also a flag of evaluate"),
        ("{'a': mine('a', encode=fails)}", ("--model", "a"), "got RuntimeError(not today) at line 17 of parts.py"),
        ("{'a': term(fails)}", ("--a", ".1"), "got RuntimeError(not today) at line 17 of parts.py; correct it there"),
        ("{'a': Measure(fails, 'a')}", (), "got RuntimeError(not today) at line 17 of parts.py; correct it there"),
        ("{'a': Source(fails, 'a')}", ("--dataset", "a"), "got RuntimeError(not today) at line 17 of parts.py"),
        ("{'a': Source(lambda *_: 3, 'a')}", ("--dataset", "a"), "source a of parts.py must return sae_jax.data.Rows"),
        ("{'a': term(lambda codes, *_: codes)}", ("--a", ".1"), "term a of parts.py must have shape []: got shape ["),
    ],
)
def test_wrong_plug_ins_end_in_one_line_and_write_no_file(parts, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = "@dataclasses.dataclass(frozen=True)\nclass Own:\n    noise: float = setting(1.0, POSITIVE, '')\n"
    path = written(tmp_path, parts)
    path.write_text(path.read_text().replace("\nPARTS", f"\n{own if 'Own' in parts else ''}PARTS"))
    words = ("--dataset", "digits", "--samples", "100", *words) if "--dataset" not in words else words
    said = refused(sweep.main, "--plugin", "parts.py", *QUICK, *words, "--name", "bad", capsys=capsys)
    assert message in said and [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


NEEDED = r"comes from a plug-in, which must be loaded: got none that declares it; add --plugin docs/my_parts.py"


def test_no_command_executes_what_a_run_names(there, capsys, tmp_path):
    marks = Path("executed").stat().st_size
    table.main(["runs/sharp"])
    draw.main(["runs/rings", "--figure", "heatmaps", "--out", str(tmp_path / "drawn")])
    runs.main(["sharp"])
    out = ("--out", str(tmp_path / "out"))
    for main, words, part in [
        (encode.main, ("runs/sharp", *out), "model softplus"),
        (encode.main, ("runs/rings", "--lane", "student-t=.1", "seed=0", *out), "term student_t"),
        (export.main, ("runs/sharp", "--to", "torch", *out), "model softplus"),
        (evaluate.main, ("runs/sharp", "--task", "denoising"), "model softplus"),
        (units.main, ("runs/rings",), "term student_t"),
        (merge.main, ("runs/sharp", "runs/sharp", "--name", "both"), "model softplus"),
        (sweep.main, ("--extend", "runs/sharp", "--seeds", "3", "--name", "more"), "model softplus"),
        (sweep.main, ("--start-from", "runs/rings", "--steps", "9", "--name", "more"), "term student_t"),
    ]:
        assert f"the run's {part} {NEEDED}" in refused(main, *words, capsys=capsys)
    with pytest.raises(sae_jax.UserError, match=NEEDED):
        sae_jax.open("runs/sharp")
    assert Path("executed").stat().st_size == marks and not (tmp_path / "out").exists()


def test_with_its_plug_in_a_run_is_encoded_merged_extended_and_started_from(there, tmp_path):
    encode.main(["runs/sharp", *PLUGIN, "--out", str(tmp_path / "codes.npz")])
    assert np.load(tmp_path / "codes.npz")["codes"].shape == (1000, 12)
    merge.main(["runs/sharp", "runs/sharp", *PLUGIN, "--runs", str(tmp_path), "--name", "both"])
    assert json.loads((tmp_path / "both" / "config.json").read_text())["plugins"][0]["parts"]["model"] == ["softplus"]
    more = ["--figures", "False", "--report", "False", "--runs", str(tmp_path), *PLUGIN]
    sweep.main(["--extend", str(there / "runs" / "rings"), "--student-t", "0", ".1", ".2", *more, "--name", "extended"])
    before, after = results.load("runs/rings"), results.load(tmp_path / "extended")
    np.testing.assert_array_equal(after["loss_student_t"].isel(student_t=[0, 1]), before["loss_student_t"])
    sweep.main(["--start-from", str(there / "runs" / "sharp"), "--steps", "5", *more, "--name", "on"])
    assert results.load(tmp_path / "on")["sharpness"].values.tolist() == [1, 2, 4]
    # Another file of the same parts is a warning.
    path = tmp_path / "moved.py"
    path.write_text(Path("docs/my_parts.py").read_text() + "\n")
    words = ["runs/sharp", "--plugin", str(path), "--out", str(tmp_path / "codes.npz")]
    _, said, code = ended(start(["-m", "experiments.encode", *words], there))
    assert code == 0 and said.startswith("warning: ") and said.count("\n") == 1
    assert "got plug-in my_parts.py sha256 " in said


STOPPER = """
import os, signal

class Stopper(Observer):
    def points(self, points):
        if points.step >= 6 and not os.path.exists("stopped"):
            open("stopped", "w").close()
            os.kill(os.getpid(), signal.SIGINT)

PARTS["stopper"] = Stopper
PARTS["student_t"] = STUDENT_T._replace(models=("softplus", "batch_topk"))
"""


def test_a_run_is_resumed_with_its_plug_in_and_equals_one_that_was_not_interrupted(tmp_path):
    (tmp_path / "parts.py").write_text(EXAMPLE.read_text() + STOPPER)
    words = ["--plugin", "parts.py", "--dataset", "rings", "--model", "softplus", "batch_topk", "--student-t", ".1"]
    words += [
        "--d-hidden",
        "4",
        "--k",
        "2",
        "--seeds",
        "2",
        "--steps",
        "12",
        "--figures",
        "False",
        "--report",
        "False",
        "--observers",
        "stopper",
    ]

    def typed(*words):
        return ended(start(["-m", "experiments.sweep", *words], tmp_path))

    said, failed, code = typed(*words, "--name", "run")
    assert code == 130 and "--resume runs/run --plugin parts.py" in failed, (said, failed)
    _, failed, code = typed("--resume", "run")
    assert code == 2 and "the run's model softplus comes from a plug-in" in failed and failed.count("\n") == 1
    (tmp_path / "parts.py").write_text(EXAMPLE.read_text() + STOPPER + "\n")
    said, failed, code = typed("--resume", "run", "--plugin", "parts.py")
    assert code == 0 and not failed, failed
    assert "warning: results are the same to the bit only with the same versions: got plug-in parts.py sha256" in said
    assert typed(*words, "--name", "whole")[2] == 0
    resumed, whole = (results.load(tmp_path / "runs" / name) for name in ("run", "whole"))
    assert resumed.identical(whole) and np.isfinite(whole["loss_student_t"]).all()


def test_a_damaged_record_of_plug_ins_is_passed_over_and_executes_nothing(there, tmp_path, capsys):
    shutil.copytree("runs/sharp", tmp_path / "sharp")
    record = json.loads((tmp_path / "sharp" / "config.json").read_text())
    for wrong in ("x", [3], [{"file": "docs/my_parts.py"}], [{"file": 3, "sha256": "", "version": "", "parts": {}}]):
        (tmp_path / "sharp" / "config.json").write_text(json.dumps(record | {"plugins": wrong}))
        runs.main(["sharp", "--runs", str(tmp_path)])
    assert "softplus" in capsys.readouterr().out


def test_an_installed_package_is_known_without_a_flag(tmp_path, monkeypatch, capsys):
    install(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert "--sharpness" in flags_of(helped(sweep, "--help", capsys=capsys))
    words = ["--dataset", "rings", "--model", "softplus", "--d-hidden", "3", "--steps", "2", "--figures", "False"]
    sweep.main([*words, "--report", "False", "--seeds", "1", "--name", "run"])
    record = json.loads(Path("runs/run/config.json").read_text())
    assert record["plugins"][0]["package"] == "their-parts" and record["versions"]["plug-in their-parts"] == "1.2"
    encode.main(["runs/run"])
    for plugin in [*sae_jax.plugins.LOADED.values()]:
        sae_jax.plugins.unload(plugin)
    sys.modules.pop("their_parts")
    shutil.rmtree(tmp_path / "their_parts-1.2.dist-info")
    said = refused(encode.main, "runs/run", capsys=capsys)
    assert "model softplus comes from the package their-parts 1.2, which must be installed" in said


def test_an_installed_package_whose_flag_is_taken_is_left_out_with_a_warning(tmp_path, monkeypatch, capsys):
    install(tmp_path, "clashing", "clashing", text=f"{HEAD}\nPARTS = {{'name': term()}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "runs").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("always", sae_jax.SweepWarning)
        runs.main([])
    said = capsys.readouterr()
    assert "no runs in" in said.out and said.err.count("\n") == 1 and not LOADED
    assert said.err.startswith("warning: settings must have names of their own: got name of term name of clashing, ")
    assert "the plug-in of the installed package is left out" in said.err
