"""Read-ahead of a file system, which sysfs has by the name of its backing device (bdi).

FUSE names it after ``st_dev``.  EROFS on files gets a name with a number that nothing tells
(fs/super.c, super_setup_bdi), so it is the one that a mount has added.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_DIRECTORY = "/sys/class/bdi"


def set_read_ahead(name: str, kib: int) -> bool:
    """Set the read-ahead of the backing device ``name``; False where sysfs says no."""
    try:
        fd = os.open(f"{_DIRECTORY}/{name}/read_ahead_kb", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, str(kib).encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def of_erofs() -> set[str]:
    """The names of all that EROFS has now."""
    try:
        return {name for name in os.listdir(_DIRECTORY) if name.startswith("erofs-")}
    except OSError:
        return set()


def set_of_added(before: Iterable[str], kib: int) -> bool:
    """Set the read-ahead of the one EROFS that was not there ``before``; False for none, or two."""
    added = of_erofs().difference(before)
    return len(added) == 1 and set_read_ahead(added.pop(), kib)
