"""The figures of ``bench/coldstart matrix`` as an SVG: bars by link and image.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]

BARS = (
    ("containerd", "containerd: pull and run", "#9aa0a6"),
    ("no list", "clip-runc, no list", "#4c8bf5"),
    ("list", "clip-runc, with a list", "#1a56c4"),
    ("lower bound", "lower bound", "#d93025"),
)
WIDTH, LEFT, RIGHT = 860, 90, 70
BAR, GAP = 12, 14
STYLE = "font: 12px system-ui, sans-serif; fill: #202124"


def bars(figures: Figures) -> str:
    """A page of bars; each image has its own scale, the longest bar is the whole width."""
    parts: list[str] = []
    y = 24
    for number, (_, words, colour) in enumerate(BARS):
        x = LEFT + number * 180
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 18, y, words))
    for link, images in figures.items():
        y += 34
        parts.append(_text(8, y, f"{link}, seconds to the first line of output", bold=True))
        y += 12
        for image, found in images.items():
            parts += _group(y, image, found)
            y += len(BARS) * BAR + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" style="{STYLE}">'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, ground, *parts, "</svg>", ""])


def _group(y: int, image: str, found: Mapping[str, float]) -> list[str]:
    parts = [_text(LEFT - 8, y + 2 * BAR + 4, image, anchor="end")]
    longest = max(found[name] for name, _, _ in BARS)
    for number, (name, _, colour) in enumerate(BARS):
        top = y + number * BAR
        width = max(1.0, found[name] / longest * (WIDTH - LEFT - RIGHT))
        size = f'width="{width:.1f}" height="{BAR - 2}"'
        parts.append(f'<rect x="{LEFT}" y="{top}" {size} fill="{colour}"/>')
        parts.append(_text(LEFT + width + 6, top + BAR - 3, f"{found[name]:.2f}"))
    return parts


def _text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
