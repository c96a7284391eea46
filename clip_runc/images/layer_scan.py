"""What happens to a layer's uncompressed bytes, in threads of their own: hash, scan; cut, keep.

Two, one behind the other: hashing the stream for the diff_id and scanning take as long as hashing
its chunks and writing them to a store.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from clip_runc.config import LAYER_SIZE_LIMIT
from clip_runc.errors import LayerFormatError
from clip_runc.index.checkpoints import Cut
from clip_runc.index.chunk_hash import BLAKE3, new_hash
from clip_runc.index.model import Entry
from clip_runc.index.tar import TarScanner
from clip_runc.linux.threads import give_way

_QUEUE = 8

Buffer = bytes | memoryview
Sink = Callable[[int, Buffer], None]
"""``sink(offset, bytes)``: gets the tar stream, in order, not verified yet; it must copy."""


_Queue = queue.Queue[tuple[Buffer, list[Cut]] | None]


class Piece(NamedTuple):
    """A chunk before it is complete with its compressed end: where it starts, ends, its hash."""

    cut: Cut
    raw_end: int
    hash: bytes


class LayerTooLarge(LayerFormatError):
    """A layer that comes to more uncompressed bytes than are allowed."""


class LayerScan:
    """A context manager; ``feed`` what was decoded, then ``finish`` and read the results."""

    def __init__(
        self,
        sink: Sink | None = None,
        size_limit: int = LAYER_SIZE_LIMIT,
        recycle: Callable[[Buffer], None] | None = None,
    ) -> None:
        """``recycle`` gets each piece that was fed when nothing looks at it any more."""
        self._recycle = recycle
        self._size_limit = size_limit
        self._fed = 0
        self.pieces: list[Piece] = []
        self.raw_size = 0
        self.entries: list[Entry] = []
        self._sink = sink
        self._diff = hashlib.sha256()
        self._scanner = TarScanner()
        self._cut: Cut | None = None
        self._chunk = new_hash(BLAKE3)
        self._error: BaseException | None = None
        self._stopped = False
        self._fed_queue: _Queue = queue.Queue(_QUEUE)
        self._scanned: _Queue = queue.Queue(_QUEUE)
        self._threads = [
            threading.Thread(target=self._work, args=(*work,), name=name, daemon=True)
            for name, *work in (
                ("clip-scan", self._fed_queue, self._scan),
                ("clip-keep", self._scanned, self._keep),
            )
        ]

    def __enter__(self) -> LayerScan:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self._stopped = True
        self._join()

    @property
    def diff_id(self) -> str:
        """``sha256:<hex>`` of all that was fed."""
        return f"sha256:{self._diff.hexdigest()}"

    def feed(self, data: Buffer, cuts: list[Cut]) -> None:
        """The next bytes and the cuts in them.  ``data`` must not change until recycled.

        Raises what the scanner or the sink raised on earlier bytes, and ``LayerTooLarge``.
        """
        if self._error is not None:
            raise self._error
        self._fed += len(data)
        if self._fed > self._size_limit:
            raise LayerTooLarge(
                f"more than {self._size_limit} bytes uncompressed",
                "made to exhaust the machine? Otherwise raise layer_size_limit in the settings",
            )
        if data:
            self._fed_queue.put((data, cuts))

    def finish(self) -> None:
        """Wait for the threads; close the last chunk and the scanner."""
        self._join()
        if self._error is not None:
            raise self._error
        self._close_chunk(self.raw_size)
        # an empty blob is an empty layer: some tools write one instead of two blocks of zeros
        self.entries = self._scanner.close() if self.raw_size else []

    def _join(self) -> None:
        for thread, items in zip(self._threads, (self._fed_queue, self._scanned), strict=True):
            if thread.is_alive():
                items.put(None)
                thread.join()

    def _work(self, items: _Queue, work: Callable[[Buffer, list[Cut]], None]) -> None:
        give_way()
        while (item := items.get()) is not None:
            if self._error is not None or self._stopped:
                continue
            try:
                work(*item)
            except BaseException as error:  # handed to the feeding thread
                self._error = error

    def _scan(self, data: Buffer, cuts: list[Cut]) -> None:
        self._diff.update(data)
        self._scanner.feed(data)
        self._scanned.put((data, cuts))

    def _keep(self, data: Buffer, cuts: list[Cut]) -> None:
        view, start = memoryview(data), self.raw_size
        position = 0
        for cut in cuts:
            self._chunk.update(view[position : cut.raw - start])
            position = cut.raw - start
            self._close_chunk(cut.raw)
            self._cut = cut
            self._chunk = new_hash(BLAKE3)
        self._chunk.update(view[position:])
        if self._sink is not None:
            self._sink(start, data)
        self.raw_size += len(data)
        if self._recycle is not None:
            self._recycle(data)

    def _close_chunk(self, end: int) -> None:
        if self._cut is not None and end > self._cut.raw:
            self.pieces.append(Piece(self._cut, end, self._chunk.digest()))
