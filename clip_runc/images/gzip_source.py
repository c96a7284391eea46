"""Decoding a gzip layer, and cutting it where decoding can start again: at deflate blocks.

Where the cuts are is a property of the stream alone: a chunk ends at the first block behind its
limit (``checkpoints.gzip_limit``), so many bytes from its start, compressed or not.  ISA-L decodes,
and does not wait while the place is searched for (``gzip_cuts``): only what was decoded from there
on does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import NamedTuple

from clip_runc.errors import LayerFormatError
from clip_runc.images.gzip_cuts import Arrival, Cutter, Place, Remembered
from clip_runc.images.spool import BEHIND, Spool
from clip_runc.index.checkpoints import NEVER, Cut, gzip_limit
from clip_runc.index.windows import WINDOW
from clip_runc.linux.inflaters import gzip_inflater
from clip_runc.linux.isa_l import FastInflater
from clip_runc.linux.zlib_ng import GzipInflater, InflateError

MIB = 1 << 20
_READ = MIB // 2
_WRITE = MIB

_LOOK_BACK = 40 << 10
"""Compressed bytes before the end of a chunk that are searched for a block: zlib makes 2 or 3."""

_LOOK_BACK_RAW = 160 << 10
"""Uncompressed bytes likewise."""

_AHEAD = 4 << 20
"""Compressed bytes that are decoded at most while the place of a cut is searched for."""

_HELD = 4
"""Pieces that may wait for the place of a cut."""

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
    target = checkpoint_mib * MIB
    spool.behind = BEHIND + target  # back to a chunk's start, from behind its end
    inflater = gzip_inflater()
    with Cutter(spool, inflater) as cutter:
        try:
            yield from _Decoding(spool, inflater, target, buffers, cutter).pieces()
            return cutter.windows()
        except InflateError as error:
            raise LayerFormatError(f"gzip: {error}") from None


class _Piece(NamedTuple):
    """What was decoded to ``out[WINDOW:end]``; the first byte of it is ``raw`` of the stream."""

    out: bytearray
    end: int
    raw: int


class _Decoding:
    """``position`` in the blob and ``raw`` in the tar stream: how far ISA-L has come."""

    def __init__(
        self,
        spool: Spool,
        inflater: FastInflater | GzipInflater,
        target: int,
        buffers: Buffers,
        cutter: Cutter,
    ) -> None:
        self._spool = spool
        self._target = target
        self._buffers = buffers
        self._cutter = cutter
        self._fast = inflater
        self._position = self._raw = self._members = 0
        self._member: tuple[int, int] | None = None  # where the one that we are in begins
        self._remembered: Remembered | None = None
        self._start = Place(0, 0, b"")  # of the chunk
        self._ahead: deque[Place] = deque()  # cuts that were not yielded yet
        self._limit = Cut(0, 0)
        self._found: Future[Place | None] | None = None  # the end of the chunk, searched for
        self._held: deque[_Piece] = deque()

    def pieces(self) -> Iterator[tuple[memoryview, list[Cut]]]:
        """Decode all of the blob."""
        first = self._cutter.first_block(0, 0)
        if first is not None:
            self._cutter.keep_window(first)
        self._cut(first)
        out, end = self._buffers.take(), WINDOW
        while data := self._spool.read_at(self._position, _READ):
            at, full = 0, False
            while full or at < len(data):
                if self._member is None and not self._begin(data, at):
                    break
                stop = at + min(len(data) - at, self._room())
                last = min(len(out), end + self._room_raw())
                used, made = self._fast.inflate(data, at, stop, out, end, last)
                if not (used or made or full or self._fast.finished):
                    raise LayerFormatError("gzip: nothing more can be decoded")
                at, end, full = at + used, end + made, end + made == last
                self._position += used
                self._raw += made
                if end == len(out):
                    following = self._next(out)
                    yield from self._give(out, end)
                    out, end = following, WINDOW
                if self._fast.finished:
                    at -= self._finish()
                    if at < 0:
                        break
                    full = False
                self._arrive(out, end)
        if self._member is not None or not self._members:
            raise LayerFormatError("gzip: the stream is cut short")
        self._settle(wait=True)
        yield from self._give(out, end)

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
        early = self._early()
        return (early if self._position < early else early + _LOOK_BACK) - self._position

    def _room_raw(self) -> int:
        """Uncompressed bytes likewise."""
        early = self._early_raw()
        return (early if self._raw < early else self._limit.raw) - self._raw

    def _reached(self) -> bool:
        return self._position * 8 >= self._limit.bit or self._raw >= self._limit.raw

    def _early(self) -> int:
        """The byte of the blob from which on blocks before the limit are looked for."""
        return -(-self._limit.bit // 8) - _LOOK_BACK

    def _early_raw(self) -> int:
        return self._limit.raw - _LOOK_BACK_RAW

    def _arrive(self, out: bytearray, end: int) -> None:
        self._settle(wait=False)
        if self._found is None and self._reached():
            self._search()
        if self._position >= self._early() or self._raw >= self._early_raw():
            self._settle(wait=True)
        early = self._position == self._early() or self._raw == self._early_raw()
        if self._member and self._found is None and early and self._remembered is None:
            self._fast.remember()
            before = memoryview(out)[end - min(WINDOW, self._raw - self._member[1]) : end]
            self._remembered = Remembered(self._position, self._raw, bytes(before))

    # Cuts

    def _search(self) -> None:
        """Have the place searched for where the chunk ends, and go on."""
        self._found = self._cutter.find(
            Arrival(self._start, self._limit, self._position, self._member, self._remembered)
        )
        # the next limit or before it; and no further than the spool keeps what is searched
        raw, bit = gzip_limit(Cut(self._raw, self._position * 8), self._target)
        self._limit = Cut(raw, min(bit, (self._position + _AHEAD) * 8))

    def _settle(self, *, wait: bool) -> None:
        """Begin a chunk at the place that was searched for, if it is known or waited for."""
        while self._found is not None and (wait or self._found.done()):
            found, self._found = self._found, None
            self._cut(found.result())
            if self._reached():
                self._search()

    def _cut(self, place: Place | None) -> None:
        """Begin a chunk; None where there is no place for another."""
        self._remembered = None
        if place is None:
            self._limit = NEVER
            return
        self._start = place
        self._limit = gzip_limit(Cut(place.raw, place.bit), self._target)
        self._ahead.append(place)

    # Output

    def _next(self, out: bytearray) -> bytearray:
        following = self._buffers.take()
        following[:WINDOW] = memoryview(out)[-WINDOW:]
        return following

    def _give(self, out: bytearray, end: int) -> Iterator[tuple[memoryview, list[Cut]]]:
        """Pieces of which all cuts are known, this one behind them."""
        self._held.append(_Piece(out, end, self._raw - (end - WINDOW)))
        self._settle(wait=len(self._held) > _HELD)
        while self._held and self._found is None:
            piece = self._held.popleft()
            yield memoryview(piece.out)[WINDOW : piece.end], self._cuts(piece)

    def _cuts(self, piece: _Piece) -> list[Cut]:
        cuts: list[Cut] = []
        stop = piece.raw + piece.end - WINDOW
        while self._ahead and self._ahead[0].raw < stop:
            place = self._ahead.popleft()
            at = WINDOW + place.raw - piece.raw
            if piece.out[at - len(place.window) : at] != place.window:
                raise LayerFormatError("gzip: ISA-L and zlib-ng do not decode it alike")
            cuts.append(Cut(place.raw, place.bit))
        return cuts
