import hashlib
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.index.layer_index import LayerIndex, cache_name, pack, unpack
from clip_runc.index.model import Chunk, Entry, Extent, Layer

DIGEST = "sha256:" + "1" * 64
NAME = st.binary(max_size=20)

ENTRIES = st.builds(
    Entry,
    path=NAME,
    kind=st.sampled_from([0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 1 << 32),
    gid=st.integers(0, 1 << 32),
    size=st.integers(0, 1 << 62),
    mtime_ns=st.integers(-(1 << 62), 1 << 62),
    link=NAME,
    rdev=st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
    xattrs=st.lists(st.tuples(NAME, NAME), max_size=3).map(tuple),
    extents=st.lists(st.builds(Extent, *[st.integers(-9, 1 << 40)] * 3), max_size=3).map(tuple),
    literal=NAME,
)


def index_of(entries, windows=b"windows"):
    chunk = Chunk(0, 10, 20, 30, hashlib.sha256(b"x").digest(), 5, (0, 7))
    layer = Layer(DIGEST, "sha256:" + "2" * 64, "type", "gzip", "gzip", 30, 10, (chunk,))
    return LayerIndex(layer, tuple(entries), windows)


@given(st.lists(ENTRIES, max_size=5), st.binary(max_size=50))
@settings(deadline=None)
def test_round_trip(entries, windows):
    index = index_of(entries, windows)
    assert unpack(pack(index, 2), DIGEST, 2) == index


@given(st.data())
@settings(deadline=None)
def test_damage(data):
    good = pack(index_of([Entry(b"a", stat.S_IFREG)]), 2)
    bad = bytearray(good)
    place = data.draw(st.integers(0, len(good) - 1))
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    for candidate in (bytes(bad), good[:place]):
        with pytest.raises(IndexFormatError):
            unpack(candidate, DIGEST, 2)


def test_of_another_layer_or_with_other_checkpoints():
    good = pack(index_of([]), 2)
    with pytest.raises(IndexFormatError):
        unpack(good, "sha256:" + "3" * 64, 2)
    with pytest.raises(IndexFormatError):
        unpack(good, DIGEST, 4)
    assert cache_name(DIGEST, 2) != cache_name(DIGEST, 4)
    assert "/" not in cache_name(DIGEST, 2)
