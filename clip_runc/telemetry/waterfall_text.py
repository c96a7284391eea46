"""A waterfall for a terminal: who it is about, sums, and bars of characters over one time axis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from clip_runc.telemetry.waterfall import Span, Waterfall

WIDTH = 60
"""Columns of the bars."""

_SHADES = " ░▒▓█"
_LABEL = 22
_LONGEST = 10


def lines(found: Waterfall, longest: int = _LONGEST) -> Iterator[str]:
    """The report, a line each; ``longest``: how many of the reads that waited are named."""
    yield f"{found.container}: {found.image or found.digest}"
    yield f"  started {found.started}, mode {found.mode}, {found.layers_at_start}"
    yield "  " + ", ".join(
        [f"{phase.name} {milliseconds(phase.seconds)}" for phase in found.phases]
        or ["no phases are known"]
    )
    if not found.seen:
        yield "  what was read is not known: clipd does not serve this image any more"
        return
    yield from (f"  {line}" for line in sums(found))
    end = found.end
    if end:
        yield ""
        yield from _bars(found, end)
    slow = sorted(found.waits, key=lambda span: -span.seconds)[:longest]
    if slow:
        yield ""
        yield "reads that waited longest"
        for span in slow:
            name = span.path or f"layer {span.layer}, byte {span.offset}"
            failed = "" if span.good else "  FAILED"
            yield f"  {milliseconds(span.seconds):>9}  at {span.start:7.3f} s  {name}{failed}"


def sums(found: Waterfall) -> Iterator[str]:
    """What all the waiting and fetching came to, a sentence each."""
    failed = sum(not span.good for span in found.waits)
    hits = sum(hit.reads for hit in found.hits)
    yield (
        f"{len(found.waits)} reads waited, {found.waiting:.2f} s of the time one or more"
        + (f", {failed} of them failed" if failed else "")
        + f"; {hits} were served at once"
    )
    ratio = f", {found.fetched / found.wanted:.2f} of it" if found.wanted else ""
    yield (
        f"chunks that were touched hold {megabytes(found.wanted)} compressed; "
        f"{megabytes(found.fetched)} came{ratio}, in {len(found.fetches)} requests"
    )
    for number, layer in enumerate(found.layers):
        yield (
            f"layer {number} {layer.digest[:12]}: {megabytes(layer.fetched)} of "
            f"{megabytes(layer.compressed)} in {layer.requests} requests, {layer.waits} waits "
            f"({layer.wait_seconds:.2f} s); {layer.present:.0%} of it is here now"
        )


def _bars(found: Waterfall, end: float) -> Iterator[str]:
    yield f"{'':{_LABEL}}0{'':{WIDTH - 2}}{end:.2f} s"
    for phase in found.phases:
        span = Span(phase.start, phase.seconds, 0, 0, 0)
        yield _row(phase.name, [span], end)
    for number, _ in enumerate(found.layers):
        for label, spans in (("fetches", found.fetches), ("waits", found.waits)):
            own = [span for span in spans if span.layer == number]
            if own:
                yield _row(f"layer {number} {label}", own, end)


def _row(label: str, spans: Iterable[Span], end: float) -> str:
    cells = "".join(_SHADES[_shade(share)] for share in shares(list(spans), end, WIDTH))
    return f"{label[: _LABEL - 1]:{_LABEL}}{cells}".rstrip()


def _shade(share: float) -> int:
    return 0 if share <= 0 else 1 + min(3, int(share * 4))


def shares(spans: Sequence[Span], end: float, columns: int) -> list[float]:
    """For each of ``columns`` equal parts of 0 to ``end``: the share in which a span is on."""
    merged: list[tuple[float, float]] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], span.end)
        else:
            merged.append((span.start, span.end))
    found = [0.0] * columns
    step = end / columns
    for low, high in merged:
        first = min(columns - 1, int(low / step))
        last = min(columns - 1, int(high / step))
        for column in range(first, last + 1):
            inside = min(high, (column + 1) * step) - max(low, column * step)
            # something too short for a column is to be seen all the same
            found[column] += max(inside / step, 0.01)
    return found


def milliseconds(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def megabytes(count: int) -> str:
    """Bytes for people, as the wire counts them."""
    return f"{count / 1e6:.1f} MB"
