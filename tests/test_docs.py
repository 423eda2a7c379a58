"""The pages of docs/: links lead somewhere, commands and code run as written, and every page stands in the site."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments.reproduce.__main__ import NAMES as REPRODUCTIONS
from sae_jax.analysis import figures
from sae_jax.analysis.formats import as_markdown
from sae_jax.analysis.options import TASKS
from sae_jax.analysis.summary import CellTable
from sae_jax.commands.flags import _model_fields
from sae_jax.commands.main import COMMANDS
from sae_jax.commands.run_config import RunConfig
from sae_jax.data import SOURCES, DataConfig
from sae_jax.settings import UserError, flag, settings_of
from sae_jax.storage import results
from sae_jax.training.config import TrainingSettings
from tests.commands.pages import steps_of, take
from tests.documents import anchors_of, links_of
from tests.plugins.files import EXAMPLE, forgotten

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
}
TUTORIAL = [name for name in PAGES if name.startswith("docs/tutorial/")]
TYPED = [*TUTORIAL, *(name for name in PAGES if name.startswith("docs/howto/"))]
# What a page takes for granted: the README's run, in less time.
BEFORE = {
    "docs/results.md": "python -m experiments.sweep --dataset digits --d-hidden 25 --steps 300 --rho .05 .1 --beta .1 1"
    " --seeds 2 --name digits",
}
LARGEST_FIGURE = 200_000
# Commands that are not typed here, each with what holds it instead.
ELSEWHERE = {
    "python -m experiments.sweep": "tests/commands/test_first_impression.py",
    "python -m experiments.frontier": "tests/commands/test_frontier.py",
    **{
        "python -m experiments.sweep --distributed --coordinator 127.0.0.1:7777 --processes 2 "
        f"--process-id {number} --name both{behind}": "tests/commands/test_cluster.py"
        for number, behind in ((0, " &"), (1, ""))
    },
}


@pytest.fixture(scope="module")
def hooks():
    """What mkdocs calls while it builds the site."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site():
    """The settings of the site."""
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_link_leads_somewhere(name):
    wrong = []
    for path, anchor in links_of(PAGES[name]):
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not target.is_file():
            wrong.append(f"{path}: no such file")
        elif anchor and anchor not in anchors_of(target.read_text(encoding="utf-8")):
            wrong.append(f"{path}#{anchor}: no such heading")
    assert not wrong


def test_links_are_found():
    text = "[a](b.md#c-d) ![e](f.png) [g](https://h.org) [i](#j) `[k](l)`\n\n# C d\n\n```\n# no heading [m](n)\n```\n"
    assert links_of(text) == [("b.md", "c-d"), ("f.png", ""), ("", "j")]
    assert anchors_of(text) == ["c-d"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_commands_that_are_named_exist(name):
    for module, words in re.findall(r"python -m experiments\.([a-z]+)([^`\n]*)", PAGES[name]):
        assert module in COMMANDS or (ROOT / "experiments" / module).exists() or module == "choosing", module
        if module == "reproduce" and (named := re.match(r" ([a-z][\w-]+)", words)):
            assert named[1] in REPRODUCTIONS
    for path in re.findall(r"`((?:sae_jax|experiments|tests|docs)/[\w/]+\.\w+)`", PAGES[name]):
        assert (ROOT / path).is_file(), path


def flags_of(command, *words):
    """The flags of a command, from its help."""
    with contextlib.redirect_stdout(io.StringIO()) as stream, pytest.raises(SystemExit) as ended:
        importlib.import_module(f"sae_jax.commands.{command}").main([*words, "--help", "all"])
    assert not ended.value.code
    return {*re.findall(r"--[a-z][a-z0-9-]*", stream.getvalue())}


@pytest.fixture(scope="module")
def flags():
    """The flags of every command, and those beside the plug-in that the documents have."""
    alone = {command: flags_of(command) for command in COMMANDS}
    with forgotten():
        return alone, {command: flags_of(command, "--plugin", str(EXAMPLE)) for command in COMMANDS}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_flags_of_commands_exist(name, flags):
    whole_lines = re.sub(r" *\\\n *", " ", PAGES[name])
    for command, words in re.findall(r"(?:experiments\.|sae-jax )(\w+)((?: [^`\n&#]*)?)", whole_lines):
        if command in COMMANDS:
            known = flags["--plugin docs/my_parts.py" in words][command]
            assert {*re.findall(r"(?<= )--[a-z][a-z0-9-]*", words)} <= known, command


def test_the_first_screen_of_the_site_is_that_of_the_readme():
    def typed(text):
        return re.findall(r"^    (python -m pip install -r .*)$", text, re.MULTILINE)

    assert len(typed(PAGES["README.md"])) == 2 and typed(PAGES["docs/index.md"]) == typed(PAGES["README.md"])


@pytest.mark.parametrize("name", [*BEFORE, *TYPED])
def test_commands_and_code_run_as_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "save_all", lambda dataset, folder: [])  # Which takes longest.
    if name in BEFORE:
        take("command", BEFORE[name])
    typed = [(kind, step) for kind, step in steps_of(PAGES[name]) if step not in ELSEWHERE]
    for kind, step in typed:
        assert take(kind, step).strip(), step
    # Figures beside the page that its commands draw into the folder figures are those that it shows.
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert drawn <= {path for path, _ in links_of(PAGES[name])}


def test_what_is_not_typed_is_written_somewhere_and_held_elsewhere():
    written = {step for name in TYPED for _, step in steps_of(PAGES[name])}
    assert set(ELSEWHERE) <= written
    assert all((ROOT / path).is_file() for path in ELSEWHERE.values())


def test_the_tutorial_shows_what_its_commands_print(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "save_all", lambda dataset, folder: [])
    page = PAGES["docs/tutorial/autoencoder.md"]
    [(_, command), *_] = steps_of(page)
    take("command", command)
    made = results.load(tmp_path / "runs" / "pair").sel(seed=0)
    shown = re.findall(r"^    0\.05 +([01]) +([\d.]+) +([\d.]+)", page, re.MULTILINE)
    assert [beta for beta, _, _ in shown] == ["0", "1"]
    for beta, explained, l0 in shown:
        lane = made.sel(beta=float(beta))
        assert float(lane["eval_explained_variance"]) == pytest.approx(float(explained), abs=0.01)
        assert float(lane["eval_l0"]) == pytest.approx(float(l0), abs=0.1)


def test_the_table_of_the_frontier_is_made_of_its_numbers():
    kept = pd.read_csv(DOCS / "frontier.csv")
    measures = [name.removesuffix("_n") for name in kept if name.endswith("_n")]
    axes = list(kept)[: list(kept).index(measures[0])]
    table = CellTable(
        kept[axes].to_dict("records"),
        *({name: kept[name + end].to_numpy() for name in measures} for end in ("", "_sd", "_n")),
        seeds=3,
        diverged=np.zeros(len(kept), int),
        caption="mean +- sample standard deviation over 3 seeds",
    )
    assert axes == ["model", "target_l0"] and as_markdown(table) in PAGES["docs/frontier.md"]


def test_figures_of_the_tutorial_are_small():
    shown = [(ROOT / name).parent / path for name in TUTORIAL for path, _ in links_of(PAGES[name]) if ".png" in path]
    assert len(shown) >= 8
    assert [path for path in shown if path.stat().st_size > LARGEST_FIGURE] == []


def test_every_page_stands_in_the_site(site):
    def pages(entries):
        for entry in entries:
            for one in entry.values() if isinstance(entry, dict) else (entry,):
                yield from pages(one) if isinstance(one, list) else (one,)

    listed = list(pages(site["nav"]))
    assert len(listed) == len(set(listed))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(listed) - {"contributing.md"} == there
    parts = [next(iter(entry)) for entry in site["nav"]]
    assert parts == ["Start", "Tutorial", "How to", "Reference", "Results", "中文"]


def test_the_site_loads_nothing_from_elsewhere(site):
    assert site["theme"]["font"] is False and "extra_javascript" not in site
    assert not [one for one in site["extra_css"] if "//" in one]


def test_every_data_set_and_file_is_listed():
    for kind in SOURCES:
        assert f"`{kind}" in PAGES["docs/howto/data.md"]


def test_files_of_a_run_are_those_that_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    take("command", "python -m experiments.sweep --dataset digits --d-hidden 4 --steps 5 --rho .05 --beta 1 --name a")
    listed = re.findall(r"^    runs/<name>/([\w.]+)", PAGES["docs/reference/files.md"], re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (tmp_path / "runs" / "a").iterdir())


def test_tables_of_settings_are_the_declarations(hooks):
    page = hooks.filled(PAGES["docs/reference/settings.md"])
    assert "<!--" not in page
    declared = {**_model_fields(), **settings_of(TrainingSettings), **settings_of(DataConfig), **settings_of(RunConfig)}
    for name, field in declared.items():
        assert f"| `{flag(name)}`" in page and field.metadata["help"].replace("|", r"\|") in page, name
    assert all(f"| `{name}` |" in page for name in COMMANDS)


def test_tables_of_variables_are_the_declarations(hooks):
    page = hooks.filled(PAGES["docs/reference/variables.md"])
    for name in ("loss_kl", "loss_l1", "eval_l0", "truth_absorption", "gate_bias", "units_density", "diverged_at"):
        assert page.count(f"| `{name}` |") == 1, name
    assert all(f"| `{task}` |" in page for task in TASKS)


def test_the_interface_has_every_exported_name(hooks):
    page = hooks.filled(PAGES["docs/reference/api.md"])
    for name in ("sae_jax.sweeps.sweep.sweep", "sae_jax.models.kl.kl_penalty", "sae_jax.analysis.run.Run"):
        assert f"\n::: {name}\n" in page


def test_a_mark_that_names_no_table_is_refused(hooks):
    with pytest.raises(UserError, match=r"a table must be one of commands, .*: got settings of nothing; mend"):
        hooks.filled("<!-- made by docs/hooks.py: settings of nothing -->")


def test_formulas_become_markup_and_unknown_words_are_refused(hooks):
    pytest.importorskip("latex2mathml", reason="pip install .[docs]")
    made = hooks.with_formulas('<p><span class="arithmatex">\\(a &lt; \\hat\\rho_j\\)</span> b</p>')
    assert re.fullmatch(r'<p><span class="arithmatex" lang="en"><math .*display="inline".*</math></span> b</p>', made)
    assert "&#x0003C;" in made and "\\" not in made
    with pytest.raises(UserError, match=r"a formula must be TeX .*: got \\nothing; use"):
        hooks.with_formulas('<div class="arithmatex">\\[\\nothing\\]</div>')
    ended = hooks.with_formulas('<span class="arithmatex">\\(a\\)</span>，<span class="arithmatex">\\(b\\)</span> c')
    assert re.fullmatch(r'<span class="clause"><span .*</math></span>，</span><span .*</math></span> c', ended)


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("docs/choosing.md", "../reproductions/pca.png", "reproductions/pca.png"),
        ("docs/tutorial/penalty.md", "../../reproductions/pca.png", "../reproductions/pca.png"),
        ("docs/howto/loop.md", "../../CONTRIBUTING.md", "../contributing.md"),
        ("docs/howto/loop.md", "../grids.md#longer", "../grids.md#longer"),
        ("CONTRIBUTING.md", "docs/models.md#x", "models.md#x"),
        ("CONTRIBUTING.md", "README.md", "index.md"),
        ("docs/index.md", "https://example.org/a.md", "https://example.org/a.md"),
    ],
)
def test_links_out_of_docs_lead_to_their_place_in_the_site(hooks, source, link, expected):
    assert hooks.in_site(f"[a]({link})", source) == f"[a]({expected})"


def test_chinese_pages_are_marked_as_chinese_and_keep_their_anchors(hooks):
    config = SimpleNamespace(theme={}, mdx_configs={"toc": {}})
    for uri, language in (("zh/index.md", "zh"), ("index.md", "en")):
        hooks.on_page_context({}, page=SimpleNamespace(file=SimpleNamespace(src_uri=uri)), config=config, nav=None)
        assert config.theme["language"] == language
    anchor = hooks.on_config(config).mdx_configs["toc"]["slugify"]
    for heading in ("代价：滞后", "The law of the miss", "Parts that cross with all of them but `classic`"):
        assert [anchor(heading, "-")] == anchors_of(f"## {heading}\n")
    assert anchor("代价：滞后", "-") == "代价滞后"


@pytest.mark.parametrize(("query", "found"), [("稀疏自编码", True), ("running", True), ("稀薄", False)])
def test_chinese_is_searched_by_single_characters(site, query, found):
    [search] = [one["search"] for one in site["plugins"] if "search" in one]
    words = set(re.split(search["separator"], "稀疏自编码器，以及 the running average"))
    assert (set(re.split(search["separator"], query)) <= words) is found
