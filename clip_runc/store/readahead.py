"""Which chunks to fetch before they are asked for.  Pure; the caller locks.

A layer is read by several readers at once, each somewhere else, so several *streams* are
followed, by bytes and not by chunks: the small files that a program opens one after the other
lie in neighbouring chunks too, and to fetch the next ones for their sake made half of what
the start of a program fetched useless.  A read near the end of an earlier one continues its
stream; a stream that came far enough is read ahead, the further the longer it is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

STREAMS = 16
"""Streams followed at once in a layer; the one that was quiet longest makes room."""

NEAR = 1 << 20
"""Bytes (either way) between a read and the end of the stream that it continues: the kernel's
own read-ahead, whose pieces arrive in any order, or a program that skips a little."""

PROOF = 1 << 20
"""Bytes that a stream must have been read for before anything is fetched ahead of it."""

FACTOR = 2
"""Bytes fetched ahead for each byte of the stream that was read.

``import torch``, simulated on the reads of such a start (354 MB are touched): with 0.5, 1, 2
times, 4–12, 17–23, 31–44 MB of chunks were fetched in vain and 132, 126, 121 reads had to wait.
The rule before this one, by neighbouring chunks, fetched 170 MB in vain, and 183 waited.
"""

BOUND = 16 << 20
"""Compressed bytes that are fetched ahead of a reader at most.

Reading in sequence over a link of 115 MB/s and 100 ms (chunks of 2 MiB compressed, four a
request, six threads, a simulated registry): 4 MiB gave 88 MB/s uncompressed, 8 123, 16 141,
32 137; over 500 MB/s and 1 ms 344, 273, 377, 363.  More only costs memory and bytes that
nobody reads.
"""


class _Stream:
    """A reader that came to byte ``at`` after ``read`` bytes; chunks below ``asked`` are his."""

    __slots__ = ("asked", "at", "read")

    def __init__(self, at: int, read: int) -> None:
        self.at = at
        self.read = read
        self.asked = 0


class ReadAhead:
    """The streams of a layer whose chunks begin at ``starts``, at most ``bound`` chunks ahead."""

    def __init__(self, starts: Sequence[int], bound: int) -> None:
        self._starts = starts
        self._bound = bound
        self._streams: list[_Stream] = []

    def touch(self, offset: int, end: int) -> range:
        """``[offset, end)`` is read now: the chunks to ask for on this reader's behalf."""
        stream = self._follow(offset, end)
        if stream.read < PROOF:
            return range(0)
        here = self._chunk(stream.at - 1)
        last = min(self._chunk(stream.at - 1 + FACTOR * stream.read), here + self._bound)
        ahead = range(max(here + 1, stream.asked), last + 1)
        stream.asked = max(stream.asked, ahead.stop)
        return ahead

    def _chunk(self, byte: int) -> int:
        return bisect_right(self._starts, byte) - 1

    def _follow(self, offset: int, end: int) -> _Stream:
        streams = self._streams
        for place in range(len(streams) - 1, -1, -1):
            stream = streams[place]
            if -NEAR <= offset - stream.at <= NEAR:
                if place != len(streams) - 1:
                    streams.append(streams.pop(place))
                stream.read += max(0, min(end - offset, end - stream.at))
                stream.at = max(stream.at, end)
                return stream
        streams.append(_Stream(end, end - offset))
        if len(streams) > STREAMS:
            del streams[0]
        return streams[-1]


def bound_of(compressed: int, count: int) -> int:
    """How many chunks ``BOUND`` is in a layer of ``count`` chunks; at least two."""
    return max(2, BOUND * count // max(1, compressed))
