"""What commands show to people: sizes, tables, one progress bar a layer.

On a terminal the bars are rich's; elsewhere each layer gives a plain line when it begins
and when it ends, so that a log stays readable.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click


class ProgressCallback(Protocol):
    """Told how far a layer has come: digest, bytes done, bytes in all."""

    def __call__(self, digest: str, done: int, total: int) -> None: ...


def size(count: float) -> str:
    """``count`` bytes for people, in powers of 1000 with the unit that keeps three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit returns")


def emit_json(value: Any) -> None:
    """Print ``value`` as JSON, with the lone surrogates of non-UTF-8 names escaped."""
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    """Print columns, numbers to the right, without lines between them."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(r[i], (int, float)) for r in rows)
        for i in range(len(headers))
    ]
    for line in [list(headers), *cells]:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


@contextmanager
def layer_progress(*, quiet: bool = False) -> Iterator[ProgressCallback]:
    """A callback that shows how far each layer has come, on stderr."""
    if quiet:
        yield lambda digest, done, total: None
    elif sys.stderr.isatty():
        with _bars() as callback:
            yield callback
    else:
        yield _PlainLines()


class _PlainLines:
    def __init__(self) -> None:
        self._seen: dict[str, bool] = {}

    def __call__(self, digest: str, done: int, total: int) -> None:
        finished = done >= total
        if self._seen.get(digest) == finished:
            return
        self._seen[digest] = finished
        name = digest.removeprefix("sha256:")[:12]
        click.echo(f"layer {name}: {size(total)} {'indexed' if finished else '…'}", err=True)


@contextmanager
def _bars() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def callback(digest: str, done: int, total: int) -> None:
            if digest not in tasks:
                name = digest.removeprefix("sha256:")[:12]
                tasks[digest] = progress.add_task(f"layer {name}", total=total)
            progress.update(tasks[digest], completed=done, total=total)

        yield callback
