"""A whole machine: Debian 13 with its own kernel, systemd, containerd and podman, by qemu.

The other releases and what takes longer: ``tests/kernels``.
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.prerequisites import need
from tests.kernels import data, matrix
from tests.kernels.roots import RELEASES


def test_debian_13(scratch: Path) -> None:
    """The root is made where the cache has none."""
    need("root", *matrix.NEEDED)
    place = scratch / "guest"
    place.mkdir()
    release = RELEASES["debian13"]
    disk = data.data_disk(place)
    reports = []
    for report in matrix.guest(release, disk, place, memory=1536):
        print(matrix.show(release, report), flush=True)
        reports.append(report)
    assert [one["text"] for one in reports if not one["ok"]] == []
    checked = [one["check"] for one in reports]
    assert checked[:2] == ["root", "boot"] and checked[-2:] == ["teardown", "machine"]
