import gzip
import hashlib
import zlib
from dataclasses import replace

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clip_runc.errors import DigestMismatch, LayerFormatError
from clip_runc.index.gzip_blocks import restart_bytes
from clip_runc.index.inflate import inflate_chunk, stream_decoder
from clip_runc.index.model import ZTOC, Chunk, Layer

MIB = 1 << 20


def layer_of(codec: str, compression: str | None = None) -> Layer:
    digest = "sha256:" + "0" * 64
    return Layer(digest, digest, "test", codec, compression or codec, 0, 0, ())


def chunk_of(data: bytes, compressed: bytes, bit: int = 0) -> Chunk:
    return Chunk(0, len(data), 0, len(compressed), hashlib.sha256(data).digest(), bit)


def raw_deflate(data: bytes, level: int, window: bytes = b"") -> bytes:
    arguments = (level, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY)
    packer = zlib.compressobj(*arguments, window) if window else zlib.compressobj(*arguments)
    return packer.compress(data) + packer.flush()


def shift(stream: bytes, bit: int, foreign: int) -> bytes:
    """The stream moved up by ``bit`` bits, with bits of another block below it."""
    value = int.from_bytes(stream, "little") << bit | foreign & ((1 << bit) - 1)
    return value.to_bytes(len(stream) + 1, "little")


def entered(stream: bytes, bit: int, foreign: int, window: bytes = b"") -> bytes:
    """``shift``, without the last byte where the stream does not reach into it."""
    moved = shift(stream, bit, foreign)
    inflater = zlib.decompressobj(-15, zdict=window) if window else zlib.decompressobj(-15)
    inflater.decompress(restart_bytes(bit, moved[0]) + moved[1:])
    return moved.removesuffix(inflater.unused_data)


TEXT = st.lists(st.sampled_from([b"usr/lib/", b"\0" * 512, b"python", b"\xff\xfe"]), max_size=300)


@given(
    words=TEXT,
    noise=st.binary(min_size=1, max_size=400),
    level=st.integers(0, 9),
    bit=st.integers(0, 7),
    foreign=st.integers(0, 255),
    more=st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 9)), max_size=3),
    with_window=st.booleans(),
)
@settings(max_examples=150, deadline=None)
@example([], b"x", 0, 7, 255, [(b"", 0), (b"", 9)], True)
def test_gzip_chunks_at_any_bit_and_over_member_ends(
    words, noise, level, bit, foreign, more, with_window
):
    if bit:
        # moving a stored block would break its alignment to bytes: nothing that is stored, then
        level, noise = max(level, 1), bytes(byte for byte in noise for _ in range(3))
    first = noise + b"".join(words) + noise
    window = (b"".join(words) + noise)[-32768:] if with_window else b""
    compressed = entered(raw_deflate(first, level, window), bit, foreign, window)
    data = first
    for member, member_level in more:
        compressed += bytes(8) + gzip.compress(member, member_level)[:-8]
        data += member
    compressed += b"trailer!"

    result = inflate_chunk(layer_of("gzip"), chunk_of(data, compressed, bit), compressed, window)
    assert result == data


@given(data=st.binary(min_size=1, max_size=2000), bit=st.integers(0, 7), flip=st.data())
@settings(deadline=None)
def test_damage_is_never_served(data, bit, flip):
    compressed = bytearray(shift(raw_deflate(data * 3, 6), bit, 0))
    data *= 3
    chunk = chunk_of(data, bytes(compressed), bit)
    place = flip.draw(st.integers(0, len(compressed) - 1))
    compressed[place] ^= 1 << flip.draw(st.integers(0, 7))
    try:
        assert inflate_chunk(layer_of("gzip"), chunk, bytes(compressed), b"") == data
    except (DigestMismatch, LayerFormatError):
        return


def test_a_chunk_that_ends_before_its_stream():
    data = bytes(range(256)) * 4000
    stream = raw_deflate(data, 6)
    chunk = Chunk(0, 1000, 0, len(stream), hashlib.sha256(data[:1000]).digest())
    assert inflate_chunk(layer_of("gzip"), chunk, stream, b"") == data[:1000]


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_declared_size(codec):
    import tracemalloc

    zeros = bytes(64 * MIB)
    compressed = raw_deflate(zeros, 9) if codec == "gzip" else zstandard.compress(zeros)
    chunk = chunk_of(bytes(1000), compressed)
    tracemalloc.start()
    assert inflate_chunk(layer_of(codec), chunk, compressed, b"") == bytes(1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB


def test_thousands_of_members_in_one_chunk():
    data = b"a small file" * 20000
    parts = [gzip.compress(data[i : i + 12]) for i in range(0, len(data), 12)]
    compressed = b"".join(parts)[10:]
    chunk = chunk_of(data, compressed)
    assert inflate_chunk(layer_of("gzip"), chunk, compressed, b"") == data


def test_zstd_frames_and_skippable_frames():
    frames = [zstandard.compress(b"one" * 100), b"\x50\x2a\x4d\x18\x03\0\0\0abc"]
    compressed = b"".join([*frames, zstandard.compress(b"two" * 100)])
    data = b"one" * 100 + b"two" * 100
    assert inflate_chunk(layer_of("zstd"), chunk_of(data, compressed), compressed, b"") == data


def test_uncompressed():
    chunk = chunk_of(b"tar", b"tar")
    assert inflate_chunk(layer_of("none"), chunk, memoryview(b"tar"), b"") == b"tar"
    with pytest.raises(DigestMismatch):
        inflate_chunk(layer_of("none"), chunk, b"tax", b"")


@pytest.mark.parametrize(
    ("codec", "compressed"),
    [
        ("gzip", b"\xff" * 20),
        ("gzip", raw_deflate(b"short", 6)),
        ("gzip", raw_deflate(b"short", 6) + bytes(8) + b"no header at all"),
        ("zstd", b"\xff" * 20),
        ("zstd", zstandard.compress(b"short")),
        ("none", b"short"),
        ("stream", b"any"),
    ],
)
def test_what_does_not_inflate_to_the_declared_size(codec, compressed):
    chunk = chunk_of(b"longer than that", compressed)
    with pytest.raises(LayerFormatError):
        inflate_chunk(layer_of(codec), chunk, compressed, b"")


def test_input_of_another_length():
    with pytest.raises(LayerFormatError, match="2 bytes instead of 3"):
        inflate_chunk(layer_of("none"), chunk_of(b"tar", b"tar"), b"ta", b"")


def pieces_of(data: bytes, step: int) -> list[bytes]:
    return [data[i : i + step] for i in range(0, len(data), step)]


STREAMS = {
    "gzip": lambda parts: b"".join(gzip.compress(part) for part in parts),
    "zstd": lambda parts: b"".join(
        zstandard.compress(part) + b"\x5f\x2a\x4d\x18\x02\0\0\0ab" for part in parts
    ),
}


@given(
    parts=st.lists(st.binary(max_size=500), min_size=1, max_size=5),
    step=st.integers(1, 200),
    compression=st.sampled_from(sorted(STREAMS)),
)
@settings(deadline=None)
def test_streams_in_pieces_of_any_size(parts, step, compression):
    decoder = stream_decoder(compression)
    blob = STREAMS[compression](parts)
    out = b"".join(decoder.feed(piece) for piece in pieces_of(blob, step))
    decoder.finish()
    assert out == b"".join(parts)


@pytest.mark.parametrize("compression", sorted(STREAMS))
def test_streams_that_break_off(compression):
    blob = STREAMS[compression]([b"x" * 1000])
    for end in (0, 5, len(blob) // 3):
        decoder = stream_decoder(compression)
        decoder.feed(blob[:end])
        with pytest.raises(LayerFormatError, match="cut short"):
            decoder.finish()


@pytest.mark.parametrize("compression", sorted(STREAMS))
def test_garbage_behind_a_stream(compression):
    decoder = stream_decoder(compression)
    with pytest.raises(LayerFormatError):
        decoder.feed(STREAMS[compression]([b"x"]) + b"garbage " * 9)


def test_zeros_behind_a_gzip_stream():
    decoder = stream_decoder("gzip")
    blob = gzip.compress(b"x") + bytes(1000)
    assert b"".join(decoder.feed(piece) for piece in pieces_of(blob, 7)) == b"x"
    decoder.finish()
    with pytest.raises(LayerFormatError):
        decoder.feed(b"y")


@pytest.mark.parametrize("compression", sorted(STREAMS))
def test_a_stream_stops_at_its_limit_and_its_pieces_are_bounded(compression):
    blob = STREAMS[compression]([bytes(200 * MIB)])
    decoder = stream_decoder(compression, limit=100 * MIB)
    sizes = []
    with pytest.raises(LayerFormatError, match="more than"):
        for piece in decoder.pieces(blob):
            sizes.append(len(piece))
    assert max(sizes) <= 70 * MIB
    assert sum(sizes) <= 100 * MIB


def test_unknown_compression():
    with pytest.raises(LayerFormatError):
        stream_decoder("bzip2")
    assert stream_decoder("none").feed(b"as it is") == b"as it is"


@given(
    before=st.binary(max_size=300),
    data=st.binary(min_size=1, max_size=1500),
    after=st.binary(max_size=700),
    frames=st.integers(1, 3),
    codec=st.sampled_from(["members", "zstd"]),
)
@settings(max_examples=100, deadline=None)
def test_a_part_of_members_and_frames_with_a_pad_behind_it(before, data, after, frames, codec):
    whole = before + data + after
    step = -(-len(whole) // frames)
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    pack = gzip.compress if codec == "members" else zstandard.ZstdCompressor().compress
    compressed = b"".join(map(pack, pieces))
    pad = -len(data) % 512
    chunk = replace(chunk_of(data, compressed), raw_end=len(data) + pad, pad=pad, skip=len(before))
    layer = layer_of(codec, "gzip" if codec == "members" else "zstd")
    assert inflate_chunk(layer, chunk, compressed) == data + bytes(pad)
    with pytest.raises(DigestMismatch):
        inflate_chunk(layer, replace(chunk, hash=bytes(32)), compressed)
    with pytest.raises(LayerFormatError):
        inflate_chunk(layer, replace(chunk, skip=len(whole)), compressed)


@pytest.mark.parametrize("junk", [b"", b"\x1f\x8b", b"not a gzip member", b"\x1f\x8b\x08\xff" * 9])
def test_members_are_entered_at_a_header_only(junk):
    with pytest.raises(LayerFormatError):
        inflate_chunk(layer_of("members", "gzip"), chunk_of(b"x", junk), junk)


def test_where_the_hash_is_of_the_compressed_bytes_those_are_compared():
    data = b"raw bytes"
    compressed = raw_deflate(data, 6)
    layer = replace(layer_of("gzip"), origin=ZTOC)
    chunk = replace(chunk_of(data, compressed), hash=hashlib.sha256(compressed).digest())
    assert inflate_chunk(layer, chunk, compressed) == data
    with pytest.raises(DigestMismatch):
        inflate_chunk(layer, chunk, compressed[:-1] + b"\xff")
