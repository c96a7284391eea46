"""Which file system a path is on, and where overlay layers must not be put."""

from __future__ import annotations

import os

from clip_runc.errors import StorageRefused
from clip_runc.linux import syscalls

# what statfs(2) calls them: include/uapi/linux/magic.h
_MAGIC = {
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0x65735546: "fuse",
    0x6969: "nfs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x9FA0: "proc",
    0x62656572: "sysfs",
    0x63677270: "cgroup2",
    0x27E0EB: "cgroup",
    0xCA451A4E: "bcachefs",
    0x01021997: "9p",
}
_EXT4 = "/proc/fs/ext4"
_SECTOR = 512
_UNSUITABLE = ("tmpfs", "ramfs", "overlay")


def filesystem_type(path: str) -> str:
    """The type of the file system that ``path`` is on ("ext4", "tmpfs", …); hex if unknown."""
    magic = syscalls.statfs_type(os.fsencode(path))
    return _MAGIC.get(magic, hex(magic))


def keeps_order(path: str) -> bool:
    """Is a file's data on disk before the name that it took over from another is?

    After a power cut the name then leads to either file, whole.  So it is with ext4 unless it was
    mounted with ``noauto_da_alloc`` or ``data=writeback`` (ext4(5)); one without a journal promises
    nothing in either case.  What its options are, all of them, stands in /proc/fs/ext4.
    """
    try:
        if filesystem_type(path) != "ext4":
            return False
        device = os.stat(path).st_dev
        block = os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
        options = _lines(f"{_EXT4}/{os.path.basename(block)}/options")
    except OSError:
        return False
    return b"auto_da_alloc" in options and b"data=writeback" not in options


def _lines(path: str) -> list[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 1 << 14).split()
    finally:
        os.close(fd)


def refuse_unsuitable(path: str) -> None:
    """Raise ``StorageRefused`` where ``path`` is on memory or on another overlay.

    A directory that does not exist yet is judged by the nearest ancestor that does.
    """
    existing = os.path.realpath(path)
    while not os.path.lexists(existing) and existing != "/":
        existing = os.path.dirname(existing)
    try:
        kind = filesystem_type(existing)
    except OSError as error:
        raise StorageRefused(
            f"{path}: {error.strerror}", "use a directory on a local disk"
        ) from None
    if kind in _UNSUITABLE:
        raise StorageRefused(
            f"{path} is on {kind}",
            "overlay layers need persistent storage such as /var/lib/clip on ext4 or xfs, never"
            " /dev/shm or another tmpfs, and not another overlay; set state_dir accordingly",
        )


def reads_sectors(path: str) -> bool:
    """Can the file be read in units of 512 bytes past the page cache (``O_DIRECT``)?

    Not on a disk with sectors of 4 KiB, nor on a file system that knows no such reads.
    """
    import mmap

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page, memoryview(page) as view:
            os.preadv(fd, [view[:_SECTOR]], _SECTOR)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
