"""Lanes as files of other libraries, from the command line."""

import json

import numpy as np
import pytest

import sae_jax
from sae_jax import DataConfig, UserError, interop
from sae_jax.analysis.interop import saelens, torch
from sae_jax.commands import sweep
from sae_jax.commands.export import main
from sae_jax.storage import results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    folder.mkdir()
    settings = {"model": ["topk", "relu"], "target_l0": [2.0, 4.0], "d_hidden": 16}
    results.save(sae_jax.sweep(DataConfig(dataset="digits"), **settings, seeds=2, steps=60), folder)
    return folder


def test_one_lane_for_saelens_with_what_was_measured_of_it(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--lane", "model=topk", "target_l0=4", "seed=1", "--hook-name", "blocks.3", "--model-name", "vit"]
    main([str(folder), *words, "--out", str(out)])
    run = sae_jax.open(folder)
    lane = run.lane(model="topk", target_l0=4.0, seed=1)
    x = np.random.default_rng(0).uniform(size=(50, 64)).astype(np.float32)
    np.testing.assert_allclose(interop.load(out).reconstruct(x), lane.reconstruct(x), atol=1e-5)
    about = json.loads((out / "cfg.json").read_text())
    measured = run.dataset.sel(model="topk", target_l0=4.0, seed=1)
    assert about["metadata"]["l0"] == float(measured["eval_l0"]) and about["k"] == 4
    assert about["metadata"]["num_dead_features"] == round(float(measured["eval_dead_fraction"]) * 16)
    assert (about["metadata"]["hook_name"], about["metadata"]["model_name"]) == ("blocks.3", "vit")
    printed = capsys.readouterr().out
    assert "topk autoencoder 64-16: model=topk, target_l0=4.0, seed=1" in printed and str(out / "cfg.json") in printed


def test_every_lane_has_a_folder_of_its_own(folder, tmp_path):
    main([str(folder), "--all", "--out", str(tmp_path / "out")])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    places = [(model, l0, seed) for model in ("topk", "relu") for l0 in (2.0, 4.0) for seed in (0, 1)]
    assert names == {f"model={model}_target_l0={l0}_seed={seed}" for model, l0, seed in places}
    run = sae_jax.open(folder)
    for model, l0, seed in places:
        lane = run.lane(model=model, target_l0=l0, seed=seed)
        back = interop.load(tmp_path / "out" / f"model={model}_target_l0={l0}_seed={seed}")
        np.testing.assert_allclose(back.params["decoder_weight"], lane.params["decoder_weight"], atol=1e-6)


@pytest.mark.parametrize("kind", ["saelens", "torch"])
def test_a_later_lane_that_has_no_form_leaves_nothing_in_the_way_of_the_repeated_command(
    kind, folder, tmp_path, monkeypatch, capsys
):
    module, name = {"saelens": (saelens, "contents"), "torch": (torch, "loader")}[kind]
    whole, calls = getattr(module, name), []

    def second_fails(*words):
        calls.append(words)
        if len(calls) == 2:
            raise UserError("no such form")
        return whole(*words)

    monkeypatch.setattr(module, name, second_fails)
    command = [str(folder), "--all", "--to", kind, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert capsys.readouterr() == ("", "error: no such form\n") and not list(tmp_path.iterdir())
    main(command)
    assert len(list((tmp_path / "out").iterdir())) == 8 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_lanes_whose_places_make_no_names_are_numbered_and_holes_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    x = np.random.default_rng(0).uniform(size=(100, 6))
    for file in ("d/a.npy", "d-a.npy"):
        np.save(file, x)
    settings = {"model": "relu", "d_hidden": 4, "steps": 5, "batch_size": 16, "seeds": 1}
    several = sae_jax.sweep(DataConfig(normalize="none"), dataset=["array:d/a.npy", "array:d-a.npy"], **settings)
    (tmp_path / "several").mkdir()
    results.save(several, tmp_path / "several")
    main(["several", "--all", "--out", "out"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lane-0000", "lane-0001"]
    values = ((0.1, 1e-3), (0.2, 1e-2))
    parts = [sae_jax.sweep(DataConfig(dataset="digits"), **settings, l1=l1, learning_rate=rate) for l1, rate in values]
    (tmp_path / "merged").mkdir()
    results.save(sae_jax.merge(*parts), tmp_path / "merged")
    main(["merged", "--all", "--out", "parts"])
    assert len(list((tmp_path / "parts").iterdir())) == 2


def test_the_best_lane_for_pytorch_with_its_lines(folder, tmp_path, capsys):
    main([str(folder), "--to", "torch", "--at", "eval_l0=3", "--out", str(tmp_path / "out")])
    lines = (tmp_path / "out" / "loader.py").read_text()
    assert lines in capsys.readouterr().out and "def encode(x):" in lines
    assert (tmp_path / "out" / "lane.safetensors").is_file()


def test_a_run_that_kept_the_best_seeds_alone_exports_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--model", "relu", "--d-hidden", "8", "--steps", "20", "--seeds", "2"]
    sweep.main([*words, "--keep", "best", "--figures", "False", "--report", "False", "--name", "run"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["runs/run", "--all", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "kept the parameters of the best seed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_folder_that_the_command_runs_in_is_filled_if_it_is_empty(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([str(folder), "--all", "--to", "torch", "--out", "."])
    assert {path.name for path in tmp_path.rglob("*.*") if path.is_file()} == {"lane.safetensors", "loader.py"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onnx"], "to must be one of saelens, torch: got 'onnx'"),
        (["--all", "--lane", "seed=0"], "--all is every lane: got it beside --lane seed=0; leave one out"),
        (["--all", "--at", "eval_l0=3"], "--all is every lane: got it beside --at eval_l0=3; leave one out"),
        (["--all", "--best", "eval_l0"], "--all is every lane: got it beside --best eval_l0; leave one out"),
        (["--to", "torch", "--hook-name", "a"], "--hook-name is written for saelens alone: got a; leave it out"),
        (["--lane", "seed=0"], "lane needs a value for model"),
        (["--out", "{full}"], "--out must be a new or an empty folder: got {full}, which holds something"),
        (["--out", "{file}"], "--out must be a new or an empty folder: got {file}"),
    ],
)
def test_bad_words_end_with_a_line_and_nothing_written(words, message, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    names = {"full": str(tmp_path / "full"), "file": str(tmp_path / "full" / "mine")}
    with pytest.raises(SystemExit) as stopped:
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        main([str(folder), *out, *(word.format(**names) for word in words)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert message.format(**names) in error
    assert not (tmp_path / "out").exists()
