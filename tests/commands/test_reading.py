"""The commands that read a finished run: its table, and its figures drawn again."""

import re
import shutil

import matplotlib
import pandas as pd
import pytest

from sae_jax import DataConfig
from sae_jax import sweep as train_all
from sae_jax.commands import activations, draw, encode, export, report, sweep, table
from sae_jax.storage import results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    folder.mkdir()
    data, short = DataConfig(dataset="digits", samples=100), {"steps": 3, "d_hidden": 3, "batch_size": 20}
    results.save(train_all(data, seeds=2, rho=[0.05, 0.1], beta=[0.5, 1.0], **short), folder)
    return folder


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_table_of_a_run_is_printed_in_every_format(run, capsys):
    table.main([str(run), "--format", "csv", "latex", "markdown", "--by", "rho", "--measure", "eval_mean_activation"])
    csv, latex, markdown = capsys.readouterr().out.split("\n\n", 2)
    rho = results.load(run)["eval_mean_activation"].astype(float).mean(("beta", "unit")).values[1]
    assert csv.splitlines()[0] == ",".join(["rho", *(f"eval_mean_activation{end}" for end in ("", "_sd", "_n"))])
    cells = [float(word) for word in csv.splitlines()[2].split(",")]
    assert cells == pytest.approx([0.1, rho.mean(), rho.std(ddof=1), 2], rel=1e-5)
    assert latex.startswith("% \\usepackage{booktabs}") and "\\end{tabular}" in latex
    assert markdown.startswith("| rho | mean activation |") and "every seed is a mean over beta (2 values)" in markdown


def test_tables_are_written_to_files(run, workplace, capsys):
    table.main([str(run), "--format", "csv", "--out", "one.txt", "--select", "beta=1"])
    assert list(pd.read_csv("one.txt")["rho"]) == [0.05, 0.1]
    table.main([str(run), "--format", "csv", "latex", "--out", "tables/two.txt"])
    assert sorted(path.name for path in (workplace / "tables").iterdir()) == ["two.csv", "two.tex"]
    assert capsys.readouterr().out.split() == ["one.txt", "tables/two.csv", "tables/two.tex"]


def test_figures_that_a_sweep_does_not_draw_are_drawn_later(workplace, capsys):
    short = ["--dataset", "digits", "--samples", "100", "--steps", "3", "--d-hidden", "3", "--batch-size", "20"]
    sweep.main(
        [
            *short,
            "--rho",
            ".1",
            "--beta",
            "1",
            "--seeds",
            "2",
            "--figures",
            "False",
            "--report",
            "False",
            "--name",
            "later",
        ]
    )
    assert "summary.csv" in capsys.readouterr().out
    assert not (workplace / "runs/later/figures").exists()
    draw.main(["later"])
    drawn = {path.name for path in (workplace / "runs/later/drawn").iterdir()}
    assert drawn == {"curves.png", "filters_best.png", "filters.png", "mean_activation.png"}


def test_chosen_figures_are_drawn_again_with_their_fonts(run, workplace, capsys):
    words = ["--figure", "frontier", "filters", "--format", "pdf", "svg", "png", "--style", "paper", "--out", "drawn"]
    draw.main([str(run), *words])
    files = sorted(path.name for path in (workplace / "drawn").iterdir())
    assert files == [f"{name}.{kind}" for name in ("filters", "frontier") for kind in ("pdf", "png", "svg")]
    said = capsys.readouterr().out
    assert "caption: held-out data against sparsity, along rho" in said and "drawn/frontier.pdf" in said
    pdf = (workplace / "drawn" / "frontier.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    svg = (workplace / "drawn" / "frontier.svg").read_text()
    assert "<text" not in svg and "<path" in svg
    width = float(re.search(r'<svg[^>]* width="([\d.]+)pt"', svg)[1])
    assert width == pytest.approx(3.35 * 72, abs=0.5)
    draw.main([str(run), *words])
    assert (workplace / "drawn" / "frontier.pdf").read_bytes() == pdf
    assert (workplace / "drawn" / "frontier.svg").read_text() == svg


def test_by_itself_it_draws_what_a_sweep_draws_into_a_folder_of_its_own(run, capsys):
    draw.main([str(run), "--select", "rho=.05", "seed=0"])
    drawn = {path.name for path in (run / "drawn").iterdir()}
    names = ("curves", "filters", "filters_best", "heatmaps", "mean_activation", "frontier")
    assert drawn == {f"{name}.png" for name in names} and not (run / "figures").exists()
    assert matplotlib.image.imread(run / "drawn" / "curves.png").std() > 0.01


@pytest.mark.parametrize("main", [table.main, draw.main], ids=["table", "draw"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], " needs the folder of one finished run, before its flags: got none; see runs/"),
        (["nowhere"], "a finished run's folder must hold results.nc: got nowhere"),
        (["RUN", "--measure", "eval_lo"], "unknown measure eval_lo: did you mean eval_l0?"),
        (["RUN", "--measure"], "--measure needs a value: got none"),
        (["RUN", "--select", "rho=.3"], "--select: rho must be a value of the run: got '.3'; use one of 0.05, 0.1"),
        (["RUN", "--format", "docx"], "--format: format must be one of"),
        (["RUN", "--out", "a", "b"], "--out takes one value: got 2 (a b); leave one"),
        (["RUN", "--stlye", "paper"], "unknown flag --stlye"),
    ],
)
def test_what_the_run_does_not_have_is_refused_in_one_line(main, words, says, run, workplace, capsys):
    refused(main, words, says, run, workplace, capsys)


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [
        (table.main, ["RUN", "--by", "roh"], "unknown axis roh: did you mean rho?"),
        (table.main, ["RUN", "--out", "RUN"], "--out must be writable"),
        *(
            (table.main, ["RUN", "--format", "csv", "latex", "--out", out], f"writable: got {out}: it is a folder; ")
            for out in (".", "/", "..", "nowhere/..")
        ),
        (table.main, ["RUN", "--format", "markdown", "csv", "--out", "n" * 252], "n.csv: File name too long; "),
        (table.main, ["RUN", "--format", "markdown", "csv", "--out", "file/in/it"], "writable: got file/in: "),
        (draw.main, ["RUN", "--figure", "fronter"], "unknown figure fronter: did you mean frontier?"),
        (draw.main, ["RUN", "--figure", "curves", "--measure", "eval_l0"], "measure eval_l0 is shown by heatmaps and"),
        (draw.main, ["RUN", "--style", "poster"], "--style: style must be one of screen, paper: got 'poster'"),
        (draw.main, ["RUN", "--out", "file"], "--out must be writable: got file: file is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_are_refused_in_one_line(main, words, says, run, workplace, capsys):
    refused(main, words, says, run, workplace, capsys)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (table.main, ["RUN", "--out", "results.nc"]),
        (table.main, ["RUN", "--format", "csv", "latex", "--out", "summary.txt"]),
        (report.main, ["RUN", "--out", "config.json"]),
        (report.main, ["RUN", "--out", "link/params.safetensors"]),
        (encode.main, ["RUN", "--lane", "rho=.1", "beta=1", "seed=0", "--out", "log.txt"]),
        (report.main, ["RUN", "--out", "unfinished/page.html"]),
        (draw.main, ["RUN", "--out", "unfinished"]),
        (export.main, ["RUN", "--lane", "rho=.1", "beta=1", "seed=0", "--out", "unfinished/arrays"]),
        (activations.main, ["--dataset", "digits", "--out", "unfinished/new"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_no_command_writes_over_what_a_run_is_made_of(main, words, run, tmp_path_factory, workplace, capsys):
    copy = tmp_path_factory.mktemp("other") / "copy"
    shutil.copytree(run, copy)
    if any("unfinished" in word for word in words):
        (copy / "unfinished").mkdir()
        (copy / "config.json").write_text("{}")
    (copy.parent / "link").symlink_to(copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    out = words[-1]
    words = [*words[:-1], str(copy.parent / out if out.startswith("link") else copy / out)]
    refused(main, words, "--out must be none of a run's own files: got ", run, workplace, capsys)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    table.main([str(run), "--out", str(copy / "page.html")])


WRITABLE = "--out must be writable: got "


@pytest.mark.parametrize(
    ("main", "words", "says"),
    [
        (report.main, ["loop"], "a finished run's folder must hold results.nc: got loop"),
        (report.main, ["RUN", "--out", "loop"], f"{WRITABLE}loop: "),
        (draw.main, ["RUN", "--beside", "loop"], "a finished run's folder must hold results.nc: got loop"),
        (sweep.main, ["--resume", "loop"], "cannot resume: the run must be unfinished: got "),
        (activations.main, ["--dataset", "digits", "--out", "loop"], f"{WRITABLE}loop: "),
        (export.main, ["RUN", "--out", "loop"], f"{WRITABLE}loop: "),
        (draw.main, ["RUN", "--out", "loop/in"], f"{WRITABLE}loop/in: "),
        (draw.main, ["RUN", "--out", "n" * 300], f"{WRITABLE}nnn"),
        (activations.main, ["--dataset", "digits", "--out", "n" * 300], f"{WRITABLE}nnn"),
        (export.main, ["RUN", "--out", "n" * 300], f"{WRITABLE}nnn"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_links_to_themselves_and_long_names_are_refused_in_one_line(main, words, says, run, workplace, capsys):
    (workplace / "loop").symlink_to("loop")
    refused(main, words, says, run, workplace, capsys)


def refused(main, words, says, run, workplace, capsys):
    """A command ends in one line with exit code 2, and nothing is written."""
    (workplace / "file").write_text("")
    before = {path.name for path in workplace.iterdir()}
    with pytest.raises(SystemExit) as ended:
        main([str(run) if word == "RUN" else word for word in words])
    said = capsys.readouterr()
    assert ended.value.code == 2 and not said.out
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and says in said.err
    assert {path.name for path in workplace.iterdir()} == before


def test_paired_settings_are_selected_and_make_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--d-hidden", "5", "--steps", "20", "--batch-size", "50", "--seeds", "2"]
    pairs = ["--rho", "0.02", "0.05", "--beta", "3", "1", "--zip", "rho", "beta"]
    sweep.main([*words, *pairs, "--figures", "False", "--report", "False", "--name", "pairs"])
    capsys.readouterr()
    table.main(["pairs", "--by", "rho", "beta"])
    both = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in both[2:4]] == ["0.02, 3", "0.05, 1"]
    for word in ("rho=0.05", "beta=1"):
        table.main(["pairs", "--select", word])
        assert " | ".join(both[3].strip("| ").split(" | ")[1:]) in capsys.readouterr().out
