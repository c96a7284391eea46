"""Decoding a gzip layer with rapidgzip, which notes where decoding could start again.

One decoding thread and one size of its chunks, always: the restart points depend on both, and
with two cores the other one is needed for hashing.  A layer of 4.7 GB peaks at 230 MB of memory
with chunks of 1 MiB, at 310 MB with 2 MiB.  The only importer of rapidgzip.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Generator

import rapidgzip

from clip_runc.errors import LayerFormatError
from clip_runc.images.spool import Spool
from clip_runc.index.checkpoints import Cut, Cutter, windows

MIB = 1 << 20
_READ = MIB
_ASK_EVERY = 8

Pieces = Generator[tuple[memoryview, list[Cut]], None, list[bytes]]


def gzip_pieces(spool: Spool, checkpoint_mib: int) -> Pieces:
    """(bytes, the cuts that lie in them), in order; returns each chunk's window, as stored.

    Raises ``LayerFormatError`` if rapidgzip cannot read the blob, which does not mean that
    nothing can.
    """
    try:
        with rapidgzip.RapidgzipFile(spool.file(), parallelization=1, chunk_size=MIB) as file:
            return (yield from _decode(file, Cutter(checkpoint_mib * MIB)))
    except (RuntimeError, ValueError, IndexError, OSError, MemoryError) as error:
        # C++ exceptions, as Cython translates them
        raise LayerFormatError(f"gzip: {str(error)[:200]}") from None


def _decode(file: rapidgzip.RapidgzipFile, cutter: Cutter) -> Pieces:
    held: deque[memoryview] = deque()
    start = end = reads = 0
    while True:
        buffer = bytearray(_READ)
        count = file.readinto(buffer)
        if not count:
            break
        held.append(memoryview(buffer)[:count])
        end += count
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
