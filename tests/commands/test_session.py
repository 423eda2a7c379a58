"""What sweep and train share, before a process joins others."""

import json

import pytest

from sae_jax.commands import resuming, session, sweep
from sae_jax.commands.flags import parse


def parsed(words):
    return parse(words, "python -m experiments.sweep", "", {}, several=True)


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        ([], 0),
        (["--devices", "3"], 3),
        (["--resume", "run"], 5),
        (["--resume", "runs/run", "--devices", "3"], 3),
        # What is wrong is said when all processes can hear it.
        (["--resume", "elsewhere"], 0),
        (["--devices", "many"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_devices_are_known_before_processes_join(words, devices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "run" / "unfinished").mkdir(parents=True)
    record = {"command": "python -m experiments.sweep --devices 5 --rho 0.1 --name run", "packing": []}
    record |= {"devices": "5 cpu"} | {name: {} for name in ("settings", "run", "versions")}
    (tmp_path / "runs" / "run" / "config.json").write_text(json.dumps(record))
    assert session._devices("sweep", words) == devices


def test_a_link_to_a_run_resumes_the_run_in_its_own_folder(tmp_path):
    run = tmp_path / "elsewhere" / "run"
    (run / "unfinished").mkdir(parents=True)
    (run / "config.json").touch()
    (tmp_path / "link").symlink_to(run)
    for words in (["--resume", str(tmp_path / "link")], ["--runs", str(tmp_path), "--resume", "link"]):
        assert resuming.resumed_folder(parsed(words)[0]) == run


def test_a_finished_run_is_named_as_an_unfinished_one_is(tmp_path):
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    for name in ("config.json", "results.nc"):
        (run / name).touch()
    words = ["--runs", str(tmp_path / "runs"), "--resume"]
    assert resuming.resumed_folder(parsed([*words, "run"])[0]) == run
    (tmp_path / "runs" / "other" / "unfinished").mkdir(parents=True)
    (tmp_path / "runs" / "other" / "config.json").touch()
    assert resuming.resumed_folder(parsed([*words, "other"])[0]) == run.with_name("other")
    assert str(resuming.resumed_folder(parsed([*words, "nowhere"])[0])) == "nowhere"


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_that_an_earlier_version_began_is_resumed_as_it_was(optimizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "--samples",
        "200",
        "--d-hidden",
        "3",
        "--steps",
        "3",
        "--figures",
        "False",
        "--report",
        "False",
        "--optimizer",
        optimizer,
    ]
    words += ["--estimator", "batch", "--ema-decay", "0"] if optimizer == "lbfgs" else []
    sweep.main([*words, "--name", "whole"])
    record = json.loads((tmp_path / "runs" / "whole" / "config.json").read_text())
    for name in ("k_start", "k_factor", "lifetime", "start_std", "history_size"):
        del record["settings"][name]
    record["run"].pop("blocks")
    run = tmp_path / "runs" / "run"
    (run / "unfinished").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(record))
    if optimizer == "lbfgs":  # What it held in memory depends on it.
        capsys.readouterr()
        with pytest.raises(SystemExit, match="2"):
            sweep.main(["--resume", "run"])
        assert "got runs/run with history_size 10 -> 0; add --history-size 10, or" in capsys.readouterr().err
        sweep.main(["--resume", "run", "--history-size", "10"])
    else:
        sweep.main(words)  # It finds the run by itself.
    assert (run / "results.nc").is_file() and sorted(path.name for path in run.parent.iterdir()) == ["run", "whole"]


def test_a_page_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--samples", "200", "--d-hidden", "3", "--steps", "3", "--seeds", "1", "--figures", "False"]
    sweep.main([*words, "--name", "whole"])
    run = tmp_path / "runs" / "run"
    (run / "unfinished").mkdir(parents=True)
    (run / "config.json").write_text((tmp_path / "runs" / "whole" / "config.json").read_text())
    (run / "report.html").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(session, "train", lambda *given, **named: pytest.fail("it trains"))
        for given in (["--resume", "run"], [*words, "--name", "run"]):
            capsys.readouterr()
            with pytest.raises(SystemExit, match="2"):
                sweep.main(given)
            said = capsys.readouterr().err.strip().splitlines()[-1]
            assert "the run's page must be writable: got runs/run/report.html: " in said
            assert said.endswith("; rename what is there, or pass --report False")
    sweep.main(["--resume", "run", "--report", "False"])
    assert (run / "results.nc").is_file() and (run / "report.html").is_dir()
