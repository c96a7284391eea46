"""ISA-L by its C interface: it inflates fastest, and its state says where some block began.

Python's binding of it does not show that, but exports the C names.  Here because of ctypes.
Sources: igzip_lib.h (``struct inflate_state``); igzip_inflate.c for what is in it when the input
ends inside a header.
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

from clip_runc.linux.addresses import address, check_bounds, writable
from clip_runc.linux.zlib_ng import WINDOW, InflateError

_SCRATCH = 256 << 10
_HEADER, _FINISHED = 1, 5  # isal_block_state: in a block's header, at the end
_GZIP = 1  # ISAL_GZIP: header and trailer are read and checked
_STEP = 4 << 10


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
def _load() -> ctypes.CDLL:
    from isal import igzip_lib

    return ctypes.CDLL(igzip_lib.__file__)


class FastInflater:
    """One gzip member after the other, from the start of each; checks their CRC-32 and size."""

    def __init__(self) -> None:
        self._inflate = _load().isal_inflate
        self._library = _load()
        self._state = _InflateState()
        self._saved, self._before, self._kept = _InflateState(), _InflateState(), _InflateState()
        self._step = _InflateState()
        self._scratch = bytearray(_SCRATCH)
        self._out = writable(self._scratch)
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
        check_bounds(data, start, stop, out, at, end)
        return self._run(
            self._state, address(data) + start, stop - start, writable(out) + at, end - at
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

    def last_block(self, data: bytes, most: int) -> Block | None:
        """A block that begins in ``data``, which followed ``remember``; the last one, if may be.

        Of ``most`` bytes after that only: ISA-L takes input for more than it gives out.

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
            if made is None or len(output) + made > most:
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
            taken, made = self._run(state, address(data) + at, end - at, self._out, _SCRATCH)
        except InflateError:
            return None
        return made if taken == end - at and made < _SCRATCH else None

    @staticmethod
    def _block(state: _InflateState, end: int, raw: int, made: int) -> tuple[int, int]:
        """(bit, raw) of the header of which ISA-L has a part, having taken ``end`` bytes."""
        return (end - state.tmp_in_size) * 8 - state.read_in_length, raw + made


def _copy(to: _InflateState, what: _InflateState) -> None:
    # by ctypes.memmove() the interpreter would change its thread each time
    memoryview(to).cast("B")[:] = memoryview(what).cast("B")
