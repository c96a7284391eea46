"""From the compressed bytes of a chunk to its verified bytes; and whole streams, in order.

``inflate_chunk`` keeps no state, so threads may call it side by side (the inflaters release
the GIL).  Whatever the compressed bytes say, no more comes out than the index declares.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import zstandard

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.index.chunk_hash import hash_of
from clip_runc.index.gzip_blocks import TRAILER, member_header, restart_bytes
from clip_runc.index.model import Chunk, Layer


def _fastest() -> Any:
    """ISA-L inflates twice as fast as zlib; where there is no build of it, zlib will do."""
    try:
        from isal import isal_zlib
    except ImportError:  # pragma: no cover
        return zlib
    return isal_zlib


fastest: Any = _fastest()

_FEED = 1 << 16
"""Compressed bytes given to an inflater at once where members end: what follows one is copied."""

_SKIP, _END = 2, 1  # see zstd_frames, which is imported only where there is zstd
ZSTD_WINDOW_MAX = 1 << 27
"""Largest zstd window we allocate: 128 MiB, what ``zstd -d`` accepts without being told."""


def inflate_chunk(
    layer: Layer, chunk: Chunk, compressed: bytes | memoryview, window: bytes = b""
) -> bytes:
    """The ``raw_end - raw_start`` bytes of ``chunk``, checked against its hash, pad included.

    ``compressed`` is the blob's ``[comp_start, comp_end)``; ``window`` the chunk's decompressed
    dictionary.  Raises ``LayerFormatError`` for bytes that do not inflate to this many, and
    ``DigestMismatch`` for wrong ones.  Not for ``codec == "stream"``: see ``stream_decoder``.
    """
    size = chunk.raw_end - chunk.raw_start - chunk.pad
    wanted = chunk.skip + size
    where = f"layer {layer.digest}, chunk at byte {chunk.comp_start}"
    if len(compressed) != chunk.comp_end - chunk.comp_start:
        raise LayerFormatError(
            f"{where}: {len(compressed)} bytes instead of {chunk.comp_end - chunk.comp_start}"
        )
    if layer.hashes_compressed:
        _compare(where, compressed, layer.chunk_hash, chunk.hash)
    if layer.codec == "gzip":
        data = _inflate_gzip(where, chunk.bit, wanted, memoryview(compressed), window)
    elif layer.codec == "members":
        view = memoryview(compressed)
        data = _inflate_gzip(where, 0, wanted, view[member_header(view, 0) :], b"")
    elif layer.codec == "zstd":
        data = _inflate_zstd(where, wanted, compressed)
    elif layer.codec == "none":
        data = bytes(compressed)
    else:
        raise LayerFormatError(f"{where}: codec {layer.codec!r} cannot be entered at a chunk")
    if len(data) != wanted:
        raise LayerFormatError(f"{where}: {len(data)} bytes uncompressed instead of {wanted}")
    if chunk.skip:
        data = data[chunk.skip :]
    if not layer.hashes_compressed:
        _compare(where, data, layer.chunk_hash, chunk.hash)
    return data + bytes(chunk.pad) if chunk.pad else data


def _compare(where: str, data: bytes | memoryview, name: str, expected: bytes) -> None:
    if hash_of(name, data) != expected:
        raise DigestMismatch(
            f"{where}: the bytes do not match the index",
            "the registry or a proxy served damaged bytes, or the index is of another layer",
        )


def _inflate_gzip(where: str, bit: int, size: int, data: memoryview, window: bytes) -> bytes:
    """``size`` bytes (or fewer, where the input ends) from ``bit`` of ``data[0]`` on."""
    try:
        pieces, left = _inflate_members(fastest, bit, size, data, window)
    except fastest.error as error:
        if fastest is zlib:
            raise LayerFormatError(f"{where}: {error}") from None
        try:  # a stream that ISA-L refuses may yet be one that zlib reads
            pieces, left = _inflate_members(zlib, bit, size, data, window)
        except zlib.error as second:
            raise LayerFormatError(f"{where}: {second}") from None
    del left
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _inflate_members(
    library: Any, bit: int, size: int, data: memoryview, window: bytes
) -> tuple[list[bytes], int]:
    """Inflate; also says how many bytes are still missing.  A chunk may hold many members."""
    inflater = raw_inflater(library, window)
    pieces: list[bytes] = []
    left, position = size, 0
    feed: bytes | memoryview = b""
    # a chunk is most often of one member: then one call needs no pieces and no join of them
    most = len(data)
    if bit and data:
        feed, position = restart_bytes(bit, data[0]), 1
    while left and (feed or position < len(data)):
        if not feed:
            feed = data[position : position + most]
            position += len(feed)
        piece = inflater.decompress(feed, left)
        if piece:
            pieces.append(piece)
            left -= len(piece)
        feed = b""
        if inflater.eof:
            most = _FEED
            position += TRAILER - len(inflater.unused_data)
            if not left or position >= len(data):
                break
            position = member_header(data, position)
            inflater = raw_inflater(library, b"")
    return pieces, left


def raw_inflater(library: Any, window: bytes) -> Any:
    """An inflater of ``zlib`` or of ``isal_zlib`` for deflate without a header."""
    if window:
        return library.decompressobj(-15, zdict=window)
    return library.decompressobj(-15)


def _inflate_zstd(where: str, size: int, compressed: bytes | memoryview) -> bytes:
    """At most ``size`` bytes of the frames in ``compressed``; skippable frames give none."""
    decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
    try:
        with decoder.stream_reader(compressed, read_across_frames=True) as reader:
            return reader.read(size)
    except zstandard.ZstdError as error:
        raise LayerFormatError(f"{where}: {error}") from None


class StreamDecoder:
    """Uncompresses a blob that is fed from its start, in pieces of any size."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._total = 0

    def pieces(self, data: bytes | memoryview) -> Iterator[bytes]:
        """What ``data`` adds, in pieces that stay bounded (64 MiB) whatever it is."""
        for piece in self._decode(memoryview(data)):
            self._total += len(piece)
            if self._limit is not None and self._total > self._limit:
                raise LayerFormatError(f"a layer holds more than the {self._limit} bytes declared")
            if piece:
                yield piece

    def feed(self, data: bytes | memoryview) -> bytes:
        """The same as one ``bytes``: for callers that trust the data or set a limit."""
        return b"".join(self.pieces(data))

    def finish(self) -> None:
        """Say that the blob ends here; raises ``LayerFormatError`` if it must not."""

    def _decode(self, data: memoryview) -> Iterator[bytes]:
        raise NotImplementedError


def stream_decoder(compression: str, limit: int | None = None) -> StreamDecoder:
    """A decoder for ``"gzip"``, ``"zstd"`` or ``"none"``.

    Bytes that do not uncompress, or that come to more than ``limit``, raise
    ``LayerFormatError``.
    """
    decoders: dict[str, type[StreamDecoder]] = {
        "gzip": _GzipStream,
        "zstd": _ZstdStream,
        "none": _PlainStream,
    }
    if compression not in decoders:
        raise LayerFormatError(f"compression {compression!r} is not one that we read")
    return decoders[compression](limit)


class _PlainStream(StreamDecoder):
    def _decode(self, data: memoryview) -> Iterator[bytes]:
        yield bytes(data)

    def finish(self) -> None:
        """An uncompressed stream may end anywhere: only its digest can tell."""


class _GzipStream(StreamDecoder):
    """gzip members, one after the other; zeros may follow the last one, as gzip(1) allows."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self._inflater: Any = fastest.decompressobj(31)
        self._members = 0
        self._started = False
        self._padding = False

    def _decode(self, data: memoryview) -> Iterator[bytes]:
        position = 0
        while position < len(data):
            feed = data[position : position + _FEED]
            position += len(feed)
            if not self._started and self._skip_padding(feed):
                continue
            self._started = True
            try:
                yield self._inflater.decompress(feed)
            except fastest.error as error:
                raise LayerFormatError(f"gzip: {error}") from None
            if self._inflater.eof:
                position -= len(self._inflater.unused_data)
                self._inflater = fastest.decompressobj(31)
                self._members += 1
                self._started = False

    def _skip_padding(self, feed: memoryview) -> bool:
        if self._members and feed[0] == 0:
            self._padding = True
        if self._padding and any(feed):
            raise LayerFormatError("gzip: there is something behind the end of the stream")
        return self._padding

    def finish(self) -> None:
        if self._started or not self._members:
            raise LayerFormatError("gzip: the stream is cut short")


class _ZstdStream(StreamDecoder):
    """zstd frames, skippable ones left out, one after the other."""

    def __init__(self, limit: int | None) -> None:
        from clip_runc.index.zstd_frames import FrameWalker

        super().__init__(limit)
        self._error: Any = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX)
        self._walker = FrameWalker()
        self._frame: Any = None
        self._frames = 0

    def _decode(self, data: memoryview) -> Iterator[bytes]:
        for piece, kind in self._walker.feed(data):
            if kind == _SKIP:
                continue
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
                self._frames += 1
            try:
                yield self._frame.decompress(piece)
            except self._error as error:
                raise LayerFormatError(f"zstd: {error}") from None
            if kind == _END:
                self._frame = None

    def finish(self) -> None:
        if not self._walker.between_frames or not self._frames:
            raise LayerFormatError("zstd: the stream is cut short")
