"""zlib-ng by its C interface: it stops at every deflate block and knows the bit that it stopped at.

Python's binding of it does not show that, but exports the C names.  Here because of ctypes.
Source: zlib-ng.h (``zng_stream``); zlib.h for what ``inflate`` does with Z_BLOCK.
"""

from __future__ import annotations

import ctypes
import functools

from clip_runc.linux.addresses import address, check_bounds, writable

WINDOW = 1 << 15
_Z_BLOCK, _Z_STREAM_END, _Z_NEED_DICT, _Z_BUF_ERROR = 5, 1, 2, -5
_RAW, _GZIP_ONLY = -15, 31  # window bits
_LAST, _BOUNDARY, _UNUSED_BITS = 64, 128, 63  # in data_type
_SCRATCH = 256 << 10


class InflateError(Exception):
    """Compressed bytes that are none."""


class _ZStream(ctypes.Structure):
    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_size_t),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_uint32),
        ("reserved", ctypes.c_ulong),
    )


@functools.cache
def _load() -> ctypes.CDLL:
    from zlib_ng import zlib_ng as module

    library = ctypes.CDLL(module.__file__)
    library.zlibng_version.restype = ctypes.c_char_p
    return library


class _ZlibNg:
    """A ``zng_stream``, freed at the end."""

    def __init__(self, bits: int) -> None:
        self._open = False
        self._library = _load()
        self._stream = _ZStream()
        self._reference = ctypes.byref(self._stream)
        size = ctypes.c_int32(ctypes.sizeof(self._stream))
        version = self._library.zlibng_version()
        self._check(self._library.zng_inflateInit2_(self._reference, bits, version, size))
        self._open = True

    def close(self) -> None:
        """Free what C holds."""
        if self._open:
            self._open = False
            self._library.zng_inflateEnd(self._reference)

    __del__ = close

    def _check(self, status: int) -> int:
        if status < 0 or status == _Z_NEED_DICT:
            message = self._stream.msg
            raise InflateError(message.decode() if message else f"zlib-ng: status {status}")
        return status


class BlockInflater(_ZlibNg):
    """A deflate stream from a bit and a window on; ``seek`` goes from block to block.

    ``bit`` and ``raw`` are where the last block that was found begins: the bit of the blob and the
    uncompressed byte.
    """

    def __init__(self, bit: int, raw: int, window: bytes) -> None:
        self.bit, self.raw = bit, raw
        self.ended = False
        self._base = bit // 8
        self._raw_base = raw
        self._scratch = ctypes.create_string_buffer(_SCRATCH)
        self._skip = bit % 8
        super().__init__(_RAW)
        if window:
            kept = window[-WINDOW:]
            self._check(
                self._library.zng_inflateSetDictionary(
                    self._reference, kept, ctypes.c_uint32(len(kept))
                )
            )

    def seek(self, data: bytes, bit: int, raw: int, after: int = -1) -> bool:
        """Take the next bytes, until a block begins at or behind ``bit`` or ``raw``.

        One that begins at ``after`` or before it does not count.  False where there is none in
        ``data``, or ``ended``: then ``bit`` is the byte behind the stream.  Raises
        ``InflateError``.
        """
        stream, inflate = self._stream, self._library.zng_inflate
        start = 0
        if self._skip and data:
            value = ctypes.c_int32(data[0] >> self._skip)
            count = ctypes.c_int32(8 - self._skip)
            self._check(self._library.zng_inflatePrime(self._reference, count, value))
            self._skip, start = 0, 1
            self._base += 1
        stream.next_in = address(data) + start
        stream.avail_in = len(data) - start
        while stream.avail_in:
            stream.next_out = ctypes.addressof(self._scratch)
            stream.avail_out = _SCRATCH
            status = self._check(inflate(self._reference, _Z_BLOCK))
            if status == _Z_STREAM_END:
                self.ended = True
                self.bit = (self._base + stream.total_in) * 8
                self.raw = self._raw_base + stream.total_out
                return False
            kind = stream.data_type
            if kind & _BOUNDARY and not kind & _LAST:
                self.bit = (self._base + stream.total_in) * 8 - (kind & _UNUSED_BITS)
                self.raw = self._raw_base + stream.total_out
                if (self.bit >= bit or self.raw >= raw) and self.raw > after:
                    return True
        return False

    def window(self) -> bytes:
        """The bytes before the block that was found, at most 32 KiB."""
        length = ctypes.c_uint32(0)
        buffer = ctypes.create_string_buffer(WINDOW)
        self._check(
            self._library.zng_inflateGetDictionary(self._reference, buffer, ctypes.byref(length))
        )
        return buffer.raw[: length.value]

    @property
    def reached(self) -> int:
        """The uncompressed byte up to which the stream was decoded."""
        return self._raw_base + int(self._stream.total_out)


class GzipInflater(_ZlibNg):
    """As ``FastInflater``, for where there is no ISA-L, or another one than we know."""

    excess = 0

    def __init__(self) -> None:
        self.finished = False
        super().__init__(_GZIP_ONLY)

    def restart(self) -> None:
        """A member begins."""
        self.finished = False
        self._check(self._library.zng_inflateReset(self._reference))

    def inflate(
        self, data: bytes, start: int, stop: int, out: bytearray, at: int, end: int
    ) -> tuple[int, int]:
        """From ``data[start:stop]`` to ``out[at:end]``: bytes taken, bytes given."""
        check_bounds(data, start, stop, out, at, end)
        stream = self._stream
        stream.next_in, stream.avail_in = address(data) + start, stop - start
        stream.next_out, stream.avail_out = writable(out) + at, end - at
        status = self._library.zng_inflate(self._reference, 0)
        if status != _Z_BUF_ERROR:  # there was nothing to be done
            self.finished = self._check(status) == _Z_STREAM_END
        return stop - start - stream.avail_in, end - at - stream.avail_out

    def remember(self) -> None:
        """Nothing."""

    def last_block(self, data: bytes, most: int) -> None:
        """None."""
