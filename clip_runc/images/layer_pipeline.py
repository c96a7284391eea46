"""Indexing one layer: from the blob in a registry to a ``LayerIndex``, in one pass.

Threads: one receives and hashes the blob (``spool``), one decodes, two hash and scan what was
decoded (``layer_scan``), two find where a gzip layer can be entered (``gzip_cuts``).
A layer that proves impossible to enter in the middle is decoded anew, as a stream, and fetched anew
if too much of it went by already: nothing of it lies on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from typing import Protocol, TypeVar

from clip_runc.config import LAYER_SIZE_LIMIT
from clip_runc.errors import DigestMismatch, IndexFormatError, LayerFormatError
from clip_runc.images.gzip_source import Buffers, gzip_pieces
from clip_runc.images.layer_scan import Buffer, LayerScan, LayerTooLarge, Piece
from clip_runc.images.media_types import compression_of, expected_compression
from clip_runc.images.spool import Spool
from clip_runc.index.checkpoints import Cut, Fixed
from clip_runc.index.chunk_hash import BLAKE3
from clip_runc.index.clip_layers import check_chunks
from clip_runc.index.inflate import stream_decoder
from clip_runc.index.layer_index import LayerIndex
from clip_runc.index.model import Chunk, Layer
from clip_runc.index.zstd_frames import FRAME_HEADER, framed_pieces, has_large_window

MIB = 1 << 20
_STREAM_STEP = 4 * MIB
_ZSTD_BEHIND = 24 * MIB
"""More than the compressed bytes that are read before a zstd frame proves too large."""

_LARGE_DECODER = threading.Lock()
"""Of layers whose decoders need that much memory one is decoded at a time."""

T = TypeVar("T")


class Blob(Protocol):
    """What we need of a layer's descriptor."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def media_type(self) -> str: ...


class Keep(Protocol):
    """Who wants the uncompressed bytes.  They can be trusted from ``done`` on, not earlier."""

    def write(self, diff_id: str, offset: int, data: Buffer) -> None:
        """Bytes of the layer, in order; from 0 again if the layer is decoded anew.

        ``data`` is used again after this returns.
        """

    def done(self, layer: Layer) -> None:
        """All bytes were written and are what ``layer`` says."""


class LayerRequest:
    """One layer to index, and the circumstances."""

    def __init__(
        self,
        blob: Blob,
        diff_id: str,
        *,
        checkpoint_mib: int,
        keep: Keep | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        size_limit: int = LAYER_SIZE_LIMIT,
    ) -> None:
        self.size_limit = size_limit
        self.blob = blob
        self.diff_id = diff_id
        self.checkpoint_mib = checkpoint_mib
        self.keep = keep
        self.progress = progress
        self.fetched = 0

    def received(self, count: int) -> None:
        """Report ``count`` bytes of the blob."""
        if self.progress is not None:
            self.progress(self.blob.digest, count, self.blob.size)

    def sink(self, offset: int, data: Buffer) -> None:
        """Pass decoded bytes on."""
        if self.keep is not None:
            self.keep.write(self.diff_id, offset, data)


class _NotSeekable(LayerFormatError):
    """A layer that may be whole but cannot be entered in the middle, as a warning says it."""


def index_layer(
    request: LayerRequest, fetch: Callable[[], Iterator[bytes]], warn: Callable[[str], None]
) -> LayerIndex:
    """Index the blob that ``fetch()`` brings, verified: digest, size, diff_id.

    ``fetch`` is called a second time for a layer that has to be read as a stream.
    Raises ``DigestMismatch``, ``LayerFormatError``, or what the iterator raises.
    """
    blob = request.blob
    try:
        result = _attempt(request, fetch(), warn, seekable=True)
    except _NotSeekable as reason:
        result = _attempt(request, fetch(), lambda text: None, seekable=False)
        warn(reason.message)
    if result.layer.diff_id != request.diff_id:
        raise DigestMismatch(
            f"layer {blob.digest}: its diff_id is {result.layer.diff_id}, "
            f"the image config says {request.diff_id}",
            "the image is broken; other runtimes refuse it too",
        )
    if request.keep is not None:
        request.keep.done(result.layer)
    return result


def _attempt(
    request: LayerRequest, pieces: Iterator[bytes], warn: Callable[[str], None], *, seekable: bool
) -> LayerIndex:
    digest = request.blob.digest
    with Spool(pieces, digest, request.blob.size, request.received) as spool:
        try:
            result = _index(request, spool, warn, seekable=seekable)
            spool.check()
        except _NotSeekable:
            raise
        except LayerTooLarge as error:  # waiting for the rest of a bomb would serve it
            raise LayerFormatError(f"layer {digest}: {error.message}", error.hint) from None
        except LayerFormatError as error:
            spool.check()  # damage on the way explains more than what it led to
            raise LayerFormatError(f"layer {digest}: {error.message}", error.hint) from None
        finally:
            request.fetched += spool.received
    return result


def _index(
    request: LayerRequest, spool: Spool, warn: Callable[[str], None], *, seekable: bool
) -> LayerIndex:
    compression = compression_of(spool.bytes_at(0, 4))
    _compare_media_type(request.blob, compression, warn)
    if compression == "none" or not request.blob.size:
        return _streamed(request, spool, "none")
    large = has_large_window(spool.bytes_at(0, FRAME_HEADER))
    with _LARGE_DECODER if large else nullcontext():
        if not seekable:
            return _streamed(request, spool, compression)
        return _compressed(request, spool, warn, compression)


def _compressed(
    request: LayerRequest, spool: Spool, warn: Callable[[str], None], compression: str
) -> LayerIndex:
    if compression == "zstd":
        spool.behind = _ZSTD_BEHIND
    try:
        return _seekable(request, spool, compression)
    except LayerTooLarge:
        raise
    except (LayerFormatError, IndexFormatError) as error:
        spool.check(wait=False)
        text = (
            f"layer {request.blob.digest} cannot be entered in the middle and will be read "
            f"from its start: {error.message}"
        )
    if not spool.rewind():
        raise _NotSeekable(text)
    result = _streamed(request, spool, compression)
    warn(text)
    return result


def _compare_media_type(blob: Blob, compression: str, warn: Callable[[str], None]) -> None:
    expected = expected_compression(blob.media_type)
    if expected != compression and blob.size:
        warn(
            f"layer {blob.digest} is called {blob.media_type} "
            f"but its compression is {compression!r}"
        )


def _seekable(request: LayerRequest, spool: Spool, compression: str) -> LayerIndex:
    buffers = Buffers()
    with LayerScan(request.sink, request.size_limit, buffers.give_back) as scan:
        windows: list[bytes] = []
        end = request.blob.size * 8
        if compression == "gzip":
            windows = _drain(gzip_pieces(spool, request.checkpoint_mib, buffers), scan)
        else:
            end = _drain(framed_pieces(spool.pieces(), request.checkpoint_mib * MIB), scan)
        scan.finish()
    chunks, frames = _chunks(scan.pieces, end, windows)
    result = _result(request, scan, (compression, compression), chunks, frames)
    check_chunks(result.layer, len(frames))
    return result


def _streamed(request: LayerRequest, spool: Spool, compression: str) -> LayerIndex:
    plain = compression == "none"
    cutter = Fixed(request.checkpoint_mib * MIB if plain else _STREAM_STEP, plain=plain)
    decoder = stream_decoder(compression)
    with LayerScan(request.sink, request.size_limit) as scan:
        position = 0
        for data in spool.pieces():
            for piece in decoder.pieces(data):
                scan.feed(piece, cutter.within(position, position + len(piece)))
                position += len(piece)
        if request.blob.size:
            decoder.finish()
        scan.finish()
    chunks, _ = _chunks(scan.pieces, position * 8 if plain else 0, [])
    codec = ("none", "none") if plain else ("stream", compression)
    return _result(request, scan, codec, chunks, b"")


def _drain(source: Generator[tuple[Buffer, list[Cut]], None, T], scan: LayerScan) -> T:
    """Feed all that ``source`` yields; its return value.  Its threads end here, however it ends."""
    with closing(source):
        while True:
            try:
                data, cuts = next(source)
            except StopIteration as stop:
                value: T = stop.value
                return value
            scan.feed(data, cuts)


def _chunks(
    pieces: Sequence[Piece], end: int, windows: Sequence[bytes]
) -> tuple[tuple[Chunk, ...], bytes]:
    """Chunks with both ends, and their windows one after the other; ``end`` is a bit."""
    chunks: list[Chunk] = []
    ends = [*[piece.cut.bit for piece in pieces], end][1:]
    place = 0
    for number, (piece, stop) in enumerate(zip(pieces, ends, strict=True)):
        length = len(windows[number]) if number < len(windows) else 0
        start, bit = divmod(piece.cut.bit, 8)
        chunks.append(
            Chunk(
                piece.cut.raw,
                piece.raw_end,
                start,
                -(-stop // 8),
                piece.hash,
                bit,
                (place, length) if length else (0, 0),
            )
        )
        place += length
    return tuple(chunks), b"".join(windows)


def _result(
    request: LayerRequest,
    scan: LayerScan,
    codec: tuple[str, str],
    chunks: tuple[Chunk, ...],
    windows: bytes,
) -> LayerIndex:
    blob = request.blob
    layer = Layer(
        digest=blob.digest,
        diff_id=scan.diff_id,
        media_type=blob.media_type,
        codec=codec[0],
        compression=codec[1],
        comp_size=blob.size,
        raw_size=scan.raw_size,
        chunks=chunks,
        chunk_hash=BLAKE3,
    )
    return LayerIndex(layer, tuple(scan.entries), windows)
