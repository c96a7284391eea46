"""The documents: their fenced blocks, headings and links, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def name(document: Path) -> str:
    """Its path in the repository."""
    return str(document.relative_to(REPOSITORY))


class Block(NamedTuple):
    """A fenced block below ``heading``; ``why`` says why no test runs it, if none does."""

    document: Path
    heading: str
    language: str
    text: str
    why: str | None


def blocks(document: Path) -> Iterator[Block]:
    """Every fenced block, in order."""
    text = document.read_text()
    for found in _BLOCK.finditer(text):
        above = [one for one in _headings(text) if one[0] < found.start()]
        heading = above[-1][1] if above else ""
        yield Block(document, heading, found["language"], found["text"], found["why"])


def prose(document: Path) -> str:
    """The text without its fenced blocks."""
    return _BLOCK.sub("", document.read_text())


def _headings(text: str) -> list[tuple[int, str]]:
    fences = [(one.start(), one.end()) for one in _BLOCK.finditer(text)]
    return [
        (one.start(), one[1])
        for one in re.finditer(r"^#+ (.+)$", text, re.MULTILINE)
        if not any(low <= one.start() < high for low, high in fences)
    ]


def anchors(document: Path) -> set[str]:
    """The fragments that GitHub gives the headings: lower case, words joined by hyphens."""
    found: set[str] = set()
    for _, heading in _headings(document.read_text()):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        base = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number, anchor = 0, base
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found
