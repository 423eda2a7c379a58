"""`evaluate` as a user types it: a task on a finished run."""

import contextlib
import io

import numpy as np
import pytest

from sae_jax.commands import evaluate, sweep
from sae_jax.storage import results
from tests.commands.test_commands import run, tree


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A finished run on digits that left a class out."""
    folder = tmp_path_factory.mktemp("digits")
    words = ["--dataset", "digits", "--classes", "0-8", "--rho", "0.1", "--beta", "0.1", "1", "--seeds", "2"]
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()):
        patched.chdir(folder)
        words += ["--figures", "False", "--report", "False"]
        sweep.main(["--steps", "100", "--d-hidden", "10", *words, "--name", "digits"])
    return folder / "runs" / "digits"


def test_a_run_is_put_to_a_task_and_keeps_what_it_had(digits_run):
    before = results.load(digits_run)
    done = run("evaluate", "runs/digits", "--task", "denoising", "--noise", "0.1", "0.3", cwd=digits_run.parents[1])
    assert done.returncode == 0 and done.stderr == ""
    after = results.load(digits_run)
    assert after["denoising_psnr"].dims == ("beta", "seed", "noise_level")
    assert after["noise_level"].values.tolist() == [0.1, 0.3] and after.attrs == before.attrs
    for name in before.variables:
        np.testing.assert_array_equal(after[name], before[name])
    assert (digits_run / "figures" / "denoising.png").stat().st_size > 10_000
    assert "figures/denoising.png" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith(" 0.1"))
    mean = float(after["denoising_psnr"].sel(beta=0.1).mean())
    assert f"{mean:.1f}±" in row


def test_a_figure_that_cannot_be_written_leaves_the_results_as_they_were(digits_run, tmp_path, capsys):
    for name in ("results.nc", "params.safetensors"):
        (tmp_path / name).write_bytes((digits_run / name).read_bytes())
    (tmp_path / "figures").write_text("a file")
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(tmp_path), "--task", "inpainting"])
    assert stopped.value.code == 2 and tree(tmp_path) == before
    assert "the folder of figures must be writable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "evaluate needs the folder of one finished run, before its flags: got none"),
        (["nowhere"], "a finished run's folder must hold results.nc: got nowhere"),
        (["RUN", "--task", "prob"], "--task: task must be one of"),
        (["RUN", "--noise", "-1"], "--noise: noise must be > 0: got -1; the default is 0.05 0.1"),
        (["RUN", "--layers"], "--layers needs a value: got none"),
        (["RUN", "--hole", "2"], "--hole: hole must be in (0, 1): got 2"),
        (["RUN", "--tsak", "probe"], "unknown flag --tsak: did you mean --task?"),
        (["RUN", "RUN"], "evaluate needs the folder of one finished run, before its flags: got /"),
        (["BROKEN"], "a finished run's files must be readable"),
    ],
)
def test_bad_evaluations_end_in_one_line_and_change_nothing(digits_run, words, message, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("results.nc", "params.safetensors"):
        (broken / name).write_bytes((digits_run / name).read_bytes()[:500])
    before = tree(digits_run)
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([{"RUN": str(digits_run), "BROKEN": str(broken)}.get(word, word) for word in words])
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    assert message in captured.err and tree(digits_run) == before
