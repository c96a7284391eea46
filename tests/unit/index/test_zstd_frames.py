import hashlib
import os
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.index.zstd_frames import (
    FRAME_HEADER,
    SKIP,
    FrameWalker,
    framed_pieces,
    has_large_window,
    is_frame,
)


def skippable(payload: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(payload).to_bytes(4, "little") + payload


def frame(data: bytes, **options) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


FRAME = st.builds(
    frame,
    st.binary(max_size=3000) | st.integers(0, 400_000).map(bytes),
    level=st.sampled_from([1, 3, 19]),
    write_checksum=st.booleans(),
    write_content_size=st.booleans(),
)
PARTS = st.lists(FRAME | st.builds(skippable, st.binary(max_size=50), st.integers(0, 15)))


def decode(blob: bytes, step: int, target: int = 1, max_raw: int = 16 << 20):
    source = framed_pieces((blob[i : i + step] for i in range(0, len(blob), step)), target, max_raw)
    out, cuts = b"", []
    while True:
        try:
            data, new = next(source)
        except StopIteration as stop:
            return out, cuts, stop.value
        assert all(len(out) <= cut.raw < len(out) + max(1, len(data)) for cut in new)
        out += data
        cuts += new


@given(parts=PARTS, step=st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_every_cut_is_a_place_to_enter(parts, step):
    blob = b"".join(parts)
    step = max(step, len(blob) // 200)
    out, cuts, end = decode(blob, step)
    plain = zstandard.ZstdDecompressor()
    whole = plain.stream_reader(blob, read_across_frames=True).read(10_000_000) if parts else b""
    assert out == whole
    assert end <= len(blob) * 8
    for cut in cuts:
        tail = plain.stream_reader(blob[cut.bit // 8 : end // 8], read_across_frames=True)
        assert tail.read(10_000_000) == out[cut.raw :]


@given(parts=PARTS, first=st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_the_walker_neither_loses_nor_invents_bytes(parts, first):
    blob = b"".join(parts)
    walker = FrameWalker()
    pieces = [*walker.feed(memoryview(blob[:first])), *walker.feed(memoryview(blob[first:]))]
    assert b"".join(bytes(piece) for piece, _ in pieces) == blob
    assert walker.between_frames
    skipped = sum(len(piece) for piece, kind in pieces if kind == SKIP)
    assert skipped == sum(len(part) for part in parts if part[0] != 0x28)


def test_frames_are_grouped():
    noise = [hashlib.sha256(bytes([i])).digest() for i in range(50)]
    size = len(frame(noise[0]))
    _, cuts, _ = decode(b"".join(map(frame, noise)), 1000, target=9 * size)
    assert {later.bit - cut.bit for cut, later in pairwise(cuts)} == {9 * size * 8}
    size = len(frame(noise[0] * 3))
    _, cuts, _ = decode(b"".join(frame(part * 3) for part in noise), 1000, target=400)
    assert {later.bit - cut.bit for cut, later in pairwise(cuts)} == {6 * size * 8}, "500 bytes raw"


def test_a_trailing_skippable_frame_belongs_to_no_chunk():
    blob = frame(b"data") + skippable(bytes(1000))
    assert decode(blob, 100)[2] == len(frame(b"data")) * 8


def test_a_large_frame_cannot_be_entered():
    with pytest.raises(LayerFormatError, match="a frame of more than"):
        decode(frame(bytes(1000)), 100, max_raw=999)


@pytest.mark.parametrize("blob", [frame(b"data")[:-1], frame(b"data") + b"tail", b"no frame"])
def test_broken_streams(blob):
    with pytest.raises(LayerFormatError):
        decode(blob, 3)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    blob = frame(b"data") + noise
    try:
        decode(blob, 50)
    except LayerFormatError:
        return
    assert not noise or is_frame(noise[:4])


def test_what_takes_much_memory_is_known_by_its_header():
    for log, large in ((23, False), (26, False), (27, True)):
        parameters = zstandard.ZstdCompressionParameters(window_log=log)
        blob = (
            zstandard.ZstdCompressor(compression_params=parameters)
            .compressobj()
            .compress(os.urandom(1 << 20))
        )
        assert has_large_window(blob[:FRAME_HEADER]) is large
    for other in (b"", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08" + bytes(20), skippable(bytes(20), 3)):
        assert not has_large_window(other)
