"""Stub images on the node: an index inside the bundle's own root filesystem.

Whoever made the image put the index there, so it may say of itself what it likes.  It is kept
apart from the indexes that this machine made or pulled (``adding.add_open``, ``private``) and is
found through the file alone, never by the name or digest of the image that it claims to be.
"""

from __future__ import annotations

import os
import stat

from clip_runc.images import local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.images.local import LocalImage

DIRECTORY, FILE = ".clip", "index.clip"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LIMIT = 1 << 30


def find(settings: Settings, root: str) -> LocalImage | None:
    """The image of the index in the root filesystem ``root``, kept from now on; None without one.

    Each component is opened in the one before and no link is followed, so nothing outside of
    ``root`` can be meant.  What others than root may write is passed over.  Raises
    ``IndexFormatError`` for a damaged index.
    """
    fd = _open(root)
    if fd is None:
        return None
    try:
        status = os.fstat(fd)
        # The kernel's own time of unpacking: no image can choose it.  Without st_dev, which is
        # another for each overlay mount of the same layers.
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        alias = f"stub:{status.st_ino} {status.st_size} {times}"
        image = local.find_alias(settings, alias)
        if image is None:
            from clip_runc.images.adding import add_open

            path = f"{root}/{DIRECTORY}/{FILE}"
            image = add_open(settings, fd, path, aliases=[alias], private=True)
        return image
    finally:
        os.close(fd)


def _open(root: str) -> int | None:
    held: list[int] = []
    try:
        held.append(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        held.append(os.open(DIRECTORY, os.O_PATH | os.O_DIRECTORY | _FLAGS, dir_fd=held[0]))
        fd = os.open(FILE, _FLAGS, dir_fd=held[1])
        held.append(fd)
        status = os.fstat(fd)
        ours = all(_is_roots(os.fstat(one)) for one in held)
        if ours and stat.S_ISREG(status.st_mode) and status.st_size <= _LIMIT:
            held.remove(fd)
            return fd
    except OSError:
        return None
    finally:
        for one in held:
            os.close(one)
    return None


def _is_roots(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
