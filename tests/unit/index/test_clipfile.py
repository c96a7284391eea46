import contextlib
import hashlib
import io
import os
import subprocess
import sys
import time

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index.chunk_table import MAX_CHUNKS
from clip_runc.index.clip_format import (
    LIMITS,
    TABLE_SIZE,
    Section,
    bounded_zstd,
    pack_table,
    read_table,
)
from clip_runc.index.clipfile import ClipFile, write_clip
from clip_runc.index.model import Chunk, Layer
from clip_runc.index.prefetch import PrefetchList, Range
from tests.integration.prerequisites import paced

WINDOW = zstandard.compress(b"w" * 32768)


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def gzip_layer(name: bytes = b"a", count: int = 3) -> Layer:
    chunks = tuple(
        Chunk(
            i * 1000,
            (i + 1) * 1000,
            i * 500,
            i * 500 + 501,
            hashlib.sha256(bytes([i % 256])).digest(),
            i % 8,
            (0, len(WINDOW)) if i else (0, 0),
        )
        for i in range(count)
    )
    return Layer(
        sha(name), sha(name + b"d"), "x", "gzip", "gzip", 501 * count, 1000 * count, chunks
    )


def clip_bytes(layers=None, **changes) -> bytes:
    values = {
        "manifest": b'{"m":1}',
        "config": b'{"c":1}',
        "platform": "linux/amd64",
        "source": "example.org/team/app",
        "layers": layers if layers is not None else [(gzip_layer(), WINDOW)],
        "erofs": b"erofs image" * 100,
    }
    out = io.BytesIO()
    write_clip(out, **{**values, **changes})
    return out.getvalue()


def listed(*numbers: int) -> PrefetchList:
    """A prefetch list of one range."""
    return PrefetchList(("sh",), (Range(*numbers),))


@contextlib.contextmanager
def opened(data: bytes):
    descriptor = os.memfd_create("clip")
    try:
        os.write(descriptor, data)
        with ClipFile.open(descriptor) as clip:
            yield clip
    finally:
        os.close(descriptor)


def test_what_is_written_can_be_read():
    layer = gzip_layer()
    with opened(clip_bytes(prefetch=[listed(0, 1, 2)])) as clip:
        assert clip.manifest == b'{"m":1}'
        assert clip.manifest_digest == sha(b'{"m":1}')
        assert clip.config == b'{"c":1}'
        assert clip.platform == "linux/amd64"
        assert clip.source == "example.org/team/app"
        assert clip.layers == (layer,)
        assert clip.window(0, 0) == b""
        assert clip.window(0, 2) == b"w" * 32768
        assert clip.erofs() == b"erofs image" * 100
        assert clip.prefetch() == [listed(0, 1, 2)]
        clip.check_windows_section()
        os.fstat(clip.fileno())


def test_the_same_image_gives_the_same_bytes():
    assert clip_bytes() == clip_bytes()


def test_content_digest_leaves_the_source_and_what_was_recorded_out():
    with opened(clip_bytes()) as one, opened(clip_bytes(source="mirror/app")) as two:
        assert one.content_digest == two.content_digest
    with opened(clip_bytes()) as one, opened(clip_bytes(prefetch=[listed(0, 1, 2)])) as two:
        assert one.content_digest == two.content_digest
    for change in ({"platform": "linux/arm64"}, {"erofs": b"another image"}, {"layers": []}):
        with opened(clip_bytes()) as one, opened(clip_bytes(**change)) as two:
            assert one.content_digest != two.content_digest


def test_the_parts_make_the_file():
    data = clip_bytes()
    with opened(data) as clip:
        assert sum(clip.parts.values()) == len(data)
        assert clip.parts["windows"] == len(WINDOW)


def test_the_content_digest_checks_what_it_reads():
    data = bytearray(clip_bytes())
    with opened(data) as clip:
        place = clip._sections[b"EROF"].offset
    data[place + 9] ^= 1
    with opened(data) as clip, pytest.raises(IndexFormatError, match="EROF"):
        _ = clip.content_digest


def test_an_index_with_other_prefetch_lists_is_as_if_written_with_them():
    out = io.BytesIO()
    with opened(clip_bytes(prefetch=[listed(0, 0, 1)])) as clip:
        clip.write_with_prefetch(out, [listed(0, 1, 2)])
    assert out.getvalue() == clip_bytes(prefetch=[listed(0, 1, 2)])


def test_many_layers_and_one_that_is_there_twice():
    other = zstandard.compress(b"o" * 100)
    layers = [(gzip_layer(bytes([i % 100])), WINDOW if i % 100 else other) for i in range(127)]
    with opened(clip_bytes(layers)) as clip:
        assert len(clip.layers) == 127
        assert clip.window(0, 1) == clip.window(100, 1) == b"o" * 100
        assert clip.window(126, 2) == b"w" * 32768
        assert clip.layers[0].chunks == clip.layers[100].chunks
    assert len(clip_bytes(layers)) < 127 * 3 * 80 + 100 * len(WINDOW) + 60_000


def test_opening_is_fast_and_reads_neither_windows_nor_erofs(tmp_path):
    layers = [(gzip_layer(bytes([i]), 1600), WINDOW) for i in range(3)]
    data = bytearray(clip_bytes(layers, erofs=os.urandom(4 << 20)))
    path = tmp_path / "x.clip"
    path.write_bytes(data)
    best = min(_seconds_to_open(str(path)) for _ in range(5))
    assert best < paced(0.03)


def _seconds_to_open(path: str) -> float:
    started = time.perf_counter()
    with ClipFile.open(path):
        return time.perf_counter() - started


def test_opening_imports_nothing_heavy(tmp_path):
    path = tmp_path / "x.clip"
    path.write_bytes(clip_bytes())
    program = (
        "import sys; from clip_runc.index.clipfile import ClipFile\n"
        f"clip = ClipFile.open({str(path)!r}); clip.config; clip.prefetch()\n"
        "print([m for m in ('isal', 'oras', 'trio', 'requests') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "layer",
    [
        Layer(sha(b""), sha(b""), "x", "none", "none", 0, 0, ()),
        Layer(sha(b""), sha(b""), "x", "stream", "zstd", 9, 8, (Chunk(0, 8, 0, 0, bytes(32)),)),
        Layer(sha(b""), sha(b""), "x", "none", "none", 8, 8, (Chunk(0, 8, 0, 8, bytes(32)),)),
        Layer(sha(b""), sha(b""), "x", "zstd", "zstd", 9, 8, (Chunk(0, 8, 2, 9, bytes(32)),)),
        Layer(sha(b""), sha(b""), "x", "none", "none", 0, 0, (), chunk_hash="blake3"),
    ],
)
def test_every_codec(layer):
    with opened(clip_bytes([(layer, b"")])) as clip:
        assert clip.layers == (layer,)


@pytest.mark.parametrize("name", ["", "md5", "BLAKE3"])
def test_a_hash_that_we_do_not_know(name):
    layer = Layer(sha(b""), sha(b""), "x", "none", "none", 0, 0, (), chunk_hash=name)
    with pytest.raises(IndexFormatError, match="has a hash"), opened(clip_bytes([(layer, b"")])):
        pass


def chunks(*rows):
    return tuple(Chunk(a, b, c, d, bytes(32), *rest) for a, b, c, d, *rest in rows)


@pytest.mark.parametrize(
    ("codec", "rows"),
    [
        ("gzip", [(0, 50, 0, 9)]),
        ("gzip", [(0, 101, 0, 9)]),
        ("gzip", [(1, 100, 0, 9)]),
        ("gzip", [(0, 60, 0, 9), (50, 100, 9, 18)]),
        ("gzip", [(0, 50, 0, 9), (60, 100, 9, 18)]),
        ("gzip", [(0, 0, 0, 9), (0, 100, 0, 9)]),
        ("gzip", [(0, 100, 5, 5)]),
        ("gzip", [(0, 100, 0, 1001)]),
        ("gzip", [(0, 100, 0, 9, 8)]),
        ("gzip", [(0, 100, 0, 9, 0, (0, len(WINDOW) + 1))]),
        ("gzip", [(0, 100, 0, 9, 0, (1 << 60, 10))]),
        ("zstd", [(0, 100, 0, 9, 1)]),
        ("zstd", [(0, 100, 0, 9, 0, (0, 9))]),
        ("none", [(0, 100, 1, 101)]),
        ("none", [(0, 100, 0, 99)]),
        ("stream", [(0, 100, 0, 9)]),
        ("lzma", [(0, 100, 0, 9)]),
        ("gzip", []),
    ],
)
def test_chunk_tables_that_make_no_sense(codec, rows):
    compression = "gzip" if codec == "stream" else codec
    layer = Layer(sha(b""), sha(b""), "x", codec, compression, 1000, 100, chunks(*rows))
    data = clip_bytes([(layer, WINDOW)])
    with pytest.raises(IndexFormatError), opened(data):
        pass


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "g" * 64},
        {"diff_id": "../../etc/passwd"},
        {"diff_id": "sha256:" + "0" * 64 + "\n"},
        {"comp_size": -1},
        {"comp_size": 1 << 62},
        {"raw_size": True},
        {"media_type": 5},
        {"chunks": 4},
        {"chunks": 10**18},
        {"unknown": 1},
    ],
)
def test_layer_rows_that_make_no_sense(change):
    import json

    def edit(sections):
        rows = json.loads(sections[b"LAYR"])
        rows[0].update(change)
        sections[b"LAYR"] = json.dumps(rows).encode()

    with pytest.raises(IndexFormatError), opened(rewritten(edit)):
        pass


def rewritten(edit) -> bytes:
    """A file with consistent checksums whose stored sections went through ``edit``."""
    data = clip_bytes()
    with opened(data) as clip:
        rows = clip._sections
    sections = {n: data[s.offset : s.offset + s.length] for n, s in rows.items()}
    edit(sections)
    position, table = TABLE_SIZE, []
    for name, body in sections.items():
        raw_length = len(body) if rows[name].codec == 0 else rows[name].raw_length
        digest = hashlib.sha256(body).digest()
        table.append(Section(name, rows[name].codec, position, len(body), raw_length, digest))
        position += len(body)
    return pack_table(table) + b"".join(sections.values())


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{}", b"\xff", b'[{"digest":1}]', b"[7]"])
@pytest.mark.parametrize("section", [b"LAYR", b"PREF"])
def test_tables_that_are_no_tables(section, text):
    data = rewritten(lambda sections: sections.update({section: text}))
    with pytest.raises(IndexFormatError), opened(data) as clip:
        clip.prefetch()


@pytest.mark.parametrize(
    "rows",
    ["[0,2,1,0]", "[1,0,0,0]", "[0,0,3,0]", "[0,0,0]", "[0,0,true,0]", "[0,0,2,0],[0,0,2,0]"],
)
def test_prefetch_of_what_is_not_there(rows):
    text = f'[{{"command":["sh"],"ranges":[{rows}]}}]'
    data = rewritten(lambda sections: sections.update({b"PREF": text.encode()}))
    with pytest.raises(IndexFormatError), opened(data) as clip:
        clip.prefetch()


def test_chunks_of_no_layer():
    data = rewritten(lambda s: s.update({b"CHNK": s[b"CHNK"] + bytes(80)}))
    with pytest.raises(IndexFormatError), opened(data):
        pass


def test_limits_hold_for_writers_too():
    with pytest.raises(IndexFormatError, match="too large"):
        clip_bytes(manifest=bytes(LIMITS[b"MANI"][0] + 1))
    assert LIMITS[b"CHNK"][0] >= MAX_CHUNKS * 80


def test_a_bomb_in_a_section_or_a_window():
    bomb = zstandard.compress(bytes(100 << 20))
    for size in (100, 1 << 20):
        with pytest.raises(IndexFormatError):
            bounded_zstd(bomb, size, "test")
    liar = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    with pytest.raises(IndexFormatError):
        bounded_zstd(liar, 100, "test")
    layer = gzip_layer(count=2)
    frames = bomb.ljust(len(WINDOW), b"\0")
    row = Chunk(1000, 2000, 500, 1001, bytes(32), 1, (0, len(bomb)))
    layer = Layer(
        layer.digest, layer.diff_id, "x", "gzip", "gzip", 1002, 2000, (layer.chunks[0], row)
    )
    with opened(clip_bytes([(layer, frames)])) as clip, pytest.raises(IndexFormatError):
        clip.window(0, 1)


GOOD = clip_bytes(prefetch=[listed(0, 0, 1)])


def read_all(data: bytes) -> None:
    with opened(data) as clip:
        clip.config, clip.erofs(), clip.prefetch(), clip.content_digest
        clip.check_windows_section()
        for chunk in range(len(clip.layers[0].chunks) if clip.layers else 0):
            clip.window(0, chunk)


def test_the_good_one_is_good():
    read_all(GOOD)


@given(place=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_flipped_bit_is_noticed(place, bit):
    data = bytearray(GOOD)
    data[place] ^= 1 << bit
    with pytest.raises(IndexFormatError):
        read_all(bytes(data))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_cuts_and_splices(data):
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(GOOD))] * 2)))
    middle = data.draw(st.binary(max_size=100))
    spliced = GOOD[:a] + middle + GOOD[b:]
    if spliced == GOOD:
        return
    with pytest.raises(IndexFormatError):
        read_all(spliced)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_hostile_sections_with_right_checksums(data):
    """No checksum helps here: whatever comes must be IndexFormatError or a sound index."""

    def edit(sections):
        name = data.draw(st.sampled_from([b"LAYR", b"CHNK", b"WIND", b"EROF", b"PREF", b"PLAT"]))
        body = bytearray(sections[name])
        place = data.draw(st.integers(0, max(0, len(body) - 1)))
        body[place : place + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
        sections[name] = bytes(body)

    with contextlib.suppress(IndexFormatError):
        read_all(rewritten(edit))


def test_files_that_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "fifo", "/dev/null"):
        with pytest.raises(IndexFormatError):
            ClipFile.open(str(path))
    with pytest.raises(IndexFormatError):
        ClipFile.open(12345)
    with pytest.raises(IndexFormatError, match=r"not a \.clip file"), opened(b"{}"):
        pass


def test_a_file_of_the_go_library_is_refused_with_what_to_do() -> None:
    data = b"\x89CLIP\r\n\x1a\n" + bytes(4096)
    with pytest.raises(IndexFormatError, match="Go library") as caught:
        read_table(data, len(data))
    assert "clipctl import" in caught.value.hint
