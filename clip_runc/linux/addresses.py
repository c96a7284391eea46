"""Addresses inside Python's objects, for C, which gets their lengths too."""

from __future__ import annotations

import ctypes


def address(data: bytes) -> int:
    """Where the bytes lie; the caller holds them."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def writable(data: bytearray) -> int:
    """Where the bytes lie; nobody may change their number."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def check_bounds(data: bytes, start: int, stop: int, out: bytearray, at: int, end: int) -> None:
    """``data[start:stop]`` and ``out[at:end]`` are what they seem; raises ``IndexError``."""
    if not (0 <= start <= stop <= len(data) and 0 <= at <= end <= len(out)):
        raise IndexError((start, stop, len(data), at, end, len(out)))
