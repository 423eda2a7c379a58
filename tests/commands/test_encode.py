"""Codes of new samples, from the command line."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import sae_jax
from sae_jax import DataConfig
from sae_jax.commands import draw, evaluate
from sae_jax.commands.encode import main
from sae_jax.storage import results

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    settings = {"normalize": "unit", "output": "linear", "rho": [0.05, 0.2], "d_hidden": 8}
    results.save(sae_jax.sweep(DataConfig(dataset="digits"), **settings, seeds=2, steps=60), folder)
    return folder


def read(path):
    with np.load(path) as file:
        return dict(file)


def test_all_samples_of_the_run_with_their_labels(folder, tmp_path, capsys):
    main([str(folder), "--lane", "rho=.2", "seed=1", "--out", str(tmp_path / "codes.npz")])
    arrays = read(tmp_path / "codes.npz")
    lane = sae_jax.open(folder).lane(rho=0.2, seed=1)
    digits = load_digits()
    np.testing.assert_array_equal(arrays["codes"], lane.encode(digits.data / 16))
    np.testing.assert_array_equal(arrays["labels"], digits.target)
    printed = capsys.readouterr().out
    assert "rho=0.2, seed=1" in printed and "1797 samples" in printed and "codes.npz" in printed


def test_new_samples_by_the_best_lane_that_is_sparse_enough(folder, tmp_path):
    new = RNG.uniform(size=(5000, 64)).astype(np.float32)
    np.save(tmp_path / "new.npy", new)
    run = sae_jax.open(folder)
    limit = float(run.dataset["eval_l0"].min()) + 1e-3
    words = ["--best", "eval_reconstruction", "--at", f"eval_l0={limit}"]
    main([str(folder), *words, "--dataset", f"array:{tmp_path / 'new.npy'}", "--out", str(tmp_path / "codes.npz")])
    arrays = read(tmp_path / "codes.npz")
    lane = run.best("eval_reconstruction", at={"eval_l0": limit})
    assert list(arrays) == ["codes"] and arrays["codes"].dtype == np.float32
    np.testing.assert_allclose(arrays["codes"], lane.encode(new), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lane", "rho=.3", "seed=0"], "rho must be a value of the sweep: got 0.3"),
        (["--lane", "rho"], "--lane takes words NAME=VALUE: got 'rho'"),
        (["--lane", "rho=.05"], "lane needs a value for seed"),
        (["--lane", "rho=many", "seed=0"], "rho must be a finite number: got 'many'"),
        (["--at", "eval_l0=few"], "--at must be a number for eval_l0: got 'few'"),
        (["--dataset", "array:narrow.npy"], "got shape [5, 7]; these parameters take no others"),
        (["--dataset", "array:narrow.npy"], "samples must be an array [samples, 64]"),
        (["--dataset", "array:nothing.npy"], "needs a file that exists"),
        (["--out", "no/such/folder.npz"], "--out must be writable"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    np.save("narrow.npy", RNG.uniform(size=(5, 7)))
    with pytest.raises(SystemExit) as ended:
        main([str(folder), *words])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "codes.npz").exists()


def test_a_file_of_samples_that_was_moved_is_known_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", RNG.uniform(size=(90, 6)))
    (tmp_path / "runs" / "r").mkdir(parents=True)
    dataset = sae_jax.sweep(DataConfig(dataset="array:x.npy"), steps=5, d_hidden=3, batch_size=20)
    assert dataset["dataset"].item() == f"array:{tmp_path / 'x.npy'}"
    results.save(dataset, tmp_path / "runs" / "r")
    (tmp_path / "x.npy").rename(tmp_path / "y.npy")
    with pytest.raises(SystemExit):
        evaluate.main(["r", "--task", "denoising"])
    said = "error: dataset array needs a file that exists: got x.npy; did you mean y.npy? (where it was moved, add"
    assert capsys.readouterr().err == f"{said} --dataset array:NEW.npy)\n"
    with pytest.raises(SystemExit):
        main(["r"])
    assert capsys.readouterr().err == f"{said} --dataset array:NEW.npy)\n"
    draw.main(["r", "--figure", "curves"])
    for command in (evaluate.main, main):
        with pytest.raises(SystemExit):
            command(["r", "--dataset", "array:no.npy"])
        assert capsys.readouterr().err.endswith("needs a file that exists: got no.npy; did you mean y.npy?\n")
    evaluate.main(["r", "--task", "denoising", "--dataset", "array:y.npy", "--noise", ".1"])
    assert results.load("runs/r")["dataset"].item() == f"array:{tmp_path / 'y.npy'}"
    other = np.load("y.npy")
    other[3, 2] += 1e-7  # Nothing that statistics would show.
    np.save("z.npy", other)
    with pytest.raises(SystemExit):
        evaluate.main(["r", "--task", "denoising", "--dataset", "array:z.npy"])
    assert "must hold the samples that the run was trained on" in capsys.readouterr().err
