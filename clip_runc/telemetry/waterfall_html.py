"""A waterfall as one HTML page: no script, no network, nothing but text, CSS and SVG.

What comes out of an image (names of files, references) is escaped, and a content security policy
forbids the page to load anything should an escape be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from clip_runc.telemetry.waterfall import Hits, Span, Waterfall, lanes
from clip_runc.telemetry.waterfall_text import megabytes, milliseconds, sums

_LEFT, _WIDTH, _ROW, _BAR = 150, 1000, 16, 12
_TICKS = 8
_MOST_LANES = 40
_LONGEST = 50
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #66707c; --line: #d8dde3; --paper: #fff;
  --phase: #6b5bd2; --fetch: #2f7fd1; --wait: #d9822b; --bad: #c9302c; --hit: #3a9d5d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b0; --line: #333b45;
  --paper: #14181d; --phase: #9c8df2; --fetch: #5aa5ef; --wait: #efa45a; --bad: #ef6b66;
  --hit: #63c487; } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0; } h2 { font-size: 1.1em; margin: 1.6em 0 .4em; }
p { margin: .2em 0; color: var(--soft); } code { font-size: .95em; }
dl { display: flex; flex-wrap: wrap; gap: .6em; margin: 1em 0; }
dl div { border: 1px solid var(--line); border-radius: 6px; padding: .4em .9em; }
dt { color: var(--soft); font-size: .85em; } dd { margin: 0; font-size: 1.25em; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); } .phase { fill: var(--phase); } .fetch { fill: var(--fetch); }
.wait { fill: var(--wait); } .bad { fill: var(--bad); } .hit { fill: var(--hit); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--soft);
  font-weight: 500; } td, th { padding: .2em .8em .2em 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.path { word-break: break-all; }
ul.legend { list-style: none; padding: 0; display: flex; gap: 1.5em; color: var(--soft); }
ul.legend svg { display: inline; width: 12px; height: 12px; vertical-align: -1px; }
"""


def page(found: Waterfall) -> str:
    """The whole page.  Pure: the same waterfall gives the same bytes."""
    title = f"{found.container}: start of {found.image or found.digest}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>{_text(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            *_head(found),
            *(_picture(found) if found.end else ()),
            *(_layers(found) if found.layers else ()),
            *(_slowest(found) if found.waits else ()),
            "</body>",
            "</html>",
            "",
        ]
    )


def _text(value: object) -> str:
    """Escaped; bytes of a name that are no UTF-8 become replacement characters."""
    return escape(str(value).encode("utf-8", "replace").decode())


def _head(found: Waterfall) -> Iterator[str]:
    yield f"<h1>{_text(found.container)}</h1>"
    yield f"<p>{_text(found.image)} <code>{_text(found.digest)}</code></p>"
    yield (
        f"<p>started {_text(found.started)}, mode {_text(found.mode)}, "
        f"{_text(found.layers_at_start)}; index by {_text(found.source)}</p>"
    )
    if not found.seen:
        yield "<p>What was read is not known: clipd does not serve this image any more.</p>"
        return
    tiles = (
        ("clip-runc's own part", milliseconds(sum(phase.seconds for phase in found.phases))),
        ("reads waited, in all", f"{found.waiting:.2f} s"),
        ("reads that waited", len(found.waits)),
        ("served at once", sum(hit.reads for hit in found.hits)),
        ("fetched", megabytes(found.fetched)),
        ("wanted", megabytes(found.wanted)),
    )
    yield "<dl>"
    for name, value in tiles:
        yield f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
    yield "</dl>"
    for line in list(sums(found))[:2]:
        yield f"<p>{_text(line)}.</p>"


def _picture(found: Waterfall) -> Iterator[str]:
    rows: list[tuple[str, str, list[Span]]] = [
        (phase.name, "phase", [Span(phase.start, phase.seconds, 0, 0, 0)]) for phase in found.phases
    ]
    for label, kind, spans in (
        ("fetches", "fetch", found.fetches),
        ("waiting reads", "wait", found.waits),
    ):
        packed = lanes(spans)
        for number, row in enumerate(packed[:_MOST_LANES]):
            rows.append((label if number == 0 else "", kind, row))
        rest = len(packed) - _MOST_LANES
        if rest > 0:
            rows.append((f"{rest} more at once", kind, []))
    height = 40 + _ROW * (len(rows) + (2 if found.hits else 0))
    scale = _WIDTH / found.end
    yield "<h2>What happened when</h2>"
    yield (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" role="img" '
        f'aria-label="waterfall of the start">'
    )
    for number in range(_TICKS + 1):
        x = _LEFT + _WIDTH * number / _TICKS
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height - 6}"/>'
        moment = found.end * number / _TICKS
        yield f'<text x="{x:.1f}" y="14" text-anchor="middle">{moment:.2f} s</text>'
    y = 26
    for label, kind, lane in rows:
        if label:
            yield f'<text x="{_LEFT - 8}" y="{y + 10}" text-anchor="end">{_text(label)}</text>'
        yield from (_bar(span, kind, y, scale, label) for span in lane)
        y += _ROW
    if found.hits:
        yield from _hits(found.hits, y, scale)
    yield "</svg>"
    yield '<ul class="legend">'
    for kind, words in (
        ("phase", "clip-runc itself"),
        ("fetch", "ranges from the registry"),
        ("wait", "reads that waited"),
        ("hit", "reads served at once, bytes in each tenth of a second"),
    ):
        yield (
            f'<li><svg viewBox="0 0 12 12"><rect class="{kind}" width="12" height="12"/></svg> '
            f"{words}</li>"
        )
    yield "</ul>"


def _bar(span: Span, kind: str, y: int, scale: float, label: str) -> str:
    x, width = _LEFT + span.start * scale, max(1.0, span.seconds * scale)
    said = f"{milliseconds(span.seconds)} from {span.start:.3f} s"
    if kind != "phase":
        said = f"layer {span.layer}, {span.length} bytes at {span.offset}: {said}"
    if span.path:
        said = f"{span.path}: {said}"
    if kind == "phase":
        said = f"{label}: {said}"
    return (
        f'<rect class="{kind if span.good else "bad"}" x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_BAR}" rx="1"><title>{_text(said)}</title></rect>'
    )


def _hits(hits: Sequence[Hits], y: int, scale: float) -> Iterator[str]:
    most = max(hit.length for hit in hits) or 1
    tall = 2 * _ROW - 4
    yield f'<text x="{_LEFT - 8}" y="{y + tall}" text-anchor="end">served at once</text>'
    for hit in hits:
        height = max(1.0, tall * hit.length / most)
        yield (
            f'<rect class="hit" x="{_LEFT + hit.start * scale:.1f}" y="{y + tall - height:.1f}" '
            f'width="{max(1.0, 0.09 * scale):.1f}" height="{height:.1f}">'
            f"<title>{hit.reads} reads, {megabytes(hit.length)}</title></rect>"
        )


def _layers(found: Waterfall) -> Iterator[str]:
    yield "<h2>Layers</h2>"
    names = ("layer", "compressed", "wanted", "fetched", "requests", "waits", "waited", "here now")
    yield from _table_head(names, 1)
    for number, layer in enumerate(found.layers):
        cells = (
            megabytes(layer.compressed),
            megabytes(layer.wanted),
            megabytes(layer.fetched),
            layer.requests,
            layer.waits,
            f"{layer.wait_seconds:.2f} s",
            f"{layer.present:.0%}",
        )
        yield f"<tr><td>{number} <code>{_text(layer.digest[:12])}</code></td>{_numbers(cells)}</tr>"
    yield "</table>"


def _slowest(found: Waterfall) -> Iterator[str]:
    slow = sorted(found.waits, key=lambda span: -span.seconds)[:_LONGEST]
    yield f"<h2>The {len(slow)} reads that waited longest</h2>"
    yield from _table_head(("file", "waited", "at", "bytes"), 1)
    for span in slow:
        name = span.path or f"layer {span.layer}, byte {span.offset}"
        failed = "" if span.good else " (failed)"
        cells = (milliseconds(span.seconds), f"{span.start:.3f} s", span.length)
        yield f'<tr><td class="path">{_text(name + failed)}</td>{_numbers(cells)}</tr>'
    yield "</table>"


def _table_head(names: Sequence[str], texts: int) -> Iterator[str]:
    cells = [
        f"<th{'' if place < texts else ' class=number'}>{_text(name)}</th>"
        for place, name in enumerate(names)
    ]
    yield f"<table><tr>{''.join(cells)}</tr>"


def _numbers(cells: Sequence[object]) -> str:
    return "".join(f'<td class="number">{_text(cell)}</td>' for cell in cells)
