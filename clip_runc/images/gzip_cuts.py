"""Where a gzip layer is cut: at the first deflate block behind a limit, and with which window.

zlib-ng, which knows where blocks begin, goes on from the last block that ISA-L can name before the
limit, and from the chunk's own start where it can name none.  In threads of its own: whoever
decodes need not wait.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from clip_runc.errors import LayerFormatError
from clip_runc.images.spool import Spool
from clip_runc.index.checkpoints import CEILING_RAW, Cut
from clip_runc.index.gzip_blocks import TRAILER, member_header
from clip_runc.index.windows import ENOUGH, WINDOW, stored_window
from clip_runc.linux.isa_l import FastInflater
from clip_runc.linux.threads import give_way
from clip_runc.linux.zlib_ng import BlockInflater, GzipInflater

_SEEK = 64 << 10
_HEADER = 200 << 10
"""As much as the header of a member may take."""

_FURTHER = 4 << 20
"""Compressed bytes that a chunk may be longer than it should: of what the decoder reads next, the
spool must not let go.  No compressor makes such a block."""

_BUFFERED = 1 << 10
"""Bits that zlib-ng may have taken and not looked at, and more."""

_WINDOWS_BEHIND = 8
"""Windows that may be in the making."""


class Place(NamedTuple):
    """A block that decoding can start from: its first uncompressed byte, its bit in the blob."""

    raw: int
    bit: int
    window: bytes


class Remembered(NamedTuple):
    """Where ISA-L's state was kept, and the bytes of the member before, at most 32 KiB."""

    position: int
    raw: int
    before: bytes


class Arrival(NamedTuple):
    """The limit of a chunk was reached: the chunk's start, and what is known of the way to here.

    ``position`` is how far in the blob ISA-L has come; ``member`` where the member begins that
    it is in, if it is in one: (position, raw).
    """

    start: Place
    limit: Cut
    position: int
    member: tuple[int, int] | None
    remembered: Remembered | None


class Cutter:
    """A context manager.  Finds one place at a time; its windows may take longer."""

    def __init__(self, spool: Spool, inflater: FastInflater | GzipInflater) -> None:
        """``inflater`` is asked for ``last_block`` alone."""
        self._spool = spool
        self._inflater = inflater
        self._windows: list[Future[bytes]] = []
        self._finding = ThreadPoolExecutor(1, "clip-cut")
        self._making = ThreadPoolExecutor(1, "clip-window", give_way)

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in (self._finding, self._making):
            pool.shutdown(cancel_futures=True)

    def find(self, arrival: Arrival) -> Future[Place | None]:
        """The first block at the limit or behind it; None where the stream has none."""
        return self._finding.submit(self._find, arrival)

    def windows(self) -> list[bytes]:
        """Of the places that were found, as stored, and of the first block's."""
        return [window.result() for window in self._windows]

    def keep_window(self, place: Place) -> None:
        """Make the window of a place."""
        if len(self._windows) >= _WINDOWS_BEHIND:
            self._windows[-_WINDOWS_BEHIND].result()
        byte, bit = divmod(place.bit, 8)
        data = self._spool.bytes_at(byte, ENOUGH) if place.window else b""
        if place.window and len(data) < ENOUGH:
            self._reach(byte + len(data))
        self._windows.append(self._making.submit(stored_window, place.window, bit, data))

    def first_block(self, position: int, raw: int) -> Place | None:
        """The first block of the member at ``position``; None where the blob ends, or zeros are."""
        head = self._spool.bytes_at(position, _HEADER)
        if position and (position >= self._spool.size or head[:1] == b"\0"):
            return None
        return Place(raw, (position + member_header(head)) * 8, b"")

    def _find(self, arrival: Arrival) -> Place | None:
        start, limit = arrival.start, arrival.limit
        place = self._known(arrival)
        while place is not None:
            if (place.bit >= limit.bit or place.raw >= limit.raw) and place.raw > start.raw:
                _refuse_long(place.bit, limit)
                self.keep_window(place)
                return place
            place = self._seek(place, start.raw, limit)
        return None

    def _seek(self, place: Place, start: int, limit: Cut) -> Place | None:
        """The place that is searched for, or the first block of the next member."""
        inflater = BlockInflater(place.bit, place.raw, place.window)
        try:
            position = place.bit // 8
            while data := self._spool.read_at(position, _SEEK):
                position += len(data)
                if inflater.seek(data, limit.bit, limit.raw, start):
                    return Place(inflater.raw, inflater.bit, inflater.window())
                if inflater.ended:
                    return self.first_block(inflater.bit // 8 + TRAILER, inflater.raw)
                if inflater.reached - start > CEILING_RAW:
                    raise LayerFormatError(f"gzip: a block of more than {CEILING_RAW} bytes")
                _refuse_long(position * 8 - _BUFFERED, limit)
        finally:
            inflater.close()
        self._reach(position)
        return None

    def _reach(self, position: int) -> None:
        """Nothing more is there to be read; raise where that is not the end of the blob."""
        if position < self._spool.size:
            raise LayerFormatError(f"gzip: the stream breaks off at byte {position}")

    def _known(self, arrival: Arrival) -> Place | None:
        """The last block before the limit of which we know."""
        start, limit, position, member, remembered = arrival
        if remembered is not None:
            data = self._spool.bytes_at(remembered.position, position - remembered.position)
            block = self._inflater.last_block(data, limit.raw - remembered.raw)
            if block is not None:
                bit, raw = remembered.position * 8 + block.bit, remembered.raw + block.raw
                if bit < limit.bit and raw < limit.raw:
                    return Place(raw, bit, (remembered.before + block.window)[-WINDOW:])
        if member is not None and member[0] * 8 > start.bit:
            return self.first_block(*member)
        return start


def _refuse_long(bit: int, limit: Cut) -> None:
    """Raise where the block behind the limit begins at ``bit`` or later and that is too far."""
    if bit > limit.bit + _FURTHER * 8:
        raise LayerFormatError(f"gzip: a block of more than {_FURTHER} bytes compressed")
