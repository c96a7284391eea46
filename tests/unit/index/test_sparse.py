"""Placing segments; the formats as a whole are in test_tar."""

from __future__ import annotations

import pytest

from clip_runc.errors import LayerFormatError
from clip_runc.index import pax, sparse
from clip_runc.index.model import Extent


def test_aligned_segments_need_no_bytes() -> None:
    steps = sparse.Placer(10_000, 0).place([(0, 1024), (9728, 272)], 5120)
    assert next(steps) == -1024
    assert steps.send(b"") == -272
    with pytest.raises(StopIteration) as end:
        steps.send(b"")
    assert end.value.value == ((Extent(0, 5120, 1024), Extent(9728, 6144, 272)), b"")


def test_a_tail_before_a_hole_is_kept() -> None:
    # the padding of the archive behind it would be seen in the file
    steps = sparse.Placer(10_000, 4096).place([(0, 600)], 512)
    assert next(steps) == -512
    assert steps.send(b"") == 88
    with pytest.raises(StopIteration) as end:
        steps.send(b"y" * 88)
    extents, literal = end.value.value
    assert extents == (Extent(0, 512, 512), Extent(512, ~0, 512))
    assert literal == b"y" * 88 + bytes(424)


def test_a_map_must_be_what_is_stored() -> None:
    assert sparse.checked([(0, 5), (9, 0)], 9, 5, 0) == [(0, 5)]
    for segments, size, stored in (([(0, 5)], 9, 6), ([(0, -1)], 9, -1), ([(5, 5)], 9, 5)):
        with pytest.raises(LayerFormatError):
            sparse.checked(segments, size, stored, 0)


def test_an_odd_map_is_refused() -> None:
    with pytest.raises(LayerFormatError, match="odd"):
        sparse.pax_segments(pax.Records({b"GNU.sparse.map": b"1,2,3"}), 0)
    assert sparse.pax_segments(pax.Records({}), 0) is None
