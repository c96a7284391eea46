"""Walking over zstd frames without decoding them: where each ends, and how much it can give.

A frame can be entered only at its start, so layers made of many (zstd:chunked, the seekable
format) get chunks and others are streamed.  Splitting at block headers also bounds what comes out
of a step: a block gives at most 128 KiB, whatever its size.  Source: RFC 8878, 3.1.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import zstandard

from clip_runc.errors import LayerFormatError
from clip_runc.index.checkpoints import MAX_FRAME_RAW, Cut, raw_target

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"
"""The last three bytes of the magic number of a skippable frame; the first is 0x50 to 0x5f."""

PART, END, SKIP = 0, 1, 2
"""What ``FrameWalker.feed`` says of a piece: inside a frame, its last piece, to be left out."""

WINDOW_MAX = 1 << 27
"""Largest zstd window we allocate: 128 MiB, what ``zstd -d`` accepts without being told."""

FRAME_HEADER = 18
"""Bytes that the header of a frame takes at most."""

_LARGE_WINDOW = 1 << 26
_BLOCKS_A_PIECE = 32


def is_frame(head: bytes) -> bool:
    """Whether a blob that begins with these four bytes is zstd."""
    return head == MAGIC or (head[1:] == SKIPPABLE and head[0] & 0xF0 == 0x50)


class FrameWalker:
    """Splits a stream of frames into pieces that give at most 4 MiB each."""

    def __init__(self) -> None:
        self.between_frames = True
        self._skipping = False
        self._ended = False
        self._blocks = 0
        self._held = b""
        self._steps = self._walk()
        self._want = next(self._steps)

    def feed(self, data: memoryview) -> Iterator[tuple[memoryview, int]]:
        """The bytes of ``data`` in order, each piece with what it is; see ``PART``.

        Raises ``LayerFormatError`` where there is no zstd frame.
        """
        start = position = 0
        while position < len(data):
            step = min(abs(self._want), len(data) - position)
            self._advance(data[position : position + step])
            position += step
            if self._ended or self._blocks >= _BLOCKS_A_PIECE:
                yield data[start:position], self._kind()
                start, self._blocks, self._ended = position, 0, False
        if start < position:
            yield data[start:position], self._kind()

    def _kind(self) -> int:
        if self._skipping:
            return SKIP
        return END if self._ended else PART

    def _advance(self, piece: memoryview) -> None:
        if self._want < 0:
            self._want += len(piece)
        else:
            self._want -= len(piece)
            self._held += bytes(piece)
        if self._want == 0:
            held, self._held = self._held, b""
            self._want = self._steps.send(held)

    def _walk(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants to see (or, negative, to pass over)."""
        while True:
            magic = yield 1
            # a generator runs on until its next yield: what it sets here holds from here on
            self.between_frames = False
            self._skipping = magic[0] != MAGIC[0]
            magic += yield 3
            if not is_frame(magic):
                raise LayerFormatError("zstd: there is something between the frames")
            yield from self._skippable() if self._skipping else self._frame()
            self._ended = self.between_frames = True

    def _skippable(self) -> Generator[int, bytes, None]:
        size = int.from_bytes((yield 4), "little")
        if size:
            yield -size

    def _frame(self) -> Generator[int, bytes, None]:
        flags = (yield 1)[0]
        single, checksum = flags & 0x20, flags & 0x04
        size_bytes = (1 if single else 0, 2, 4, 8)[flags >> 6]
        header = size_bytes + (0, 1, 2, 4)[flags & 3] + (0 if single else 1)
        if header:
            yield -header
        last = 0
        while not last:
            block = int.from_bytes((yield 3), "little")
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            self._blocks += 1
            if kind == 1:  # one byte, repeated "size" times
                size = 1
            if size:
                yield -size
        if checksum:
            yield -4


def has_large_window(head: bytes) -> bool:
    """Whether a blob with this ``head`` (``FRAME_HEADER`` bytes) takes much memory to decode.

    The window of its first frame alone is looked at: those of one encoder are alike.
    """
    try:
        return bool(zstandard.get_frame_parameters(head).window_size > _LARGE_WINDOW)
    except zstandard.ZstdError:
        return False


def framed_pieces(
    blob: Iterable[bytes], target: int, max_raw: int = MAX_FRAME_RAW
) -> Generator[tuple[bytes, list[Cut]], None, int]:
    """Decode a blob of many frames: (bytes, cuts that lie in them), in order.

    A chunk is a group of whole frames with about ``target`` compressed or ``raw_target(target)``
    uncompressed bytes.  Returns the bit where the last frame ends.  Raises ``LayerFormatError``;
    also for a frame of more than ``max_raw`` bytes, for that cannot be entered where it is wanted.
    """
    state = _Framed(target, max_raw)
    for data in blob:
        yield from state.feed(memoryview(data))
    if not state.walker.between_frames:
        raise LayerFormatError("zstd: the stream is cut short")
    return state.end * 8


class _Framed:
    def __init__(self, target: int, max_raw: int) -> None:
        self.walker = FrameWalker()
        self.end = 0
        self._target, self._max_raw = target, max_raw
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX)
        self._frame: Any = None
        self._comp = self._raw = self._frame_raw = 0
        self._start: Cut | None = None

    def feed(self, data: memoryview) -> Iterator[tuple[bytes, list[Cut]]]:
        for piece, kind in self.walker.feed(data):
            if kind != SKIP:
                yield self._decode(piece)
            self._comp += len(piece)
            if kind == END:
                if not self._frame.eof:
                    raise LayerFormatError("zstd: a frame that does not end where it must")
                self._frame, self.end = None, self._comp

    def _decode(self, piece: memoryview) -> tuple[bytes, list[Cut]]:
        cuts = []
        if self._frame is None:
            self._frame = self._decompressor.decompressobj()
            self._frame_raw = 0
            if self._cut_here():
                self._start = Cut(self._raw, self._comp * 8)
                cuts.append(self._start)
        try:
            data: bytes = self._frame.decompress(piece)
        except zstandard.ZstdError as error:
            raise LayerFormatError(f"zstd: {error}") from None
        self._raw += len(data)
        self._frame_raw += len(data)
        if self._frame_raw > self._max_raw:
            raise LayerFormatError(f"zstd: a frame of more than {self._max_raw} bytes")
        return data, cuts

    def _cut_here(self) -> bool:
        if self._start is None:
            return True
        raw, compressed = self._raw - self._start.raw, self._comp - self._start.bit // 8
        return raw > 0 and (compressed >= self._target or raw >= raw_target(self._target))
