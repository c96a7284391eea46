"""CPU seconds of writing a layer's file; see bench/store_write."""

from __future__ import annotations

import argparse
import math
import os
import resource
import statistics
import tempfile
import time
from unittest import mock

from clip_runc.linux import direct_io

WAYS = {"past the page cache": 0, "through it": math.inf}
"""``SLOWEST`` for each: no disk is too slow, every one is from the second piece on."""


def once(mib: int, slowest: float) -> tuple[float, float]:
    """Seconds and CPU seconds of ``mib`` MiB."""
    data = os.urandom(1 << 20)
    patches = mock.patch.multiple(direct_io, SLOWEST=slowest, _TRIED=1)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="clip-bench-") as path, patches:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        file = direct_io.SequentialFile(fd)
        before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        for _ in range(mib):
            file.append(data)
        file.finish()
        took, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
        file.close()
        os.close(fd)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return took, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, slowest in WAYS.items():
            found[way].append(once(options.mib, slowest))
    for way, samples in found.items():
        took, cpu = (statistics.median(column) for column in zip(*samples, strict=True))
        print(f"{options.mib} MiB {way:<20} {took:6.2f} s, {cpu:.2f} of CPU")


if __name__ == "__main__":
    main()
