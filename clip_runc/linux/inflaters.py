"""Two inflaters by their C interfaces, for what Python's bindings of them do not show.

``FastInflater``: ISA-L, which inflates fastest of all and can say, after the fact, where some block
began.  ``BlockInflater``: zlib-ng, which stops at every block and knows the bit it stopped at.
Both libraries lie in extension modules of PyPI (``isal``, ``zlib_ng``) that export their C names.
Here because of ctypes.  C gets addresses inside objects that the caller holds, with their lengths.

Sources: zlib-ng.h (``zng_stream``; ``inflate`` as zlib.h describes it), igzip_lib.h of ISA-L
(``struct inflate_state``).
"""

from __future__ import annotations

import ctypes
import functools
import zlib
from typing import NamedTuple

WINDOW = 1 << 15
_Z_BLOCK, _Z_STREAM_END, _Z_NEED_DICT, _Z_BUF_ERROR = 5, 1, 2, -5
_RAW, _GZIP_ONLY = -15, 31  # window bits
_LAST, _BOUNDARY, _UNUSED_BITS = 64, 128, 63  # in data_type
_SCRATCH = 256 << 10
_SHORT = 100

_HEADER, _FINISHED = 1, 5  # isal_block_state: in a block's header, at the end
_GZIP = 1  # ISAL_GZIP: header and trailer are read and checked
_STEP = 4 << 10


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


class _InflateState(ctypes.Structure):
    _fields_ = (
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("next_in", ctypes.c_void_p),
        ("read_in", ctypes.c_uint64),
        ("avail_in", ctypes.c_uint32),
        ("read_in_length", ctypes.c_int32),
        # inflate_huff_code_large, inflate_huff_code_small
        ("codes", ctypes.c_char * (4 * 4096 + 2 * 1264 + 2 * 1024 + 2 * 80)),
        ("block_state", ctypes.c_int),
        ("dict_length", ctypes.c_uint32),
        ("bfinal", ctypes.c_uint32),
        ("crc_flag", ctypes.c_uint32),
        ("crc", ctypes.c_uint32),
        ("hist_bits", ctypes.c_uint32),
        ("count", ctypes.c_int32),
        ("write_overflow_lits", ctypes.c_int32),
        ("write_overflow_len", ctypes.c_int32),
        ("copy_overflow_length", ctypes.c_int32),
        ("copy_overflow_distance", ctypes.c_int32),
        ("wrapper_flag", ctypes.c_int16),
        ("tmp_in_size", ctypes.c_int16),
        ("tmp_out_valid", ctypes.c_int32),
        ("tmp_out_processed", ctypes.c_int32),
        ("buffers", ctypes.c_char * (328 + 2 * WINDOW + 288)),
        ("more", ctypes.c_char * (8 << 10)),  # should another version have a longer one
    )

    def codes_now(self) -> bytes:
        """The tables of the Huffman codes of the block that is being decoded."""
        field = _InflateState.codes
        return ctypes.string_at(ctypes.addressof(self) + field.offset, field.size)


class Block(NamedTuple):
    """A block begins at a bit of some data, ``raw`` bytes after what it was decoded to began.

    ``window``: the last of these bytes.
    """

    bit: int
    raw: int
    window: bytes


@functools.cache
def _zlib_ng() -> ctypes.CDLL:
    from zlib_ng import zlib_ng

    library = ctypes.CDLL(zlib_ng.__file__)
    library.zlibng_version.restype = ctypes.c_char_p
    return library


@functools.cache
def _isal() -> ctypes.CDLL:
    from isal import igzip_lib

    return ctypes.CDLL(igzip_lib.__file__)


def gzip_inflater() -> FastInflater | GzipInflater:
    """The faster one, if its library is as we know it.

    The first call loads the libraries, which a process without privileges may be unable to.
    """
    return FastInflater() if _isal_is_known() else GzipInflater()


@functools.cache
def _isal_is_known() -> bool:
    """Whether there is an ISA-L, and its structure has its members where we look for them."""
    words = b" ".join(b"%d" % (number * number) for number in range(4_000))
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP_ONLY, 4)  # blocks of 1024 symbols
    blob = packer.compress(words) + packer.flush()
    half = len(blob) // 2
    exact = BlockInflater(8 * 10, 0, b"")
    try:
        fast = FastInflater()
        out = bytearray(len(words) + 1)
        _, made = fast.inflate(blob, 0, half, out, 0, len(out))
        fast.remember()
        block = fast.last_block(blob[half:-_SHORT])
        fast.inflate(blob, half, len(blob), out, made, len(out))
        return (
            block is not None
            and exact.seek(blob[10:], half * 8 + block.bit, 1 << 62)
            and (exact.bit, exact.raw) == (half * 8 + block.bit, made + block.raw)
            and fast.finished
            and fast.excess == 0
            and out[:-1] == words
        )
    except (ImportError, OSError, AttributeError, InflateError):
        return False
    finally:
        exact.close()


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _writable(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def _check_bounds(data: bytes, start: int, stop: int, out: bytearray, at: int, end: int) -> None:
    if not (0 <= start <= stop <= len(data) and 0 <= at <= end <= len(out)):
        raise IndexError((start, stop, len(data), at, end, len(out)))


class _ZlibNg:
    """A ``zng_stream``, freed at the end."""

    def __init__(self, bits: int) -> None:
        self._open = False
        self._library = _zlib_ng()
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
        stream.next_in = _address(data) + start
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
        _check_bounds(data, start, stop, out, at, end)
        stream = self._stream
        stream.next_in, stream.avail_in = _address(data) + start, stop - start
        stream.next_out, stream.avail_out = _writable(out) + at, end - at
        status = self._library.zng_inflate(self._reference, 0)
        if status != _Z_BUF_ERROR:  # there was nothing to be done
            self.finished = self._check(status) == _Z_STREAM_END
        return stop - start - stream.avail_in, end - at - stream.avail_out

    def remember(self) -> None:
        """Nothing."""

    def last_block(self, data: bytes) -> Block | None:
        """None."""


class FastInflater:
    """One gzip member after the other, from the start of each; checks their CRC-32 and size."""

    def __init__(self) -> None:
        self._inflate = _isal().isal_inflate
        self._library = _isal()
        self._state = _InflateState()
        self._saved, self._before, self._kept = _InflateState(), _InflateState(), _InflateState()
        self._step = _InflateState()
        self._scratch = bytearray(_SCRATCH)
        self._out = _writable(self._scratch)
        self.restart()

    def restart(self) -> None:
        """A member begins."""
        self._library.isal_inflate_init(ctypes.byref(self._state))
        self._state.crc_flag = _GZIP

    @property
    def finished(self) -> bool:
        """Whether the member's last byte was taken; see ``excess``."""
        return bool(self._state.block_state == _FINISHED)

    @property
    def excess(self) -> int:
        """Bytes behind the member's end that were taken nevertheless."""
        return int(self._state.read_in_length) // 8

    def inflate(
        self, data: bytes, start: int, stop: int, out: bytearray, at: int, end: int
    ) -> tuple[int, int]:
        """From ``data[start:stop]`` to ``out[at:end]``: bytes taken, bytes given.

        Raises ``InflateError``.
        """
        _check_bounds(data, start, stop, out, at, end)
        return self._run(
            self._state, _address(data) + start, stop - start, _writable(out) + at, end - at
        )

    def _run(
        self, state: _InflateState, source: int, length: int, out: int, room: int
    ) -> tuple[int, int]:
        state.next_in, state.avail_in = source, length
        state.next_out, state.avail_out = out, room
        status = self._inflate(ctypes.byref(state))
        if status < 0:
            raise InflateError(f"ISA-L: status {status}")
        return length - state.avail_in, room - state.avail_out

    def remember(self) -> None:
        """Keep the state for ``last_block``."""
        _copy(self._saved, self._state)

    def last_block(self, data: bytes) -> Block | None:
        """A block that begins in ``data``, which followed ``remember``; the last one, if may be.

        None where none is found.  ``data`` is decoded again in small steps.  A block that began in
        one of them brought other codes, and a part of the step that ends inside its header leaves
        ISA-L waiting for the rest, with the place where the header began.
        """
        now, before = self._step, self._before
        _copy(now, self._saved)
        output, found, changed = bytearray(), None, None
        for at in range(0, len(data), _STEP):
            end = min(at + _STEP, len(data))
            _copy(before, now)
            codes = now.codes_now()
            made = self._again(now, data, at, end)
            if made is None:
                break
            if now.block_state == _HEADER:
                found, changed = self._block(now, end, len(output), made), None
            elif now.codes_now() != codes:
                changed = (at, end, len(output))
                _copy(self._kept, before)
            output += memoryview(self._scratch)[:made]
        if changed is not None:
            found = self._halve(data, *changed) or found
        if found is None or found[0] < 0:
            return None
        return Block(found[0], found[1], bytes(output[max(0, found[1] - WINDOW) : found[1]]))

    def _halve(self, data: bytes, at: int, end: int, raw: int) -> tuple[int, int] | None:
        codes = self._kept.codes_now()
        low, high = at, end
        while high - low > 1:
            middle = (low + high) // 2
            _copy(self._step, self._kept)
            made = self._again(self._step, data, at, middle)
            if made is None:
                return None
            if self._step.block_state == _HEADER:
                return self._block(self._step, middle, raw, made)
            if self._step.codes_now() == codes:
                low = middle
            else:
                high = middle
        return None

    def _again(self, state: _InflateState, data: bytes, at: int, end: int) -> int | None:
        """Inflate ``data[at:end]`` to the scratch buffer; None where it does not fit or is ill."""
        try:
            taken, made = self._run(state, _address(data) + at, end - at, self._out, _SCRATCH)
        except InflateError:
            return None
        return made if taken == end - at and made < _SCRATCH else None

    @staticmethod
    def _block(state: _InflateState, end: int, raw: int, made: int) -> tuple[int, int]:
        """(bit, raw) of the header of which ISA-L has a part, having taken ``end`` bytes."""
        return (end - state.tmp_in_size) * 8 - state.read_in_length, raw + made


def _copy(to: _InflateState, what: _InflateState) -> None:
    ctypes.memmove(ctypes.byref(to), ctypes.byref(what), ctypes.sizeof(_InflateState))
