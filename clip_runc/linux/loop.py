"""Read-only loop devices over files, for kernels whose EROFS wants block devices."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from clip_runc.errors import MountFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# include/uapi/linux/loop.h
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LOOP_GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C05
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR, _LO_FLAGS_DIRECT_IO = 1, 4, 16
# struct loop_config: fd, block_size, struct loop_info64 {lo_device, lo_inode, lo_rdevice,
# lo_offset, lo_sizelimit, lo_number, lo_encrypt_type, lo_encrypt_key_size, lo_flags,
# lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init}, reserved
_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q64x")
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_DEVICES = "/sys/block"
LOOP_CONTROL = "/dev/loop-control"
_ATTEMPTS = 64
_BLOCK_SIZE = 512


class LoopDevice:
    """An open loop device; ``path`` is ``/dev/loopN``.

    The kernel gives it back (autoclear) when the last user is gone: keep the object open until
    the mount is made, then close it, and the unmount frees the device.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def close(self) -> None:
        """Let go of our descriptor; a mount on the device keeps it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> LoopDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def attach(path: str, *, direct_io: bool = False) -> LoopDevice:
    """A new read-only, autoclear loop device of 512-byte blocks over the file ``path``.

    ``direct_io`` reads past the backing file's page cache where its file system can.
    Raises ``MountFailed``.
    """
    try:
        backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(path, error) from None
    try:
        return _attach(backing, path, _LO_FLAGS_DIRECT_IO if direct_io else 0)
    except OSError as error:
        raise _failure(path, error) from None
    finally:
        os.close(backing)


def share(path: str) -> LoopDevice:
    """A device over the file ``path`` that is there already, made by ``attach``, or a new one.

    EROFS opens further devices with its own type as holder, so any number of its mounts may have
    one (the first device, with the metadata, belongs to one mount).  Raises ``MountFailed``.
    """
    try:
        found = os.stat(path)
        names = sorted(os.listdir(_DEVICES))
    except OSError:
        return attach(path)
    for name in names:
        if name.startswith("loop") and os.path.exists(f"{_DEVICES}/{name}/loop/backing_file"):
            device = _is_over(f"/dev/{name}", found)
            if device is not None:
                return device
    return attach(path)


def _is_over(device: str, file: os.stat_result) -> LoopDevice | None:
    """The device, open, if it is over this very file and as ``attach`` makes them.

    What is open is not cleared, so what is seen stays so.
    """
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_INFO.size))
    except OSError:
        os.close(fd)
        return None
    number, inode, _, offset, limit, _, _, _, flags, *_ = _INFO.unpack(info)
    wanted = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR
    same = (os.major(number), os.minor(number), inode) == (
        os.major(file.st_dev), os.minor(file.st_dev), file.st_ino,
    )  # fmt: skip
    if (
        same
        and flags & wanted == wanted
        and not flags & _LO_FLAGS_DIRECT_IO
        and offset == 0 == limit
    ):
        return LoopDevice(device, fd)
    os.close(fd)
    return None


def _attach(backing: int, name: str, extra: int) -> LoopDevice:
    flags = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR | extra
    config = _CONFIG.pack(
        backing, _BLOCK_SIZE, 0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(name)[-63:], b"", b"", 0, 0
    )
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = f"/dev/loop{number}"
            _ensure_node(device, number)
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
                return LoopDevice(device, fd)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # somebody else was given the same number
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, f"no free loop device in {_ATTEMPTS} attempts")


def _ensure_node(device: str, number: int) -> None:
    """Make the node where no udev does (a container with /dev of its own)."""
    if not os.path.exists(device):
        try:
            os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(7, number))
        except FileExistsError:
            return


_MODULE = "the loop module is not loaded: modprobe loop; in a container, give it the devices"


def _failure(path: str, error: OSError) -> MountFailed:
    # the file, /dev/loop-control or the node of a device
    at = str(error.filename or path)
    missing = "the file does not exist" if at == path else _MODULE
    hint = {
        errno.ENOENT: missing,
        errno.EPERM: f"loop devices need root; in a container, {LOOP_CONTROL} and /dev/loop*",
        errno.EINVAL: "LOOP_CONFIGURE needs Linux 5.8",
        errno.ENOTTY: "LOOP_CONFIGURE needs Linux 5.8",
        errno.ENOSPC: "all loop devices are in use, and no more can be made: losetup -a lists them",
        errno.ENODEV: _MODULE,
        errno.ENXIO: _MODULE,
    }.get(error.errno or 0, "losetup -a shows the devices in use")
    where = "" if at == path else f"{at}: "
    return MountFailed(f"loop device over {path}: {where}{error.strerror}", hint, error.errno or 0)
