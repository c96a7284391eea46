"""A server killed with SIGKILL at random moments: whatever is on disk, no byte is wrong."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

SIZE = 4_000_000


def fill_for_ever(bench, layer, blob, seed):
    """What the child does until it is killed."""
    rng = random.Random(seed)
    reader = bench.open(layer, bench.MemoryFetcher(blob))
    while True:
        at = rng.randrange(SIZE)
        reader.request(at, 100_000).result(10)


@pytest.mark.parametrize("reboot", [False, True])
def test_no_wrong_byte_after_sigkill(bench, reboot):
    data = bench.make_data(SIZE)
    layer, blob = bench.make_layer(data, chunk_size=16 << 10)
    rng = random.Random(7)
    for seed in range(8):
        child = os.fork()
        if child == 0:
            try:
                fill_for_ever(bench, layer, blob, seed)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        fetcher = bench.MemoryFetcher(blob)
        reader = bench.open(layer, fetcher, bench.OTHER_BOOT if reboot else bench.BOOT)
        for _ in range(40):
            at = rng.randrange(SIZE)
            cached = reader.read_cached(at, 5000)
            assert cached is None or cached == data[at : at + 5000]
            assert reader.request(at, 5000).result(10) == data[at : at + 5000]
        bench.close()
    assert bench.open(layer, bench.MemoryFetcher(blob)).request(0, SIZE).result(20) == data
