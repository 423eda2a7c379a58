"""What mkdocs adds to the pages: tables from the declarations, the API's names, formulas as MathML, files beside docs/.

A page asks for a table by a line `<!-- made by docs/hooks.py: NAME -->`, of which `TABLES` lists the names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import html
import importlib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sae_jax
from sae_jax import DataConfig, UserError, lane_settings, load
from sae_jax.analysis import unit_variables
from sae_jax.analysis.options import TASKS, TaskConfig, UnitsConfig
from sae_jax.commands.cluster import Launch
from sae_jax.commands.main import COMMANDS
from sae_jax.commands.run_config import RunConfig
from sae_jax.models import MODELS, Model
from sae_jax.settings import TEXT, TRUE_OR_FALSE, flag, is_swept, settings_of
from sae_jax.sweeps.dataset import Variable
from sae_jax.sweeps.dataset import variables_of as variables_of_lanes
from sae_jax.training.config import LaneSettings, TrainingSettings

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^<!-- made by docs/hooks\.py: (.+) -->$", re.MULTILINE)
LINK = re.compile(r"\]\(([^():#\s]+)(#[^()\s]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>([,.;:?!)，。、；：？！）]*)', re.DOTALL)
# Where files that lie beside docs/ stand in the site.
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
FIGURES = "reproductions/"
CHINESE = "zh/"
# The order of variables.
KINDS = ("curve", "measure", "status", "parameter")


def rows_of(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    cells = [list(heading), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells)


def default_of(value: Any) -> str:
    """A default, as the command line would be told."""
    values = value if isinstance(value, tuple) else (value,)
    words = " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)
    return f"`{words}`" if words else "empty"


def values_of(field: dataclasses.Field) -> str:
    """Which values a setting takes, and in which unit."""
    within, unit = field.metadata["range"], field.metadata["unit"]
    if isinstance(field.default, bool) or within is TRUE_OR_FALSE:
        return "True, False"
    words = "text" if within is TEXT else str(within)
    return words if unit == "1" else f"{words}, {unit}"


def settings_table(fields: Mapping[str, dataclasses.Field]) -> str:
    """A table of settings; those marked * vary inside one compiled program."""
    return rows_of(
        ("flag", "default", "values", "what it is"),
        (
            (
                f"`{flag(name)}`{' *' if is_swept(field) else ''}",
                default_of(field.default),
                values_of(field),
                field.metadata["help"],
            )
            for name, field in fields.items()
        ),
    )


def model_tables() -> str:
    """Settings of the classic family, those that all other architectures share, and what each has beside them."""
    declared = {name: settings_of(model.Settings) for name, model in MODELS.items()}
    others = {name: fields for name, fields in declared.items() if name != "classic"}
    shared = {
        name: field
        for name, field in next(iter(others.values())).items()
        if all(name in fields and fields[name].default == field.default for fields in others.values())
    }
    parts = [f"### `classic`\n\n{settings_table(declared['classic'])}"]
    parts.append(f"### All but `classic`\n\n{settings_table(shared)}")
    for name, fields in others.items():
        own = {setting: field for setting, field in fields.items() if setting not in shared}
        if own:
            parts.append(f"### `{name}` beside these\n\n{settings_table(own)}")
    return "\n\n".join(parts)


def variables_table(variables: Mapping[str, Variable | unit_variables.UnitVariable], lanes: str) -> str:
    """A table of variables of results."""
    return rows_of(
        ("variable", "dimensions", "unit", "what it is"),
        (
            (f"`{name}`", ", ".join((lanes, *variable.dims)), variable.units, variable.label)
            for name, variable in variables.items()
        ),
    )


def settings_beside_defaults(model: Model) -> Iterator[LaneSettings]:
    """A model's default settings, then those that differ from them in one setting: its words, or what is off is on."""
    yield lane_settings(model, snapshots=1)
    for name, field in settings_of(model.Settings).items():
        off = field.metadata.get("off")
        for value in field.metadata["range"].choices or ((0.5,) if off is not None else ()):
            with contextlib.suppress(UserError):  # Some need others beside them.
                yield lane_settings(model, **{name: value})


def lane_variables() -> str:
    """What every architecture's lanes may have, the classic one first; of the others what is not among it."""
    truth = load(DataConfig(dataset="superposition:roots=2,depth=1", samples=200)).truth
    parts: list[str] = []
    seen: set[str] = set()
    for name, model in MODELS.items():
        found: dict[str, Variable] = {}
        for settings in settings_beside_defaults(model):
            found = variables_of_lanes(settings, truth) | found
        new = {key: variable for key, variable in found.items() if key not in seen}
        seen |= set(new)
        if new:
            of_kind = sorted(new.items(), key=lambda pair: KINDS.index(pair[1].kind))
            parts.append(
                f"### `{name}`{' beside these' if parts else ''}\n\n{variables_table(dict(of_kind), 'axes, seed')}"
            )
    return "\n\n".join(parts)


def unit_variables_table() -> str:
    """What the command units keeps."""
    kept = unit_variables.variables_of("by the model's rule")
    return variables_table(kept, "axes, seed, unit")


def task_table() -> str:
    """The tasks, and the variable by which each scores a lane."""
    modules = ((name, importlib.import_module(f"sae_jax.analysis.tasks.{file}")) for name, file in TASKS.items())
    described = ((name, module.SCORE, (module.__doc__ or "").partition("\n")[0]) for name, module in modules)
    return rows_of(("`--task`", "variable", "what it is"), ((f"`{a}`", f"`{b}`", c) for a, b, c in described))


def api() -> str:
    """A directive for every exported name that is no room and no plain value, by kind."""
    functions, classes = [], []
    for name in sae_jax.__all__:
        one = getattr(sae_jax, name)
        if isinstance(one, type):
            classes.append((name, one))
        elif callable(one) and hasattr(one, "__module__"):
            functions.append((name, one))
    parts = []
    for title, members in (("Functions", functions), ("Classes", classes)):
        listed = sorted(members, key=lambda pair: pair[0].lower())
        parts += [f"## {title}", *(f"::: {one.__module__}.{one.__qualname__}" for _, one in listed)]
    return "\n\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {
    "commands": lambda: rows_of(("command", "what it does"), ((f"`{a}`", b) for a, b in COMMANDS.items())),
    "settings of models": model_tables,
    "settings of training": lambda: settings_table(settings_of(TrainingSettings)),
    "settings of data": lambda: settings_table(settings_of(DataConfig)),
    "settings of runs": lambda: settings_table(settings_of(RunConfig) | settings_of(Launch)),
    "settings of tasks": lambda: settings_table(settings_of(TaskConfig)),
    "settings of units": lambda: settings_table(settings_of(UnitsConfig)),
    "variables of lanes": lane_variables,
    "variables of units": unit_variables_table,
    "variables of tasks": task_table,
    "api": api,
}


def filled(markdown: str) -> str:
    """A page with its tables in their places.

    Raises:
        UserError: it asks for one that there is not.
    """

    def table(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise UserError(f"a table must be one of {', '.join(TABLES)}: got {match[1]}; mend the page's mark")
        return TABLES[match[1]]()

    return MARK.sub(table, markdown)


def in_site(markdown: str, source: str) -> str:
    """A page whose links to files beside docs/ lead to where these stand in the site.

    Args:
        markdown: the page.
        source: its path in the repository.
    """
    page = site_path(source) or source

    def link(match: re.Match[str]) -> str:
        target = site_path(posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1])))
        if target is None:
            return match[0]
        return f"]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{match[2] or ''})"

    return LINK.sub(link, markdown)


def site_path(path: str) -> str | None:
    """Where a file of the repository stands in the site; None where it does not."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.startswith(FIGURES) else BESIDE.get(path)


def anchor(heading: str, separator: str) -> str:
    """The anchor of a heading, by GitHub's rule."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def with_formulas(page: str) -> str:
    """HTML with TeX formulas as MathML, which browsers draw without a script.

    Raises:
        UserError: a formula has a word of TeX that the converter does not know.
    """
    from latex2mathml.converter import convert

    def formula(match: re.Match[str]) -> str:
        text = html.unescape(match[2])
        made = convert(text, display="block" if match[1] == "div" else "inline")
        if "\\" in made:
            raise UserError(f"a formula must be TeX that latex2mathml knows: got {text}; use simpler words")
        # Or a Chinese page would draw it with the letters of a Chinese font.
        made = f'<{match[1]} class="arithmatex" lang="en">{made}</{match[1]}>'
        # No line begins with what ends a clause.
        return f'<span class="clause">{made}{match[3]}</span>' if match[3] else made

    return FORMULA.sub(formula, page)


# What mkdocs calls.


def on_config(config: Any) -> Any:
    """Give headings the anchors that they have on GitHub, Chinese ones too."""
    config.mdx_configs["toc"]["slugify"] = anchor
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what lies beside docs/."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / FIGURES).glob("*.png")):
        files.append(File.generated(config, FIGURES + path.name, abs_src_path=str(path)))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, BESIDE["CONTRIBUTING.md"], content=contributing))
    return files


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Fill in tables, and mend links."""
    uri = page.file.src_uri
    source = "CONTRIBUTING.md" if uri == BESIDE["CONTRIBUTING.md"] else f"docs/{uri}"
    return in_site(filled(markdown), source)


def on_page_content(html: str, **others: Any) -> str:
    """Draw formulas."""
    return with_formulas(html)


def on_page_context(context: Any, page: Any, config: Any, **others: Any) -> Any:
    """Say in which language a page is: browsers choose its letters, and the theme its own words, by that."""
    config.theme["language"] = "zh" if page.file.src_uri.startswith(CHINESE) else "en"
    return context
