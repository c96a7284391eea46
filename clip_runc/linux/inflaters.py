"""Which library inflates gzip here: ISA-L where it is as we know it, else zlib-ng."""

from __future__ import annotations

import functools
import zlib

from clip_runc.linux.isa_l import FastInflater
from clip_runc.linux.zlib_ng import BlockInflater, GzipInflater, InflateError

_SHORT = 100


def gzip_inflater() -> FastInflater | GzipInflater:
    """The faster one, if its library is as we know it.

    The first call loads the libraries, which a process without privileges may be unable to.
    """
    return FastInflater() if _isal_is_known() else GzipInflater()


@functools.cache
def _isal_is_known() -> bool:
    """Whether there is an ISA-L, and its structure has its members where we look for them."""
    words = b" ".join(b"%d" % (number * number) for number in range(4_000))
    packer = zlib.compressobj(6, zlib.DEFLATED, 31, 4)  # blocks of 1024 symbols
    blob = packer.compress(words) + packer.flush()
    half = len(blob) // 2
    exact = BlockInflater(8 * 10, 0, b"")
    try:
        fast = FastInflater()
        out = bytearray(len(words) + 1)
        _, made = fast.inflate(blob, 0, half, out, 0, len(out))
        fast.remember()
        block = fast.last_block(blob[half:-_SHORT], len(out))
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
