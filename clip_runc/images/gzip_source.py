"""Decoding a gzip layer, and cutting it where decoding can start again: at deflate blocks.

Where the cuts are is a property of the stream alone: a chunk ends at the first block that begins
``target`` compressed or ``RAW_TARGET`` uncompressed bytes after it, or more (``Targets``).  ISA-L
decodes; where a chunk is due to end, zlib-ng, which knows where blocks begin, goes on from the last
block that ISA-L can name before that, and from the chunk's own start where it can name none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from clip_runc.errors import LayerFormatError
from clip_runc.images.spool import BEHIND, Spool
from clip_runc.index.checkpoints import CEILING_RAW, NEVER, Cut, Targets
from clip_runc.index.gzip_blocks import TRAILER, member_header
from clip_runc.index.windows import ENOUGH, WINDOW, stored_window
from clip_runc.linux.inflaters import gzip_inflater
from clip_runc.linux.zlib_ng import BlockInflater, InflateError

MIB = 1 << 20
_READ = MIB // 4
_WRITE = MIB // 2
_SEEK = 64 << 10
_HEADER = 200 << 10
"""As much as the header of a member may take."""

_WINDOWS_BEHIND = 8
"""Windows that may be in the making."""

_LOOK_BACK = 40 << 10
"""Compressed bytes before the end of a chunk that are searched for a block: zlib makes 2 or 3."""

Pieces = Generator[tuple[memoryview, list[Cut]], None, list[bytes]]


class Buffers:
    """Buffers to decode into, used again: fresh memory costs a page fault for every 4 KiB.

    The first ``WINDOW`` bytes of each are those before its own.
    """

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()  # whose ends are atomic

    def take(self) -> bytearray:
        """One that nobody uses."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(WINDOW + _WRITE)

    def give_back(self, data: bytes | memoryview) -> None:
        """Say that a piece (of ``gzip_pieces``) was dealt with and may change."""
        if isinstance(data, memoryview) and isinstance(data.obj, bytearray):
            self._free.append(data.obj)


def gzip_pieces(spool: Spool, checkpoint_mib: int, buffers: Buffers) -> Pieces:
    """(bytes, the cuts that lie in them), in order; returns each chunk's window, as stored.

    The bytes lie in ``buffers``, to which whoever gets them may give them back.
    Raises ``LayerFormatError``.
    """
    targets = Targets(checkpoint_mib * MIB)
    spool.behind = max(BEHIND, 2 * checkpoint_mib * MIB)  # back to a chunk's start
    with ThreadPoolExecutor(1, "clip-window") as pool:
        decoding = _Decoding(spool, targets, buffers, pool)
        try:
            yield from decoding.pieces()
            return [window.result() for window in decoding.windows]
        except InflateError as error:
            raise LayerFormatError(f"gzip: {error}") from None
        finally:
            pool.shutdown(cancel_futures=True)


class _Place(NamedTuple):
    """A block that decoding can start from: its first uncompressed byte, its bit in the blob."""

    raw: int
    bit: int
    window: bytes


class _Remembered(NamedTuple):
    """Where ISA-L's state was kept, and the bytes of the member before, at most 32 KiB."""

    position: int
    raw: int
    before: bytes


class _Decoding:
    """``position`` in the blob and ``raw`` in the tar stream: how far ISA-L has come."""

    def __init__(
        self, spool: Spool, targets: Targets, buffers: Buffers, pool: ThreadPoolExecutor
    ) -> None:
        self.windows: list[Future[bytes]] = []
        self._spool = spool
        self._targets = targets
        self._buffers = buffers
        self._pool = pool
        self._fast = gzip_inflater()
        self._position = self._raw = self._members = 0
        self._member: tuple[int, int] | None = None  # where the one that we are in begins
        self._remembered: _Remembered | None = None
        self._start = _Place(0, 0, b"")  # of the chunk
        self._ahead: deque[_Place] = deque()  # cuts that were not yielded yet
        self._limit = Cut(0, 0)

    def pieces(self) -> Iterator[tuple[memoryview, list[Cut]]]:
        """Decode all of the blob."""
        self._cut(self._first_block(0, 0))
        out, end = self._buffers.take(), WINDOW
        while data := self._spool.read_at(self._position, _READ):
            at, full = 0, False
            while full or at < len(data):
                if self._member is None and not self._begin(data, at):
                    break
                stop = at + min(len(data) - at, self._room())
                last = min(len(out), end + self._limit.raw - self._raw)
                used, made = self._fast.inflate(data, at, stop, out, end, last)
                if not (used or made or full or self._fast.finished):
                    raise LayerFormatError("gzip: nothing more can be decoded")
                at, end, full = at + used, end + made, end + made == last
                self._position += used
                self._raw += made
                if end == len(out):
                    yield self._piece(out, end)
                    out = self._next(out)
                    end = WINDOW
                if self._fast.finished:
                    at -= self._finish()
                    if at < 0:
                        break
                    full = False
                self._arrive(out, end)
        if self._member is not None or not self._members:
            raise LayerFormatError("gzip: the stream is cut short")
        yield self._piece(out, end)

    def _begin(self, data: bytes, at: int) -> bool:
        """At the end of a member: begin the next one; False where zeros fill the blob."""
        if self._members and data[at] == 0:
            if any(memoryview(data)[at:]):
                raise LayerFormatError("gzip: there is something behind the end of the stream")
            self._position += len(data) - at
            return False
        self._fast.restart()
        self._member = (self._position, self._raw)
        self._remembered = None
        return True

    def _finish(self) -> int:
        """End a member; how many bytes ISA-L took too many."""
        self._member = None
        self._members += 1
        self._position -= self._fast.excess
        return self._fast.excess

    def _room(self) -> int:
        """Compressed bytes up to where something is to be done."""
        limit = -(-self._limit.bit // 8)
        early = limit - _LOOK_BACK
        return (early if self._position < early else limit) - self._position

    def _arrive(self, out: bytearray, end: int) -> None:
        limit = self._limit
        if self._position * 8 >= limit.bit or self._raw >= limit.raw:
            self._cut(self._find())
        elif self._member and self._position == -(-limit.bit // 8) - _LOOK_BACK:
            self._fast.remember()
            before = memoryview(out)[end - min(WINDOW, self._raw - self._member[1]) : end]
            self._remembered = _Remembered(self._position, self._raw, bytes(before))

    # Cuts

    def _cut(self, place: _Place | None) -> None:
        """Begin a chunk; None where there is no place for another."""
        self._remembered = None
        if place is None:
            self._limit = NEVER
            return
        self._start = place
        self._limit = self._targets.limit(Cut(place.raw, place.bit))
        self._ahead.append(place)
        if len(self.windows) >= _WINDOWS_BEHIND:
            self.windows[-_WINDOWS_BEHIND].result()
        byte, bit = divmod(place.bit, 8)
        data = self._spool.bytes_at(byte, ENOUGH) if place.window else b""
        self.windows.append(self._pool.submit(stored_window, place.window, bit, data))

    def _find(self) -> _Place | None:
        """Where the next chunk begins: the first block at the limit or behind it."""
        place: _Place | None = self._known()
        while place is not None:
            if self._enough(place):
                return place
            inflater = BlockInflater(place.bit, place.raw, place.window)
            try:
                found, place = self._seek(inflater, place.bit // 8)
            finally:
                inflater.close()
            if found:
                return place
        return None

    def _seek(self, inflater: BlockInflater, position: int) -> tuple[bool, _Place | None]:
        """The place that is searched for, or the first block of the next member."""
        limit = self._limit
        while data := self._spool.read_at(position, _SEEK):
            position += len(data)
            if inflater.seek(data, limit.bit, limit.raw, self._start.raw):
                return True, _Place(inflater.raw, inflater.bit, inflater.window())
            if inflater.ended:
                return False, self._first_block(inflater.bit // 8 + TRAILER, inflater.raw)
            if inflater.reached - self._start.raw > CEILING_RAW:
                raise LayerFormatError(f"gzip: a block of more than {CEILING_RAW} bytes")
        return False, None

    def _enough(self, place: _Place) -> bool:
        limit = self._limit
        return (place.bit >= limit.bit or place.raw >= limit.raw) and place.raw > self._start.raw

    def _known(self) -> _Place | None:
        """The last block before the limit of which we know."""
        place: _Place | None = self._start
        if self._member is not None and self._member[0] * 8 > self._start.bit:
            place = self._first_block(*self._member)
        if self._remembered is not None:
            position, raw, before = self._remembered
            data = self._spool.bytes_at(position, self._position - position)
            block = self._fast.last_block(data)
            if block is not None:
                window = (before + block.window)[-WINDOW:]
                found = _Place(raw + block.raw, position * 8 + block.bit, window)
                if found.bit < self._limit.bit and found.raw < self._limit.raw:
                    return found
        return place

    def _first_block(self, position: int, raw: int) -> _Place | None:
        """The first block of the member at ``position``; None where no member is."""
        head = self._spool.bytes_at(position, _HEADER)
        if self._members_end(head):
            return None
        return _Place(raw, (position + member_header(head)) * 8, b"")

    def _members_end(self, head: bytes) -> bool:
        return bool(self._start.bit) and (not head or head[0] == 0)

    # Output

    def _next(self, out: bytearray) -> bytearray:
        following = self._buffers.take()
        following[:WINDOW] = memoryview(out)[-WINDOW:]
        return following

    def _piece(self, out: bytearray, end: int) -> tuple[memoryview, list[Cut]]:
        """What was decoded to ``out``, and the cuts in it."""
        cuts: list[Cut] = []
        start = self._raw - (end - WINDOW)
        while self._ahead and self._ahead[0].raw < self._raw:
            place = self._ahead.popleft()
            at = WINDOW + place.raw - start
            if out[at - len(place.window) : at] != place.window:
                raise LayerFormatError("gzip: ISA-L and zlib-ng do not decode it alike")
            cuts.append(Cut(place.raw, place.bit))
        return memoryview(out)[WINDOW:end], cuts
