import os

import pytest

from clip_runc.images import layer_cache
from clip_runc.index.layer_index import LayerIndex, cache_name
from clip_runc.index.model import Chunk, Layer

DIGEST = "sha256:" + "1" * 64


def index_of(window=(0, 7)) -> LayerIndex:
    chunk = Chunk(0, 10, 20, 30, bytes(32), 5, window)
    layer = Layer(DIGEST, "sha256:" + "2" * 64, "type", "gzip", "gzip", 30, 10, (chunk,))
    return LayerIndex(layer, (), b"windows")


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_what_is_saved_is_found(directory):
    assert layer_cache.load(directory, DIGEST, 2) is None
    layer_cache.save(directory, index_of(), 2)
    assert layer_cache.load(directory, DIGEST, 2) == index_of()
    assert layer_cache.load(directory, DIGEST, 1) is None
    assert os.listdir(directory) == [cache_name(DIGEST, 2)]


def test_no_cache():
    layer_cache.save(None, index_of(), 2)
    assert layer_cache.load(None, DIGEST, 2) is None


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_damage_is_removed(content, directory, tmp_path):
    path = tmp_path / cache_name(DIGEST, 2)
    path.write_bytes(content)
    assert layer_cache.load(directory, DIGEST, 2) is None
    assert not path.exists()


def test_chunks_beyond_their_bounds_are_not_believed(directory):
    layer_cache.save(directory, index_of(window=(0, 8)), 2)
    assert layer_cache.load(directory, DIGEST, 2) is None


def test_a_link_in_the_cache_is_not_followed(directory, tmp_path):
    layer_cache.save(directory, index_of(), 2)
    path = tmp_path / cache_name(DIGEST, 2)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert layer_cache.load(directory, DIGEST, 2) is None


def test_a_directory_that_cannot_be_written_costs_nothing(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    descriptor = os.open(gone, os.O_RDONLY)
    gone.rmdir()
    layer_cache.save(descriptor, index_of(), 2)
    assert layer_cache.load(descriptor, DIGEST, 2) is None
    os.close(descriptor)
