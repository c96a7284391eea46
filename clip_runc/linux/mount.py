"""Mounts: overlay, EROFS and FUSE, unmounting, and what is mounted now.

The new mount API (fsopen(2) and its kin) is used where the kernel has it: an image of
fifty layers does not fit into the one page of options that mount(2) takes, and the file
system context says in words what it did not like.
"""

from __future__ import annotations

import errno
import os

from clip_runc.config import is_rootless
from clip_runc.errors import MountFailed
from clip_runc.linux import syscalls
from clip_runc.linux.mountinfo import Mount, is_mountpoint, mounts
from clip_runc.linux.storage import filesystem_type, refuse_unsuitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "Mount",
    "filesystem_type",
    "is_mountpoint",
    "make_private",
    "mount_erofs",
    "mount_filesystem",
    "mount_overlay",
    "mounts",
    "refuse_unsuitable",
    "unmount",
]

# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REMOUNT = 1 << 12, 1 << 5
_MS_PRIVATE = 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_STRING_LIMIT = 255  # fsconfig(2) copies values with strndup_user(…, 256)
_PAGE_LIMIT = 4095  # mount(2) copies one page of options

_HINTS = {
    errno.EPERM: "mounting needs CAP_SYS_ADMIN over the mount namespace: be root, in a container"
    " privileged, in a user namespace with unshare --mount",
    errno.EACCES: "a device or directory on the path may not be used; check its owner and mode",
    errno.ENOENT: "a path among the options or the target does not exist",
    errno.ENOTBLK: "this kernel mounts EROFS from block devices only (files: Linux 6.12)",
    errno.EUCLEAN: "the EROFS image is damaged; index the image again",
    errno.EINVAL: "the kernel refused an option or the image; see dmesg for the reason",
    errno.ELOOP: "file systems are stacked too deep; the kernel allows two levels",
    errno.ENOTCONN: "a dead FUSE mount is on the path; unmount it with umount -l",
    errno.ENOMEM: "the kernel is out of memory",
    errno.ENOSPC: "fs.mount-max mounts are in use in this namespace; raise it with sysctl",
}


def mount_overlay(
    lower: str, upper: str, work: str, target: str, *, nosuid: bool, label: str = ""
) -> None:
    """Mount an overlay of ``upper`` over ``lower`` at ``target``; ``label`` is SELinux's context.

    ``index=off`` and ``metacopy=off``: with either on, a lower that is mounted anew between
    two starts gives "wandered into deleted directory" (Documentation/filesystems/overlayfs.rst).
    Always nodev; nosuid unless told otherwise.  Raises ``MountFailed``.
    """
    options: list[tuple[str, str | None]] = [
        ("lowerdir", _overlay_escape(lower)),
        ("upperdir", _overlay_escape(upper)),
        ("workdir", _overlay_escape(work)),
        ("index", "off"),
        ("metacopy", "off"),
    ]
    options += overlay_extras(label)
    mount_filesystem("overlay", "clip", options, target, MS_NODEV | (MS_NOSUID if nosuid else 0))


def overlay_extras(label: str) -> list[tuple[str, str | None]]:
    """SELinux's context, and where overlayfs keeps its own marks in a user namespace.

    There ``trusted.*`` xattrs cannot be set, and without any a directory that replaces another
    cannot be told from one that is merged with it (``userxattr``, Linux 5.11).
    """
    extras: list[tuple[str, str | None]] = [("context", label)] if label else []
    return [*extras, ("userxattr", None)] if is_rootless() else extras


def _overlay_escape(path: str) -> str:
    for special in "\\:,":
        path = path.replace(special, "\\" + special)
    return path


def mount_erofs(meta: str, devices: Sequence[str], target: str, *, direct: bool = False) -> None:
    """Mount the EROFS image ``meta`` with its extra ``devices`` in the order of their ids.

    Each is a regular file (Linux 6.12) or a block device.  ``direct``: files are read past their
    own page cache where this kernel can; they must be readable so (``storage.reads_sectors``).
    Raises ``MountFailed``, with errno ``ENOTBLK`` where this kernel wants block devices.
    """
    options: list[tuple[str, str | None]] = [("device", device) for device in devices]
    if direct:
        try:
            _mount_erofs([*options, ("directio", None)], meta, target)
            return
        except MountFailed as error:
            if error.errno != errno.EINVAL:
                raise
    _mount_erofs(options, meta, target)


def _mount_erofs(options: Sequence[tuple[str, str | None]], meta: str, target: str) -> None:
    mount_filesystem("erofs", meta, options, target, MS_RDONLY | MS_NODEV | MS_NOSUID)


def mount_filesystem(
    fstype: str, source: str, options: Sequence[tuple[str, str | None]], target: str, flags: int
) -> None:
    """Mount at ``target`` with ``flags`` (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC).

    ``options`` are pairs; ``None`` makes a flag of one.  Raises ``MountFailed``.
    """
    strings = [value for _, value in options if value is not None] + [source]
    if all(len(os.fsencode(value)) <= _STRING_LIMIT for value in strings):
        try:
            _mount_new(fstype, source, options, target, flags)
            return
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                raise _failure(fstype, source, target, error) from None
    try:
        _mount_old(fstype, source, options, target, flags)
    except OSError as error:
        raise _failure(fstype, source, target, error) from None


def _failure(fstype: str, source: str, target: str, error: OSError) -> MountFailed:
    code = error.errno or 0
    hint = _HINTS.get(code, "see dmesg for the kernel's reason")
    if code == errno.ENODEV:
        hint = f"the kernel has no {fstype}: modprobe {fstype}, or one with "
        hint += f"CONFIG_{fstype.upper()}_FS"
    reason = error.strerror or os.strerror(code)
    name = errno.errorcode.get(code, str(code))
    return MountFailed(f"mount {fstype} {source} at {target}: {reason} [{name}]", hint, code)


def _mount_new(
    fstype: str, source: str, options: Sequence[tuple[str, str | None]], target: str, flags: int
) -> None:
    context = syscalls.syscall("fsopen", fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        _set(context, "source", source)
        for key, value in options:
            _set(context, key, value)
        if flags & MS_RDONLY:
            _set(context, "ro", None)
        syscalls.syscall("fsconfig", context, _CMD_CREATE, None, None, 0)
        # MOUNT_ATTR_* have the values of MS_* for these four flags
        handle = syscalls.syscall("fsmount", context, _FSMOUNT_CLOEXEC, flags & 15)
    except OSError as error:
        raise OSError(error.errno, _reasons(context) or error.strerror) from None
    finally:
        os.close(context)
    try:
        at = os.fsencode(target)
        syscalls.syscall("move_mount", handle, b"", _AT_FDCWD, at, _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(handle)


def _set(context: int, key: str, value: str | None) -> None:
    command = _SET_FLAG if value is None else _SET_STRING
    data = None if value is None else os.fsencode(value)
    syscalls.syscall("fsconfig", context, command, key.encode(), data, 0)


def _reasons(context: int) -> str:
    """What the kernel logged about this mount: errors and warnings, one message a read."""
    found: list[str] = []
    while len(found) < 16:
        try:
            message = os.read(context, 4096)
        except OSError:  # ENODATA: no more
            break
        if message[:2] in (b"e ", b"w "):
            found.append(os.fsdecode(message[2:]).strip())
    return "; ".join(found)


def _mount_old(
    fstype: str, source: str, options: Sequence[tuple[str, str | None]], target: str, flags: int
) -> None:
    data = ",".join(
        key if value is None else f"{key}={_quote(key, value)}" for key, value in options
    )
    encoded = os.fsencode(data)
    if len(encoded) > _PAGE_LIMIT:
        message = (
            f"{len(encoded)} bytes of options, mount(2) takes {_PAGE_LIMIT}; use shorter paths"
        )
        raise OSError(errno.E2BIG, message)
    syscalls.mount(os.fsencode(source), os.fsencode(target), fstype.encode(), flags, encoded)


def _quote(key: str, value: str) -> str:
    """A context of SELinux has commas in its categories; fsconfig(2) takes it without quotes."""
    return f'"{value}"' if key == "context" else value


def unmount(target: str, *, lazy: bool = True) -> bool:
    """Unmount what is on top at ``target``; False where nothing is mounted.

    ``lazy`` detaches at once and lets users of the mount finish.  A symlink at ``target`` is
    never followed.  Raises ``MountFailed`` (``EBUSY`` without ``lazy``).
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    try:
        syscalls.umount2(os.fsencode(target), flags)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        hint = (
            "processes still use it"
            if error.errno == errno.EBUSY
            else _HINTS.get(error.errno or 0, "")
        )
        raise MountFailed(f"unmount {target}: {error.strerror}", hint, error.errno or 0) from None
    return True


def make_private(path: str) -> None:
    """Stop mounts below ``path`` (a mount point) from propagating.  Raises ``MountFailed``."""
    try:
        syscalls.mount(None, os.fsencode(path), None, _MS_PRIVATE, None)
    except OSError as error:
        message = f"make {path} private: {error.strerror}"
        raise MountFailed(message, "it has to be a mount point", error.errno or 0) from None


def bind_read_only(source: str, target: str) -> None:
    """Show the directory ``source`` at ``target`` too, read-only, nodev and nosuid.

    Raises ``MountFailed``; nothing is mounted then.
    """
    where = os.fsencode(target)
    flags = _MS_BIND | _MS_REMOUNT | MS_RDONLY | MS_NODEV | MS_NOSUID
    try:
        syscalls.mount(os.fsencode(source), where, None, _MS_BIND, None)
        try:
            # mount(2) ignores every flag beside MS_BIND in the call that makes the bind mount
            syscalls.mount(None, where, None, flags, None)
        except OSError:
            unmount(target)
            raise
    except OSError as error:
        raise _failure("bind", source, target, error) from None
