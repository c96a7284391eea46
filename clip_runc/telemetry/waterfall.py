"""A container's start as a waterfall: phases, reads that waited, ranges that were fetched.

Pure: what clipd saw comes in as rows of ``fs/recording.py``, what comes out is for
``waterfall_text`` and ``waterfall_html``.  All times are seconds since the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Span(NamedTuple):
    """Something that took time: ``length`` bytes at ``offset`` of ``layer``.

    For a read these are places in the uncompressed stream and ``path`` is the file that has
    the first byte; for a fetch they are places in the blob.  ``good``: it succeeded.
    """

    start: float
    seconds: float
    layer: int
    offset: int
    length: int
    good: bool = True
    path: str = ""

    @property
    def end(self) -> float:
        """When it was over."""
        return self.start + self.seconds


class Phase(NamedTuple):
    """A part of the start that clip-runc did itself."""

    name: str
    start: float
    seconds: float


class Hits(NamedTuple):
    """Reads that were served at once in a tenth of a second."""

    start: float
    reads: int
    length: int


class LayerSum(NamedTuple):
    """A layer of the image: its sizes in bytes, and its part in the waterfall.

    ``wanted`` are the compressed bytes of the chunks that were read for the first time, ``fetched``
    those that came; ``present`` is the share of the layer that was here when the report was made.
    """

    digest: str
    compressed: int
    raw: int
    present: float
    waits: int
    wait_seconds: float
    wanted: int
    fetched: int
    requests: int


@dataclass(frozen=True)
class Waterfall:
    """What ``clipctl report`` shows.

    ``seconds`` is how long after the start was looked; ``seen`` is False where clipd could not say
    what was read, because it does not run or the image is attached no more.
    """

    container: str
    image: str
    digest: str
    mode: str
    source: str
    layers_at_start: str
    started: str
    seconds: float
    seen: bool
    phases: tuple[Phase, ...]
    waits: tuple[Span, ...] = ()
    fetches: tuple[Span, ...] = ()
    hits: tuple[Hits, ...] = ()
    layers: tuple[LayerSum, ...] = ()

    @property
    def end(self) -> float:
        """When the last thing that is shown was over."""
        ends = [phase.start + phase.seconds for phase in self.phases]
        ends += [span.end for span in (*self.waits, *self.fetches)]
        ends += [hit.start for hit in self.hits]
        return max(ends, default=0.0)

    @property
    def waiting(self) -> float:
        """Seconds in which at least one read waited."""
        return covered(self.waits)

    @property
    def wanted(self) -> int:
        """Compressed bytes of the chunks that were touched."""
        return sum(layer.wanted for layer in self.layers)

    @property
    def fetched(self) -> int:
        """Compressed bytes that came over the wire."""
        return sum(layer.fetched for layer in self.layers)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        plain = {
            name: [one._asdict() for one in getattr(self, name)]
            for name in ("phases", "waits", "fetches", "hits", "layers")
        }
        sums = {name: getattr(self, name) for name in ("end", "waiting", "wanted", "fetched")}
        rest = {name: value for name, value in asdict(self).items() if name not in plain}
        return {**rest, **plain, **sums}


class Traces(NamedTuple):
    """What clipd says of an image (``Client.trace``), a list of rows each; monotonic seconds."""

    layers: Sequence[Sequence[Any]] = ()
    touched: Sequence[Sequence[Any]] = ()
    waits: Sequence[Sequence[Any]] = ()
    hits: Sequence[Sequence[Any]] = ()
    fetches: Sequence[Sequence[Any]] = ()


def waterfall(
    event: Mapping[str, Any],
    phases: Iterable[tuple[str, float]],
    traces: Traces | None,
    *,
    begin: float,
    seconds: float,
    chunk_sizes: Sequence[Sequence[int]],
    path: Callable[[int, int], str],
) -> Waterfall:
    """Put it together for the ``seconds`` after ``begin`` (monotonic).

    ``event`` is the container's start as the file of events has it, ``phases`` its phases in order.
    ``chunk_sizes`` are the compressed bytes of each chunk of each layer, ``path`` gives the file at
    a place of a layer's stream.
    """
    made: list[Phase] = []
    at = 0.0
    for name, took in phases:
        made.append(Phase(name, at, took))
        at += took
    rows = traces or Traces()

    def inside(moment: float) -> bool:
        return begin <= moment < begin + seconds

    waits = [
        Span(start - begin, took, layer, offset, length, bool(good), path(layer, offset))
        for layer, start, took, offset, length, good in rows.waits
        if inside(start)
    ]
    fetches = [
        Span(start - begin, took, layer, low, high - low, bool(good))
        for layer, start, took, low, high, good in rows.fetches
        if inside(start)
    ]
    hits: dict[float, list[int]] = {}
    for _, start, count, length in rows.hits:
        if begin - 0.1 <= start < begin + seconds:
            total = hits.setdefault(max(0.0, start - begin), [0, 0])
            total[0] += count
            total[1] += length
    touched = [(layer, chunk) for layer, chunk, first, _ in rows.touched if inside(first)]
    return Waterfall(
        container=str(event.get("container", "")),
        image=str(event.get("image", "")),
        digest=str(event.get("digest", "")),
        mode=str(event.get("mode", "")),
        source=str(event.get("source", "")),
        layers_at_start=str(event.get("layers", "")),
        started=str(event.get("time", "")),
        seconds=seconds,
        seen=traces is not None,
        phases=tuple(made),
        waits=tuple(sorted(waits)),
        fetches=tuple(sorted(fetches)),
        hits=tuple(Hits(start, *total) for start, total in sorted(hits.items())),
        layers=tuple(
            _layer_sum(row, waits, fetches, [c for n, c in touched if n == row[0]], chunk_sizes)
            for row in rows.layers
        ),
    )


def _layer_sum(
    row: Sequence[Any],
    waits: Iterable[Span],
    fetches: Iterable[Span],
    touched: Iterable[int],
    chunk_sizes: Sequence[Sequence[int]],
) -> LayerSum:
    number, digest, compressed, raw, present = row
    sizes = chunk_sizes[number]
    own = [span for span in waits if span.layer == number]
    came = [span for span in fetches if span.layer == number and span.good]
    return LayerSum(
        digest=str(digest),
        compressed=compressed,
        raw=raw,
        present=present / len(sizes) if sizes else 1.0,
        waits=len(own),
        wait_seconds=covered(own),
        wanted=sum(sizes[chunk] for chunk in touched),
        fetched=sum(span.length for span in came),
        requests=len(came),
    )


def covered(spans: Iterable[Span]) -> float:
    """Seconds in which at least one of the spans was under way."""
    total, reached = 0.0, 0.0
    for span in sorted(spans):
        total += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return total


def lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """The spans in as few rows as it takes for none of them to overlap, the first ones on top."""
    rows: list[list[Span]] = []
    for span in sorted(spans):
        row = next((row for row in rows if row[-1].end <= span.start), None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows
