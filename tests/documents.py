"""What is in a document of Markdown."""

import re


def without_code(text):
    """A document without its blocks and spans of code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def links_of(text):
    """(path, anchor) of every relative link and figure of a document."""
    return re.findall(r"\]\((?!\w+:)([^()#\s]*)(?:#([^()\s]*))?\)", without_code(text))


def anchors_of(text):
    """The anchors of a document's headings, by GitHub's rule."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
