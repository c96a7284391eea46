"""A fresh ext4 in a file, for trees that the disk below the tests cannot hold."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ext4(place: Path, *, gib: int, inodes: int) -> Iterator[Path]:
    """Mount one at ``place``; its xattrs may be as large as Linux allows (``ea_inode``)."""
    device = place.with_suffix(".ext4")
    place.mkdir()
    with device.open("wb") as file:
        file.truncate(gib << 30)
    options = ["-q", "-F", "-m", "0", "-N", str(inodes), "-O", "ea_inode,^has_journal"]
    subprocess.run(["mkfs.ext4", *options, device], check=True)
    subprocess.run(["mount", "-o", "loop,noatime", device, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        device.unlink()
