"""Decoding a gzip layer with rapidgzip, which notes where decoding could start again.

One decoding thread and one size of its chunks, always: the restart points depend on both, and
with two cores the other one is needed for hashing.  Larger chunks cost less time, up to 2 MiB.

rapidgzip holds some 25 chunks, uncompressed, which we never go back to: 600 MB where zeros are
compressed well.  Joining its threads makes it forget them, and nothing else: block offsets and
index stay.  But then it takes the size in the footer of a member that it was in for wrong: a
layer of many members (eStargz, bgzip) is decoded without forgetting.  The only importer of
rapidgzip.
"""

from __future__ import annotations

import io
import zlib
from collections import deque
from collections.abc import Generator

import rapidgzip

from clip_runc.errors import LayerFormatError
from clip_runc.images.spool import Spool
from clip_runc.index.checkpoints import Cut, Cutter, windows

MIB = 1 << 20
_CHUNK = 2 * MIB
_FORGET = 96 * MIB
_READ = MIB // 2
_ASK_EVERY = 8

Pieces = Generator[tuple[memoryview, list[Cut]], None, list[bytes]]


class Buffers:
    """Buffers to decode into, used again: fresh memory costs a page fault for every 4 KiB."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque()  # whose ends are atomic

    def take(self) -> bytearray:
        """One that nobody uses."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(_READ)

    def give_back(self, data: bytes | memoryview) -> None:
        """Say that a piece (of ``gzip_pieces``) was dealt with and may change."""
        if isinstance(data, memoryview) and isinstance(data.obj, bytearray):
            self._free.append(data.obj)


def gzip_pieces(spool: Spool, checkpoint_mib: int, buffers: Buffers) -> Pieces:
    """(bytes, the cuts that lie in them), in order; returns each chunk's window, as stored.

    The bytes lie in ``buffers``, to which whoever gets them may give them back.
    Raises ``LayerFormatError`` if rapidgzip cannot read the blob, which does not mean that
    nothing can.
    """
    try:
        forget = 0 if _many_members(spool.read_at(0, _READ)) else _FORGET
        with rapidgzip.RapidgzipFile(spool.file(), parallelization=1, chunk_size=_CHUNK) as file:
            return (yield from _decode(file, Cutter(checkpoint_mib * MIB), buffers, forget))
    except (RuntimeError, ValueError, IndexError, OSError, MemoryError) as error:
        # C++ exceptions, as Cython translates them
        raise LayerFormatError(f"gzip: {str(error)[:200]}") from None


def _many_members(head: bytes) -> bool:
    """Whether a member ends in the first bytes of the blob."""
    inflater = zlib.decompressobj(31)
    try:
        inflater.decompress(head, 64 * MIB)
    except zlib.error:
        return False  # rapidgzip will say what is wrong
    return inflater.eof and bool(inflater.unused_data)


def _decode(file: rapidgzip.RapidgzipFile, cutter: Cutter, buffers: Buffers, forget: int) -> Pieces:
    held: deque[memoryview] = deque()
    start = end = reads = forgotten = 0
    while True:
        buffer = buffers.take()
        count = file.readinto(buffer)
        if not count:
            break
        held.append(memoryview(buffer)[:count])
        end += count
        if forget and end - forgotten >= forget:
            file.join_threads()
            forgotten = end
        reads += 1
        if reads % _ASK_EVERY == 0:
            decided = cutter.choose(file.available_block_offsets().items())
            while held and start + len(held[0]) <= decided:
                piece = held.popleft()
                yield piece, cutter.take(start + len(piece))
                start += len(piece)
    cutter.choose(file.block_offsets().items(), total=end)
    for piece in held:
        yield piece, cutter.take(start + len(piece))
        start += len(piece)
    exported = io.BytesIO()
    file.export_index(exported, rapidgzip.IndexFormat.GZTOOL)
    return list(windows(exported.getvalue(), cutter.cuts))
