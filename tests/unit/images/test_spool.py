import os
import threading

import pytest

from clip_runc.errors import DigestMismatch, LayerFormatError, RegistryUnreachable, StoreError
from clip_runc.images.spool import Spool
from tests.unit.images.blobs import sha

DATA = os.urandom(300_000)


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)
    assert os.listdir(tmp_path) == []


def pieces(data=DATA, step=7001):
    for place in range(0, len(data), step):
        yield data[place : place + step]


def test_the_blob_comes_through(directory):
    with Spool(pieces(), sha(DATA), len(DATA), directory) as spool:
        assert b"".join(spool.pieces()) == DATA
        assert spool.read_at(100, 50) == DATA[100:150]
        assert spool.read_at(len(DATA), 50) == b""


def test_reads_wait_for_their_bytes(directory):
    gate = threading.Event()

    def slowly():
        yield DATA[:1000]
        gate.wait(10)
        yield DATA[1000:]

    with Spool(slowly(), sha(DATA), len(DATA), directory) as spool:
        assert spool.read_at(0, 5000) == DATA[:1000]
        threading.Timer(0.05, gate.set).start()
        file = spool.file()
        assert file.seek(0, 2) == len(DATA)
        file.seek(500)
        assert file.read(2000) == DATA[500:2500]
        assert file.tell() == 2500
        assert file.read() == DATA[2500:]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (DATA[:-1], LayerFormatError),
        (DATA + b"x", LayerFormatError),
        (b"", LayerFormatError),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), DigestMismatch),
    ],
)
def test_what_is_not_the_blob(data, error, directory):
    with Spool(pieces(data), sha(DATA), len(DATA), directory) as spool, pytest.raises(error):
        spool.check()


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (RegistryUnreachable("gone"), RegistryUnreachable),
        (OSError(28, "No space left on device"), StoreError),
        (ZeroDivisionError("a fault of ours"), StoreError),
    ],
)
def test_failures_reach_the_reader(failure, error, directory):
    def breaking():
        yield DATA[:1000]
        raise failure

    with Spool(breaking(), sha(DATA), len(DATA), directory) as spool:
        assert spool.file().read() == DATA[:1000]
        with pytest.raises(error):
            list(spool.pieces())


def test_leaving_early_stops_the_download(directory):
    def endless():
        while True:
            yield bytes(1000)

    with Spool(endless(), sha(DATA), 1 << 50, directory) as spool:
        assert spool.read_at(0, 10) == bytes(10)
    assert not [t for t in threading.enumerate() if t.name == "clip-spool"]


def test_a_directory_that_cannot_be_written(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.rmdir(tmp_path)
    with pytest.raises(StoreError):
        Spool(pieces(), sha(DATA), len(DATA), descriptor)
    os.close(descriptor)
