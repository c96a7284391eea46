import random
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.gzip_blocks import restart_bytes
from clip_runc.index.windows import ENOUGH, WINDOW, sparse_window, stored_window
from clip_runc.linux.zlib_ng import BlockInflater


def text(size, seed):
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(2, 12)) for _ in range(300)]
    return b" ".join(rng.choices(words, k=size // 7))[:size]


def blocks_of(data, level=6):
    """The raw deflate stream, and (bit, raw, window) of each block but the first."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 1)  # little memory: small blocks
    stream = packer.compress(data) + packer.flush()
    found = []
    place = (0, 0, b"")
    while True:
        inflater = BlockInflater(*place)
        try:
            if not inflater.seek(stream[place[0] // 8 :], 0, 0):
                return stream, found
            place = (inflater.bit, inflater.raw, inflater.window())
        finally:
            inflater.close()
        found.append(place)


def inflated(stream, bit, window, size):
    feed = stream[bit // 8 :]
    if bit % 8:
        feed = restart_bytes(bit % 8, feed[0]) + feed[1:]
    inflater = zlib.decompressobj(-15, zdict=window) if window else zlib.decompressobj(-15)
    return inflater.decompress(feed, size)


@given(size=st.integers(1, 200_000), seed=st.integers(0, 1000), level=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_what_a_window_keeps_is_enough_and_all_of_it_is_needed(size, seed, level):
    data = text(size, seed)
    stream, blocks = blocks_of(data, level)
    for bit, raw, window in blocks[:: max(1, len(blocks) // 4)]:
        assert window == data[max(0, raw - WINDOW) : raw]
        kept = sparse_window(window, bit % 8, stream[bit // 8 :])
        assert len(kept) in (0, len(window))
        assert inflated(stream, bit, kept or bytes(len(window)), size) == data[raw:]
        places = [at for at, byte in enumerate(kept) if byte]
        assert all(kept[at] == window[at] for at in places)
        for at in places[:: max(1, len(places) // 3)]:
            spoilt = bytearray(kept)
            spoilt[at] ^= 255
            assert inflated(stream, bit, bytes(spoilt), size) != data[raw:]
        packed = stored_window(window, bit % 8, stream[bit // 8 :])
        assert (zstandard.decompress(packed) if packed else b"") == kept


def test_a_stream_without_references_needs_no_window():
    data = random.Random(1).randbytes(60_000)
    stream, blocks = blocks_of(data)
    for bit, _, window in blocks:
        assert len(window) > 0
        assert stored_window(window, bit % 8, stream[bit // 8 :]) == b""
    assert stored_window(b"", 0, stream) == b""


def test_a_window_is_kept_whole_where_too_little_follows_to_say():
    data = text(200_000, 3)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    start = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
    stream = start + b"\0\0\0\xff\xff" * (ENOUGH // 5 + 1)  # empty blocks
    assert sparse_window(data[-WINDOW:], 0, stream[len(start) :]) == data[-WINDOW:]


def test_no_block_there():
    with pytest.raises(LayerFormatError, match="checkpoint"):
        sparse_window(bytes(WINDOW), 0, b"\xff" * 100)
