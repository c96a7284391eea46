"""Idmapped mounts: the owners of a file system as a user namespace has to see them (Linux 5.12).

The mount translates; nothing on disk changes and nothing is copied.  EROFS can be mounted so, FUSE
since Linux 6.12 (its server is asked whether it minds), and overlayfs takes such a mount as its
lower layer (Linux 5.19).
"""

from __future__ import annotations

import errno
import os
import sys

from clip_runc.errors import MountFailed
from clip_runc.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_CLONE_NEWUSER = 0x10000000
# include/uapi/linux/mount.h, fcntl.h
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOUNT_ATTR_IDMAP = 0x00100000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_HINT = "a user namespace needs Linux 5.19, layer_mode tree Linux 6.12 (clipctl doctor)"


class UserNamespace:
    """What the ids of a user namespace are outside of it.

    Either ``path`` names one that exists, or ``uids`` and ``gids`` have lines for
    ``/proc/PID/uid_map``: first id inside, first id outside, how many.
    """

    __slots__ = ("gids", "path", "uids")

    def __init__(self, uids: str = "", gids: str = "", path: str = "") -> None:
        self.uids = uids
        self.gids = gids
        self.path = path

    def open(self) -> int:
        """A descriptor of the namespace.  Raises ``OSError``."""
        if self.path:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return _make(self.uids, self.gids)

    def is_ours(self) -> bool:
        """Is it the one that we are in, where there is nothing to translate?"""
        if not self.path:
            return False
        try:
            return os.path.samefile(self.path, "/proc/self/ns/user")
        except OSError:
            return False


def _make(uids: str, gids: str) -> int:
    """A new namespace, which lives as long as its descriptor.

    A process has to be in it while it gets its maps: forked, so this is for programs of one
    thread.
    """
    ours, theirs = os.pipe()
    until, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        _live_in_new(theirs, until)
    os.close(theirs)
    os.close(until)
    try:
        code = os.read(ours, 16)
        if code != b"0":
            number = int(code or errno.EIO)
            raise OSError(number, f"a user namespace cannot be made: {os.strerror(number)}")
        _put(f"/proc/{child}/uid_map", uids)
        _put(f"/proc/{child}/gid_map", gids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ours)
        os.close(end)
        os.waitpid(child, 0)


def _live_in_new(tell: int, until: int) -> NoReturn:
    """In the child: be in a new user namespace until the other end of ``until`` is closed."""
    try:
        code = 0
        try:
            syscalls.unshare(_CLONE_NEWUSER)
        except OSError as error:
            code = error.errno or errno.EIO
        os.write(tell, str(code).encode())
        os.read(until, 1)
    finally:
        os._exit(0)


def _put(path: str, lines: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, lines.encode())
    except OSError as error:
        raise OSError(
            error.errno, f"{lines.strip()!r} is no map of ids: {error.strerror}"
        ) from None
    finally:
        os.close(fd)


def mount_idmapped(source: str, target: str, namespace: UserNamespace) -> None:
    """Show the directory ``source`` at ``target`` with owners as ``namespace`` translates them.

    Raises ``MountFailed``; nothing is mounted then.
    """
    try:
        handle = namespace.open()
    except OSError as error:
        message = f"user namespace of the container: {error.strerror}"
        hint = "linux.uidMappings, linux.gidMappings and linux.namespaces of config.json"
        raise MountFailed(message, hint, error.errno or 0) from None
    try:
        _mount(source, target, handle)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        message = f"idmapped mount of {source}: {reason} [{name}]"
        raise MountFailed(message, _HINT, error.errno or 0) from None
    finally:
        os.close(handle)


def _mount(source: str, target: str, namespace: int) -> None:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    tree = syscalls.syscall("open_tree", _AT_FDCWD, os.fsencode(source), flags)
    try:
        # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
        values = (_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        attributes = b"".join(value.to_bytes(8, sys.byteorder) for value in values)
        syscalls.syscall("mount_setattr", tree, b"", _AT_EMPTY_PATH, attributes, len(attributes))
        at = os.fsencode(target)
        syscalls.syscall("move_mount", tree, b"", _AT_FDCWD, at, _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
