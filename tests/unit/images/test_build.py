import gzip
import io
import os
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from clip_runc.errors import DigestMismatch, LayerFormatError, RegistryUnreachable
from clip_runc.images import layer_pipeline
from clip_runc.images.build import build_index
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.inflate import inflate_chunk, stream_decoder
from clip_runc.linux.isa_l import FastInflater
from clip_runc.linux.zlib_ng import GzipInflater
from tests.unit.images import blobs

TAR = blobs.mixed_tar(24_000_000)
SMALL = blobs.tar_of({"etc/passwd": b"root"})


@pytest.fixture
def cache(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    descriptor = os.open(directory, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def build(source, **options):
    out = io.BytesIO()
    result = build_index(source, out, **options)
    return result, out.getvalue()


def opened(data: bytes) -> ClipFile:
    descriptor = os.memfd_create("clip")
    os.write(descriptor, data)
    clip = ClipFile.open(descriptor)
    os.close(descriptor)
    return clip


def read_back(clip: ClipFile, number: int, blob: bytes) -> bytes:
    """The whole layer, chunk by chunk, in threads."""
    layer = clip.layers[number]
    if layer.codec == "stream":
        return stream_decoder(layer.compression).feed(blob)

    def one(place: int) -> bytes:
        chunk = layer.chunks[place]
        part = blob[chunk.comp_start : chunk.comp_end]
        return inflate_chunk(layer, chunk, part, clip.window(number, place))

    with ThreadPoolExecutor(3) as pool:
        return b"".join(pool.map(one, range(len(layer.chunks))))


ENCODINGS = {
    **{f"gzip -{n}": lambda n=n: gzip.compress(TAR, n, mtime=0) for n in range(10)},
    "fixed blocks": lambda: blobs.gzip_strategy(TAR, zlib.Z_FIXED),
    "huffman only": lambda: blobs.gzip_strategy(TAR, zlib.Z_HUFFMAN_ONLY),
    "members of 1 MB": lambda: blobs.gzip_members(TAR, 1_000_000),
    "members of 10 kB": lambda: blobs.gzip_members(TAR, 10_000, 1),
    "full flushes": lambda: blobs.gzip_flushed(TAR, 100_000),
    "bgzip": lambda: blobs.bgzip(TAR),
    "pigz": lambda: blobs.pigz(TAR) or blobs.gzip_flushed(TAR, 131_072),
    "pigz -i": lambda: blobs.pigz(TAR, "-i", "-p4") or blobs.gzip_flushed(TAR, 131_072),
}


@pytest.mark.parametrize("name", sorted(ENCODINGS))
def test_every_chunk_of_every_gzip_can_be_entered(name):
    blob = ENCODINGS[name]()
    result, data = build(blobs.source_of((TAR, blob, "+gzip")), checkpoint_mib=1)
    (layer,) = result.layers
    assert layer.codec == "gzip"
    assert not result.warnings
    assert result.fetched == len(blob)
    with opened(data) as clip:
        check_clip(clip)
        assert read_back(clip, 0, blob) == TAR
    assert len(layer.chunks) >= len(blob) // (2 << 20)
    assert all(chunk.raw_end - chunk.raw_start <= 18 << 20 for chunk in layer.chunks)


def test_the_same_image_gives_the_same_bytes_however_it_arrives():
    blob = blobs.gzip_members(TAR, 7_000_000)

    class Slow(blobs.Source):
        def stream(self, digest, size, start=0):
            for place in range(0, len(blob), 1_000_003):
                threading.Event().wait(0.001)
                yield blob[place : place + 1_000_003]

    source = blobs.source_of((TAR, blob, "+gzip"))
    slow = Slow(source.layers, source.diff_ids, source.blobs)
    assert build(source)[1] == build(slow)[1]


@pytest.mark.parametrize(
    ("suffix", "encode", "codec", "least"),
    [
        ("", bytes, "none", 12),
        ("+zstd", lambda tar: blobs.zstd_frames(tar, 500_000), "zstd", 4),
        ("+zstd", zstandard.compress, "stream", 6),
        ("+gzip", lambda tar: gzip.compress(tar, 1) + bytes(512), "gzip", 4),
    ],
)
def test_other_codecs(suffix, encode, codec, least):
    blob = encode(TAR)
    result, data = build(blobs.source_of((TAR, blob, suffix)))
    (layer,) = result.layers
    assert (layer.codec, layer.raw_size) == (codec, len(TAR))
    assert len(layer.chunks) >= least
    assert bool(result.warnings) == (codec == "stream")
    with opened(data) as clip:
        check_clip(clip)
        assert read_back(clip, 0, blob) == TAR


def test_where_the_chunks_are_is_zlibs_word_alone(monkeypatch):
    source = blobs.source_of((TAR, gzip.compress(TAR, 6, mtime=0), "+gzip"))
    found: list[object] = []
    real = FastInflater.last_block

    def noted(self, data, most):
        found.append(real(self, data, most))
        return found[-1]

    monkeypatch.setattr(FastInflater, "last_block", noted)
    first = build(source, checkpoint_mib=1)[1]
    assert len(found) > 3, "ISA-L was asked"
    assert found.count(None) < len(found), "and knew"
    monkeypatch.setattr(FastInflater, "last_block", lambda self, data, most: None)
    assert build(source, checkpoint_mib=1)[1] == first
    monkeypatch.setattr("clip_runc.images.gzip_source.gzip_inflater", GzipInflater)
    assert build(source, checkpoint_mib=1)[1] == first


def test_what_cannot_be_entered_is_fetched_again_as_a_stream():
    tar = blobs.tar_of({"noise": os.urandom(24 << 20)})
    half = len(tar) // 2  # by then the beginning has gone by
    blob = gzip.compress(tar[:half], 1) + blobs.one_block(tar[half:])
    source = blobs.source_of((tar, blob, "+gzip"))
    result, _ = build(source)
    assert result.layers[0].codec == "stream"
    assert source.streamed == [blobs.sha(blob)] * 2
    assert len(blob) < result.fetched <= 2 * len(blob)


@pytest.mark.parametrize(("further", "codec"), [(4 << 20, "gzip"), (1 << 20, "stream")])
def test_how_far_the_next_block_may_be(further, codec, monkeypatch):
    monkeypatch.setattr("clip_runc.images.gzip_cuts._FURTHER", further)
    tar = blobs.tar_of({"noise": os.urandom(5 << 20)})
    result, _ = build(blobs.source_of((tar, blobs.one_block(tar), "+gzip")))
    assert result.layers[0].codec == codec


def test_a_zstd_frame_that_proves_too_large_is_not_fetched_again():
    tar = blobs.tar_of({"noise": os.urandom(20 << 20), "zeros": bytes(20 << 20)})
    blob = zstandard.compress(tar)
    source = blobs.source_of((tar, blob, "+zstd"))
    result, _ = build(source)
    assert result.layers[0].codec == "stream"
    assert (source.streamed, result.fetched) == ([blobs.sha(blob)], len(blob))


@pytest.mark.parametrize("suffix", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstandard.compress])
def test_media_types_that_lie(suffix, encode):
    blob = encode(SMALL)
    result, _ = build(blobs.source_of((SMALL, blob, suffix)))
    right = {bytes: "none", gzip.compress: "gzip", zstandard.compress: "zstd"}[encode]
    assert result.layers[0].codec == right
    assert bool(result.warnings) == ((suffix.removeprefix("+") or "none") != right)


@pytest.mark.parametrize(
    ("tar", "blob"),
    [
        (b"", b""),
        (b"", gzip.compress(b"")),
        (blobs.tar_of({}), gzip.compress(blobs.tar_of({}))),
    ],
)
def test_layers_with_nothing_in_them(tar, blob):
    result, data = build(blobs.source_of((tar, blob, "+gzip")))
    assert result.layers[0].raw_size == len(tar)
    with opened(data) as clip:
        assert check_clip(clip).files == 0


@pytest.mark.parametrize(("log", "most"), [(23, 2), (27, 1)])
def test_decoders_that_take_much_memory_are_one_at_a_time(log, most, monkeypatch):
    parameters = zstandard.ZstdCompressionParameters(window_log=log)
    tars = [blobs.tar_of({f"noise{n}": os.urandom(17 << 20)}) for n in range(2)]
    layers = []
    for tar in tars:
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        layers.append((tar, packer.compress(tar) + packer.flush(), "+zstd"))
    now, seen, lock = 0, [], threading.Lock()
    real = layer_pipeline._streamed

    def counted(*arguments):
        nonlocal now
        with lock:
            now += 1
            seen.append(now)
        time.sleep(0.3)
        try:
            return real(*arguments)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(layer_pipeline, "_streamed", counted)
    build(blobs.source_of(*layers))
    assert (len(seen), max(seen)) == (2, most)


def test_layers_side_by_side_are_as_one_after_the_other(monkeypatch):
    other = blobs.mixed_tar(9_000_000, seed=2)
    source = blobs.source_of(
        (SMALL, gzip.compress(SMALL), "+zstd"),  # the smallest; it is called what it is not
        (TAR, gzip.compress(TAR, 1), "+gzip"),
        (other, zstandard.compress(other), "+gzip"),
        (TAR, gzip.compress(TAR, 4), "+gzip"),  # its bytes go to the file of another
        (other, other, ""),
    )
    kept = Kept()
    result, data = build(source, keep=kept)
    assert kept.data == {blobs.sha(tar): tar for tar in (SMALL, TAR, other)}
    assert sorted(layer.digest for layer in kept.layers) == sorted(
        layer.digest for layer in source.layers
    )
    lies = [0, 2]
    assert len(result.warnings) == len(lies)
    for number, warning in zip(lies, result.warnings, strict=True):
        assert source.layers[number].digest in warning
    assert result.fetched == sum(layer.size for layer in source.layers)
    monkeypatch.setattr("clip_runc.images.build._AT_ONCE", 1)
    again, same = build(source)
    assert (same, again.warnings) == (data, result.warnings)


def test_the_rest_of_an_image_is_not_fetched_when_a_layer_is_damaged():
    source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"), (TAR, TAR, ""))
    whole, ended = source.stream, []

    def stream(digest, size, start=0):
        if digest == source.layers[0].digest:
            yield bytes(size)
            return
        for piece in whole(digest, size):
            yield piece
            time.sleep(0.05)
        ended.append(digest)

    source.stream = stream
    with pytest.raises(DigestMismatch, match=source.layers[0].digest):
        build(source)
    assert not ended


def test_a_layer_that_is_there_twice_is_fetched_once():
    layer = (SMALL, gzip.compress(SMALL), "+gzip")
    source = blobs.source_of(layer, layer)
    result, data = build(source)
    assert len(source.streamed) == 1
    assert result.layers[0] == result.layers[1]
    with opened(data) as clip:
        assert check_clip(clip).files == 1


def test_many_layers():
    tars = [blobs.tar_of({f"file{i}": b"x" * i}) for i in range(127)]
    source = blobs.source_of(*[(tar, gzip.compress(tar), "+gzip") for tar in tars])
    with opened(build(source)[1]) as clip:
        assert check_clip(clip).files == 127


def test_cached_layers_are_not_fetched(cache):
    source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"), (TAR, TAR, ""))
    first, data = build(source, cache_fd=cache)
    again, same = build(source, cache_fd=cache)
    assert data == same
    assert (first.reused, again.fetched) == ((), 0)
    assert set(again.reused) == {layer.digest for layer in source.layers}
    other, _ = build(source, cache_fd=cache, checkpoint_mib=1)
    assert not other.reused


def test_a_damaged_cache_is_rebuilt(cache):
    source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"))
    _, data = build(source, cache_fd=cache)
    (name,) = os.listdir(cache)
    with open(os.open(name, os.O_RDWR, dir_fd=cache), "r+b") as file:
        file.seek(100)
        file.write(b"damage")
    result, same = build(source, cache_fd=cache)
    assert (result.reused, same) == ((), data)
    assert build(source, cache_fd=cache)[0].reused


def test_an_interrupted_build_keeps_its_layers(cache):
    source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"), (TAR, TAR, ""))
    whole = dict(source.blobs)
    source.blobs[source.layers[1].digest] = TAR[:-1000]
    with pytest.raises(LayerFormatError):
        build(source, cache_fd=cache)
    source.blobs.update(whole)
    assert build(source, cache_fd=cache)[0].reused == (source.layers[0].digest,)


class Kept:
    def __init__(self):
        self.data = {}
        self.layers = []

    def write(self, diff_id, offset, data):
        if offset == 0:
            self.data[diff_id] = b""
        assert offset == len(self.data[diff_id])
        self.data[diff_id] += data

    def done(self, layer):
        self.layers.append(layer)


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress, bytes])
def test_bytes_can_be_kept_on_the_way(encode):
    tar = TAR[:0] + blobs.mixed_tar(18_000_000)
    kept = Kept()
    result, _ = build(blobs.source_of((tar, encode(tar), "+gzip")), keep=kept)
    assert kept.data == {blobs.sha(tar): tar}
    assert kept.layers == list(result.layers)


def test_progress_ends_at_the_size():
    seen = []
    blob = gzip.compress(SMALL)
    build(
        blobs.source_of((SMALL, blob, "+gzip")),
        progress=lambda *report: seen.append(report),
    )
    assert seen[-1] == (blobs.sha(blob), len(blob), len(blob))


def damaged(blob: bytes, place: int) -> bytes:
    return blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]


ENCODE = pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress, bytes])


@ENCODE
def test_a_damaged_blob(encode):
    source = blobs.source_of((TAR, encode(TAR), "+gzip"))
    (digest,) = source.blobs
    for place in (0, 20, len(source.blobs[digest]) // 2, len(source.blobs[digest]) - 1):
        broken = blobs.source_of((TAR, encode(TAR), "+gzip"))
        (digest,) = broken.blobs
        broken.blobs[digest] = damaged(source.blobs[next(iter(source.blobs))], place)
        with pytest.raises(DigestMismatch):
            build(broken)


@ENCODE
@pytest.mark.parametrize("change", [lambda blob: blob[:-1], lambda blob: blob + b"x"])
def test_a_blob_of_another_length(encode, change):
    source = blobs.source_of((SMALL, encode(SMALL), "+gzip"))
    (digest,) = source.blobs
    source.blobs[digest] = change(source.blobs[digest])
    with pytest.raises(LayerFormatError, match="bytes instead of"):
        build(source)


@ENCODE
def test_a_layer_that_was_pushed_cut_short(encode):
    blob = encode(TAR)[:-2000]
    with pytest.raises((LayerFormatError, DigestMismatch)):
        build(blobs.source_of((TAR, blob, "+gzip")))


def test_a_wrong_diff_id(cache):
    source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"))
    source.diff_ids[0] = blobs.sha(b"another")
    kept = Kept()
    with pytest.raises(DigestMismatch, match="diff_id"):
        build(source, cache_fd=cache, keep=kept)
    assert (os.listdir(cache), kept.layers) == ([], [])


def test_a_registry_that_goes_away():
    source = blobs.source_of((TAR, gzip.compress(TAR, 1), "+gzip"))
    whole = source.stream

    def stream(digest, size, start=0):
        for number, piece in enumerate(whole(digest, size)):
            if number == 20:
                raise RegistryUnreachable("gone")
            yield piece

    source.stream = stream
    with pytest.raises(RegistryUnreachable):
        build(source)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.in-toto+json",
    ],
)
def test_layers_we_cannot_use_are_refused_before_anything_is_fetched(media_type):
    layer = (SMALL, gzip.compress(SMALL), "+gzip")
    source = blobs.source_of(layer, layer)
    source.layers[1].media_type = media_type
    with pytest.raises(LayerFormatError):
        build(source)
    assert not source.streamed


def test_no_threads_and_no_descriptors_are_left():
    before = (threading.active_count(), len(os.listdir("/proc/self/fd")))
    build(blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip")))
    with pytest.raises(DigestMismatch):
        source = blobs.source_of((SMALL, gzip.compress(SMALL), "+gzip"))
        source.diff_ids[0] = blobs.sha(b"another")
        build(source)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_no_threads_outlive_the_error_of_a_layer_that_is_no_archive():
    before = threading.active_count()
    junk = b"no tar header" * 400_000
    with pytest.raises(LayerFormatError, match="tar header") as caught:
        build(blobs.source_of((junk, gzip.compress(junk), "+gzip")))
    assert threading.active_count() == before, caught  # while the traceback holds its frames


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress, bytes])
def test_a_bomb_stops_at_the_limit(encode, cache):
    tar = blobs.tar_of({"zeros": bytes(64 << 20)})
    source = blobs.source_of((tar, encode(tar), "+gzip"))
    kept = Kept()
    with pytest.raises(LayerFormatError, match="more than 20000000 bytes") as caught:
        build(source, cache_fd=cache, keep=kept, layer_size_limit=20_000_000)
    assert "layer_size_limit" in caught.value.hint
    # nothing at all, when the writer's thread had no turn before the limit was reached
    assert len(kept.data.get(blobs.sha(tar), b"")) <= 20_000_000
    assert source.streamed == [source.layers[0].digest], "not decoded again as a stream"
    # at the limit itself; and what the cache has is no way around it
    build(source, cache_fd=cache, layer_size_limit=len(tar))
    with pytest.raises(LayerFormatError, match="more than"):
        build(source, cache_fd=cache, layer_size_limit=len(tar) - 1)


def test_neither_threads_nor_time_nor_cache_show_in_the_bytes(cache, monkeypatch):
    source = blobs.source_of(
        (TAR, gzip.compress(TAR, 6, mtime=0), "+gzip"), (SMALL, gzip.compress(SMALL), "+gzip")
    )
    first = build(source)[1]
    assert build(source, cache_fd=cache)[1] == first
    result, cached = build(source, cache_fd=cache)
    assert (len(result.reused), cached) == (2, first)
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setattr("clip_runc.images.spool._PIECE", 77_777)
    monkeypatch.setattr("clip_runc.images.gzip_source._READ", 30_007)
    monkeypatch.setattr("clip_runc.images.gzip_source._WRITE", 50_021)
    monkeypatch.setattr("clip_runc.images.gzip_cuts._SEEK", 1_009)
    monkeypatch.setattr("clip_runc.images.gzip_source._LOOK_BACK", 150_000)
    monkeypatch.setattr("clip_runc.images.gzip_cuts._WINDOWS_BEHIND", 1)
    monkeypatch.setattr("clip_runc.linux.isa_l._STEP", 1_234)
    monkeypatch.setattr("clip_runc.images.layer_scan._QUEUE", 1)
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    busy.start()  # other threads of the program, taking the GIL
    try:
        assert build(source)[1] == first
    finally:
        stop.set()
        busy.join()
