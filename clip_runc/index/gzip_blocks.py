"""Entering a deflate stream at any bit, and stepping from one gzip member to the next.

zlib has ``inflatePrime`` for the first; Python does not expose it, nor does ISA-L have it.  So a
chunk that starts ``bit`` bits into a byte is given a prefix of *empty* deflate blocks that is
``bit`` bits long modulo 8; the rest of the shared byte follows it.  No network, no I/O.
Source: RFC 1951 (deflate), RFC 1952 (gzip).
"""

from __future__ import annotations

from clip_runc.errors import LayerFormatError

TRAILER = 8
"""Bytes after a member's deflate stream: CRC-32 and size (RFC 1952, 2.3.1)."""

_FIXED = (10, 0b010)
"""An empty block with the fixed code, in bits: not final, type 1, end of block (7 zeros)."""

_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0


class _Bits:
    """Bits in the order of RFC 1951, 3.1.1: the first is the lowest of the first byte."""

    def __init__(self) -> None:
        self.value = 0
        self.length = 0

    def add(self, value: int, length: int) -> None:
        self.value |= value << self.length
        self.length += length


def _dynamic_empty_block() -> tuple[int, int]:
    """An empty block with a dynamic code, 91 bits long: the odd residues need an odd block.

    The literal code has two symbols of one bit, 0 and 256 (a complete code: some inflaters
    refuse others); the distance code has one symbol.
    """
    bits = _Bits()
    for value, length in ((0, 1), (2, 2), (0, 5), (0, 5), (14, 4)):
        bits.add(value, length)
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    for symbol in order:  # lengths of the code length code: symbol 1 is "0", symbol 18 is "1"
        bits.add(1 if symbol in (1, 18) else 0, 3)
    bits.add(0, 1)  # literal 0 has length 1
    for run in (138, 117):  # literals 1 to 255 have none
        bits.add(1, 1)
        bits.add(run - 11, 7)
    bits.add(0, 1)  # end of block has length 1
    bits.add(0, 1)  # distance 0 has length 1
    bits.add(1, 1)  # end of block
    return bits.length, bits.value


def _prefix(bit: int) -> tuple[bytes, int]:
    bits = _Bits()
    if bit % 2:
        length, value = _dynamic_empty_block()
        bits.add(value, length)
    while bits.length % 8 != bit:
        bits.add(_FIXED[1], _FIXED[0])
    whole = bits.length // 8
    return (bits.value & ((1 << (8 * whole)) - 1)).to_bytes(whole, "little"), bits.value >> (
        8 * whole
    )


_PREFIXES = tuple(_prefix(bit) for bit in range(8))


def restart_bytes(bit: int, first: int) -> bytes:
    """What to inflate instead of the byte ``first``, whose lowest ``bit`` bits are not ours."""
    whole, rest = _PREFIXES[bit]
    return whole + bytes(((first >> bit << bit) | rest,))


def member_header(data: bytes | memoryview, start: int = 0) -> int:
    """The offset in ``data`` of the deflate stream of the member whose header is at ``start``.

    Raises ``LayerFormatError`` where there is no gzip header, or only a part of one.
    """
    if bytes(data[start : start + 3]) != b"\x1f\x8b\x08" or start + 10 > len(data):
        raise LayerFormatError(f"no gzip header at byte {start} of a chunk")
    flags = data[start + 3]
    if flags & _RESERVED:
        raise LayerFormatError(f"gzip header with unknown flags 0x{flags:02x}")
    position = start + 10
    if flags & _FEXTRA:
        position += 2 + int.from_bytes(data[position : position + 2], "little")
    for flag in (_FNAME, _FCOMMENT):
        if flags & flag:
            position = _after_nul(data, position)
    position += 2 if flags & _FHCRC else 0
    if position > len(data):
        raise LayerFormatError(f"a gzip header at byte {start} of a chunk is cut short")
    return position


def _after_nul(data: bytes | memoryview, start: int) -> int:
    end = bytes(data[start : start + 65536]).find(b"\0")
    if end < 0:
        raise LayerFormatError("a gzip header holds a name that does not end")
    return start + end + 1
