"""Where the chunks of a layer lie in its uncompressed stream.  Pure."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right

from clip_runc.errors import IndexFormatError
from clip_runc.index.chunk_hash import SIZE, hash_of
from clip_runc.index.model import BLOCK, Layer


class Geometry:
    """The tiling of ``[0, size)`` by chunks.

    ``digest`` (32 bytes) names it: boundaries and hashes, so two layers with one ``diff_id``
    and one geometry hold the same bytes in the same pieces, however they were compressed.
    """

    def __init__(self, layer: Layer) -> None:
        self.size = layer.raw_size
        self.starts = [chunk.raw_start for chunk in layer.chunks]
        self.ends = [chunk.raw_end for chunk in layer.chunks]
        self.hashes = [chunk.hash for chunk in layer.chunks]
        self._pads = [chunk.pad for chunk in layer.chunks]
        self._raw_hashes = not layer.hashes_compressed
        self._hash = layer.chunk_hash
        self._check(layer)
        self.digest = self._digest()

    @property
    def file_size(self) -> int:
        """Bytes of the data file: whole EROFS blocks, so that it can be a block device."""
        return -(-self.size // BLOCK) * BLOCK

    def span(self, offset: int, end: int) -> tuple[int, int]:
        """First and last chunk of ``[offset, end)``, which is not empty and inside the layer."""
        return bisect_right(self.starts, offset) - 1, bisect_left(self.starts, end) - 1

    def length(self, chunk: int) -> int:
        """Uncompressed bytes of ``chunk``."""
        return self.ends[chunk] - self.starts[chunk]

    def holds(self, chunk: int, data: bytes | memoryview) -> bool:
        """Whether ``data`` are the bytes of ``chunk``.

        Never, where only the hash of the compressed bytes is known: what was written before this
        boot is fetched again then.
        """
        pad = self._pads[chunk]
        if pad:
            data = memoryview(data)
            if bytes(data[-pad:]) != bytes(pad):
                return False
            data = data[:-pad]
        return self._raw_hashes and hash_of(self._hash, data) == self.hashes[chunk]

    def _check(self, layer: Layer) -> None:
        hexdigits = layer.diff_hex
        if len(hexdigits) != 64 or hexdigits.strip("0123456789abcdef"):
            raise IndexFormatError(f"layer with diff_id {layer.diff_id!r}: not a sha256 digest")
        expected = 0
        for number, chunk in enumerate(layer.chunks):
            if chunk.raw_start != expected or chunk.raw_end <= chunk.raw_start:
                raise IndexFormatError(
                    f"layer {layer.diff_id}: chunk {number} is [{chunk.raw_start}, "
                    f"{chunk.raw_end}), the one before ends at {expected}"
                )
            if len(chunk.hash) != SIZE:
                raise IndexFormatError(f"layer {layer.diff_id}: chunk {number} has no hash")
            if layer.codec != "stream" and not (
                0 <= chunk.comp_start < chunk.comp_end <= layer.comp_size
            ):
                raise IndexFormatError(
                    f"layer {layer.diff_id}: chunk {number} is outside its blob: "
                    f"[{chunk.comp_start}, {chunk.comp_end}) of {layer.comp_size}"
                )
            expected = chunk.raw_end
        if expected != layer.raw_size:
            raise IndexFormatError(
                f"layer {layer.diff_id}: chunks end at {expected}, the layer at {layer.raw_size}"
            )

    def _digest(self) -> bytes:
        state = hashlib.sha256(b"clip geometry 1\0")
        for end, digest in zip(self.ends, self.hashes, strict=True):
            state.update(end.to_bytes(8, "little") + digest)
        if any(self._pads):
            state.update(b"".join(pad.to_bytes(2, "little") for pad in self._pads))
        # or an index that names another hash for the same chunks would be taken for the same layer
        state.update(self._hash.encode())
        return state.digest()
