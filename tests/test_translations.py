"""The Chinese pages say what the English ones say: the same commands, code, links, formulas, numbers and parts."""

import io
import re
import tokenize
from collections import Counter
from pathlib import PurePosixPath
from posixpath import normpath

import pytest

from tests.documents import without_code
from tests.test_docs import PAGES, TUTORIAL

PAIRS = {
    "README.md": "README.zh-CN.md",
    "docs/index.md": "docs/zh/index.md",
    **{name: name.replace("docs/", "docs/zh/", 1) for name in TUTORIAL},
}
ENGLISH = {chinese: english for english, chinese in PAIRS.items()}
CODE = re.compile(r"^```[\s\S]*?^```$|^    .*(?:\n+    .*)*", re.MULTILINE)
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
HAN = r"[\u4e00-\u9fff]"


def without_comments(block):
    """A block of code without what is said about it: comments of Python, and what stands beside listed paths."""
    if block.startswith("```python"):
        words = tokenize.generate_tokens(io.StringIO(block.partition("\n")[2].removesuffix("```")).readline)
        return [word.string for word in words if word.type not in (tokenize.COMMENT, tokenize.NL)]
    return re.sub(r"^(    \S+/\S+) {2,}.*$", r"\1", block, flags=re.MULTILINE)


def targets_of(name, text):
    """Where links and figures lead, from the repository's root; a Chinese page counts as its English one."""
    found = []
    for target in re.findall(r"\]\(([^()\s]+)\)", without_code(text)):
        path, _, anchor = target.partition("#")
        whole = path if "://" in path else normpath(str(PurePosixPath(name).parent / path))
        found.append((ENGLISH.get(whole, whole), anchor))
    page = ENGLISH.get(name, name)
    return [pair for pair in found if pair[0] != page]  # To the same page in the other language.


def outline_of(text):
    """The kind of every part of a page, headings with their level, lists and tables with their length."""
    kinds = []
    for part in re.split(r"\n\n+", CODE.sub("```", text).strip()):
        lines = part.splitlines()
        mark = re.match(r"#+ |- |\||\$\$|!\[|```", part)
        kind = mark[0].strip() if mark else "paragraph"
        length = sum(line.startswith(kind) for line in lines) if kind in ("-", "|") else 1
        kinds.append(f"{kind} x {length}")
    return kinds


def numbers_of(text):
    """How often each number stands in the sentences of a page, months aside."""
    sentences = re.sub(r"\]\([^()]*\)|\d+ 月", " ", FORMULA.sub(" ", without_code(CODE.sub("", text))))
    return Counter(
        float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\d(?:\.\d+)?|\d*\.?\d+", sentences)
    )


def formulas_of(text):
    return Counter(re.sub(r"(?<!\d)\.(?=\d)", "0.", formula) for formula in FORMULA.findall(CODE.sub("", text)))


def differences(name, english, chinese):
    """The aspects in which the Chinese page of an English one says something else."""
    sides = (name, english), (PAIRS[name], chinese)
    aspects = {
        "code": lambda _, text: [without_comments(block) for block in CODE.findall(text)],
        "links": targets_of,
        "outline": lambda _, text: outline_of(text),
        "words of code": lambda _, text: Counter(re.findall(r"`[^`\n]+`", CODE.sub("", text))),
        "formulas": lambda _, text: formulas_of(text),
        "numbers": lambda _, text: numbers_of(text),
    }
    return [aspect for aspect, read in aspects.items() if read(*sides[0]) != read(*sides[1])]


def test_every_page_of_the_tutorial_is_there_in_chinese():
    assert len(PAIRS) >= 8
    assert {name for name in PAGES if "zh" in name} == set(PAIRS.values())


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_say_the_same(name):
    assert differences(name, PAGES[name], PAGES[PAIRS[name]]) == []


@pytest.mark.parametrize(
    ("written", "instead", "aspect"),
    [
        ("--steps 5000", "--steps 500", "code"),
        ("](penalty.md)", "](average.md)", "links"),
        ("](filters.png)", "](units.png)", "links"),
        ("## Training", "### Training", "outline"),
        ("\n\nNext: ", "\nNext: ", "outline"),
        ("`python -m experiments.reproduce pca`", "`python -m experiments.reproduce ufldl`", "words of code"),
        (r"$n \ge d$", "$n > d$", "formulas"),
        (r"\frac{1}{m}", r"\frac{1}{n}", "formulas"),
        ("exceeds 0.1", "exceeds 0.2", "numbers"),
        ("all 49 units", "all units", "numbers"),
    ],
)
def test_a_page_that_falls_behind_is_noticed(written, instead, aspect):
    name = "docs/tutorial/autoencoder.md"
    assert written in PAGES[name]
    assert aspect in differences(name, PAGES[name].replace(written, instead), PAGES[PAIRS[name]])


def test_comments_alone_may_differ():
    assert without_comments("```python\na = 1  # one\n```") == without_comments("```python\na = 1  # 一\n```")
    assert without_comments("```python\na = 1\n```") != without_comments("```python\na = 2\n```")
    assert without_comments("    runs/a.nc    curves") == without_comments("    runs/a.nc  曲线")
    assert without_comments("    python -m a") != without_comments("    python -m b")


@pytest.mark.parametrize("name", PAIRS)
def test_each_language_leads_to_the_other_and_stays_in_its_own(name):
    chinese, links = PAIRS[name], re.compile(r"\]\(([^()#\s]+)")
    for page, other in ((name, chinese), (chinese, name)):
        found = [normpath(str(PurePosixPath(page).parent / path)) for path in links.findall(without_code(PAGES[page]))]
        own = set(PAIRS) if page == name else set(PAIRS.values())
        assert found[0] == other and PAGES[page].splitlines()[2].startswith(("English | [", "[English]("))
        assert {path for path in found[1:] if path in {*PAIRS, *PAIRS.values()}} <= own


@pytest.mark.parametrize("name", PAIRS.values())
def test_chinese_is_set_as_chinese(name):
    sentences = CODE.sub("", PAGES[name])
    # A break inside a paragraph is drawn as a gap.
    assert not re.findall(rf".*(?:{HAN}|[，。、；：])\n(?=[^\n|-]).*", sentences)
    # GitHub draws a formula only where a space stands before it.
    shown = without_code(sentences)
    starts = [formula.start() for formula in FORMULA.finditer(shown)]
    assert [shown[start - 9 : start + 9] for start in starts if not shown[start - 1].isspace()] == []
    # A space stands between Chinese and Latin letters, code and formulas, and none beside Chinese punctuation.
    spans = re.sub(r"\]\([^()\s]*\)", "]", FORMULA.sub("$", shown))
    assert not re.findall(rf".{{,9}}(?:{HAN}[A-Za-z0-9$]|[A-Za-z0-9$]{HAN}).{{,9}}", spans)
    assert not re.findall(rf".{{,9}}(?:{HAN}[,;:?!]|[，。、；：？！（）] | [，。、；：？！（）]).{{,9}}", spans)
