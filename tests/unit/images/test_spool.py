import os
import threading
import time

import pytest

from clip_runc.errors import DigestMismatch, LayerFormatError, RegistryUnreachable, StoreError
from clip_runc.images.spool import AHEAD, BEHIND, Spool
from tests.unit.images.blobs import sha

DATA = os.urandom(300_000)


def pieces(data=DATA, step=7001):
    for place in range(0, len(data), step):
        yield data[place : place + step]


def test_the_blob_comes_through():
    with Spool(pieces(), sha(DATA), len(DATA)) as spool:
        assert b"".join(spool.pieces()) == DATA
        assert spool.read_at(len(DATA), 50) == b""


def test_reads_wait_for_their_bytes():
    gate = threading.Event()

    def slowly():
        yield DATA[:1000]
        gate.wait(10)
        yield DATA[1000:]

    with Spool(slowly(), sha(DATA), len(DATA)) as spool:
        assert spool.read_at(0, 5000) == DATA[:1000]
        threading.Timer(0.05, gate.set).start()
        assert spool.bytes_at(500, 2000) == DATA[500:2500]
        assert spool.bytes_at(2500, len(DATA)) == DATA[2500:]
        assert spool.bytes_at(0, 0) == b""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (DATA[:-1], LayerFormatError),
        (DATA + b"x", LayerFormatError),
        (b"", LayerFormatError),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), DigestMismatch),
    ],
)
def test_what_is_not_the_blob(data, error):
    with Spool(pieces(data), sha(DATA), len(DATA)) as spool, pytest.raises(error):
        spool.check()


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (RegistryUnreachable("gone"), RegistryUnreachable),
        (OSError(28, "No space left on device"), StoreError),
        (ZeroDivisionError("a fault of ours"), StoreError),
    ],
)
def test_failures_reach_the_reader(failure, error):
    def breaking():
        yield DATA[:1000]
        raise failure

    with Spool(breaking(), sha(DATA), len(DATA)) as spool:
        assert spool.bytes_at(0, 5000) == DATA[:1000]
        with pytest.raises(error):
            list(spool.pieces())


def test_leaving_early_stops_the_download():
    def endless():
        while True:
            yield bytes(1000)

    with Spool(endless(), sha(DATA), 1 << 50) as spool:
        assert spool.read_at(0, 10) == bytes(10)
    assert not [t for t in threading.enumerate() if t.name == "clip-spool"]


def test_what_lies_near_can_be_read_again():
    data = os.urandom(BEHIND + 3_000_000)
    with Spool(pieces(data, 100_003), sha(data), len(data)) as spool:
        assert spool.bytes_at(0, len(data)) == data
        place = len(data) - BEHIND + 1000
        assert spool.bytes_at(place, len(data) - place) == data[place:]
        assert spool.read_at(0, 10) == b"", "that was let go"
        spool.check()


def test_no_more_is_received_than_a_reader_needs():
    taken = threading.Semaphore(0)

    def counted():
        for piece in pieces(bytes(BEHIND + 4 * AHEAD), 100_000):
            taken.release()
            yield piece

    with Spool(counted(), "", BEHIND + 4 * AHEAD) as spool:
        assert spool.read_at(0, 10) == bytes(10)
        end = time.monotonic() + 20
        while spool.received < AHEAD and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        assert AHEAD <= spool.received < AHEAD + 200_000
        held = sum(map(len, spool._held))
        for place in range(0, spool.size, 50_000):
            assert spool.read_at(place, 1)
            held = max(held, sum(map(len, list(spool._held))))
        assert held <= BEHIND + AHEAD + (2 << 20)
        with pytest.raises(DigestMismatch):
            spool.check()


def test_a_check_need_not_wait():
    gate = threading.Event()

    def slowly():
        yield DATA[:1000]
        gate.wait(20)

    with Spool(slowly(), sha(DATA), len(DATA)) as spool:
        assert spool.read_at(0, 10)
        spool.check(wait=False)
        gate.set()
        with pytest.raises(LayerFormatError, match="1000 bytes instead of"):
            spool.check()
