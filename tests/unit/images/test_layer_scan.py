import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import LayerFormatError
from clip_runc.images.layer_scan import LayerScan
from clip_runc.index.checkpoints import Cut
from clip_runc.index.chunk_hash import BLAKE3, hash_of
from clip_runc.index.tar import TarScanner
from tests.unit.images.blobs import sha, tar_of

TAR = tar_of({"a": b"x" * 3000, "b/c": b"", "d": bytes(9000)})


@given(
    step=st.integers(1, 5000),
    places=st.sets(st.integers(1, len(TAR) - 1), max_size=8),
)
@settings(deadline=None, max_examples=50)
def test_chunks_do_not_depend_on_the_pieces(step, places):
    cuts = [Cut(raw, raw * 3) for raw in sorted({0, *places})]
    kept = bytearray(len(TAR))

    def sink(offset, data):
        kept[offset : offset + len(data)] = data

    with LayerScan(sink) as scan:
        for start in range(0, len(TAR), step):
            piece = memoryview(TAR)[start : start + step]
            scan.feed(piece, [cut for cut in cuts if start <= cut.raw < start + len(piece)])
        scan.finish()

    ends = [cut.raw for cut in cuts[1:]] + [len(TAR)]
    assert [piece.cut for piece in scan.pieces] == cuts
    assert [piece.raw_end for piece in scan.pieces] == ends
    for piece in scan.pieces:
        part = TAR[piece.cut.raw : piece.raw_end]
        assert piece.hash == hash_of(BLAKE3, part)
    assert scan.diff_id == sha(TAR)
    assert scan.raw_size == len(TAR)
    assert kept == TAR
    scanner = TarScanner()
    scanner.feed(TAR)
    assert scan.entries == scanner.close()


def test_what_the_thread_meets_is_raised_where_bytes_are_fed():
    with LayerScan() as scan, pytest.raises(LayerFormatError):
        for _ in range(100):
            scan.feed(b"no tar at all " * 100, [])
    with LayerScan() as scan:
        scan.feed(TAR[:700], [Cut(0, 0)])
        with pytest.raises(LayerFormatError, match="middle of a member"):
            scan.finish()


def test_a_sink_that_fails():
    def full(offset, data):
        raise OSError(28, "No space left on device")

    with LayerScan(full) as scan:
        scan.feed(TAR, [Cut(0, 0)])
        with pytest.raises(OSError, match="No space"):
            scan.finish()


def test_leaving_early_ends_the_thread():
    with pytest.raises(KeyError), LayerScan() as scan:
        scan.feed(TAR, [])
        raise KeyError
    assert not [
        thread for thread in threading.enumerate() if thread.name in ("clip-scan", "clip-keep")
    ]
