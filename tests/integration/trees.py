"""What a directory tree holds, as a value that two trees can be compared by."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.integration.image_maker import Image


class Seen(NamedTuple):
    """One file as a container sees it; ``content`` is a symlink's target or a file's sha256."""

    mode: int
    uid: int
    gid: int
    mtime: int
    rdev: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]


def snapshot(root: Path, *, content: bool = True) -> dict[str, Seen]:
    """Every file below ``root`` by its path relative to it; ``content`` reads them all."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory) / name
            found[str(path.relative_to(root))] = look(path, content=content)
    return found


def look(path: Path, *, content: bool = True) -> Seen:
    """One file, not following symlinks."""
    status = path.lstat()
    text = ""
    if stat.S_ISLNK(status.st_mode):
        text = str(path.readlink())
    elif stat.S_ISREG(status.st_mode) and content:
        with path.open("rb") as file:
            text = hashlib.file_digest(file, "sha256").hexdigest()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    return Seen(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        int(status.st_mtime),
        status.st_rdev,
        text,
        xattrs,
    )


def difference(seen: dict[str, Seen], wanted: dict[str, Seen]) -> list[str]:
    """What differs, in words; a directory's time is left out, which unpacking does not keep."""
    lines = [f"{path} is missing" for path in sorted(wanted.keys() - seen.keys())]
    lines += [f"{path} should not be there" for path in sorted(seen.keys() - wanted.keys())]
    for path in sorted(seen.keys() & wanted.keys()):
        left, right = seen[path], wanted[path]
        if stat.S_ISDIR(left.mode):
            left, right = left._replace(mtime=0), right._replace(mtime=0)
        if left != right:
            lines.append(f"{path}: {left} is not {right}")
    return lines


def unpack(image: Image, directory: Path) -> Path:
    """The image unpacked by umoci, which is not ours: what a container must see."""
    bundle = directory / "unpacked"
    if not bundle.exists():
        subprocess.run(
            ["umoci", "unpack", "--image", f"{image.layout}:latest", str(bundle)],
            check=True, capture_output=True,
        )  # fmt: skip
    return bundle / "rootfs"
