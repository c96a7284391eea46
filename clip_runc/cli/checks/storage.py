"""Where indexes, layers and what containers write are kept."""

from __future__ import annotations

import os
import stat
import tempfile

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.cli.console import size
from clip_runc.config import Settings
from clip_runc.errors import StorageRefused
from clip_runc.linux.privileges import attainable
from clip_runc.linux.probe import tells_types
from clip_runc.linux.storage import filesystem_type, refuse_unsuitable

_ENOUGH, _LITTLE = 5 << 30, 256 << 20
_INODES = 10_000


def check(settings: Settings) -> list[Finding]:
    """The state directory's file system, then modes and owners of what is there."""
    return [*_disk(settings.state_dir), *permissions(settings)]


def existing(path: str) -> str:
    """``path``, or the nearest directory above it that exists."""
    path = os.path.realpath(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _disk(path: str) -> list[Finding]:
    where = existing(path)
    try:
        refuse_unsuitable(path)
        kind = filesystem_type(where)
        found = [Finding(OK, "storage", f"{path} is on {kind}")]
        found.append(_writable(where))
        if not tells_types(where):
            text = f"{kind} at {where} has no d_type, which overlayfs needs"
            found.append(Finding(FAIL, "d_type", text, "make it anew: mkfs.xfs -n ftype=1"))
        found.append(space(path, os.statvfs(where)))
    except StorageRefused as error:
        return [Finding(FAIL, "storage", error.message, error.hint)]
    except OSError as error:
        return [Finding(FAIL, "storage", f"{where}: {error.strerror}", "see dmesg")]
    return found


def _writable(where: str) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=where) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        text = f"{where} cannot be written: {error.strerror}"
        return Finding(FAIL, "storage", text, "mount it read-write, make room, or be root")
    return Finding(OK, "storage", f"{where} can be written")


def space(path: str, found: os.statvfs_result) -> Finding:
    """Free bytes and inodes."""
    free = found.f_bavail * found.f_frsize
    hint = "make room, or set state_dir to a larger disk; clipctl gc removes leftovers"
    if found.f_files and found.f_favail < _INODES:
        return Finding(WARN, "space", f"{path}: {found.f_favail} inodes left", hint)
    level = OK if free >= _ENOUGH else WARN if free >= _LITTLE else FAIL
    return Finding(level, "space", f"{path}: {size(free)} free", hint if level else "")


def permissions(settings: Settings) -> list[Finding]:
    """Modes and owners of our directories and the socket, as far as they are there."""
    own, server = os.geteuid(), attainable(settings.server_uid)
    wanted = [
        (settings.run_dir, 0o711, own),
        (settings.lock_dir, 0o700, own),
        (settings.lease_dir, 0o700, own),
        (settings.control_dir, 0o700, own),
        (settings.socket, 0o600, own),
        (settings.state_dir, 0o755, own),
        (settings.container_dir, 0o700, own),
        (settings.index_dir, 0o755, own),
    ]
    if not own:  # who is no root at all cannot tell the server's id from a stranger's
        wanted.append((settings.store_dir, 0o700, server))
    found = [finding for path, mode, owner in wanted if (finding := _one(path, mode, owner))]
    return found or [Finding(OK, "permissions", "directories and sockets are as we make them")]


def _one(path: str, most: int, owner: int) -> Finding | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return Finding(WARN, "permissions", f"{path} is a symbolic link", "name its target instead")
    if mode & ~most:
        hint = f"chmod {most:o} {path}"
        return Finding(FAIL, "permissions", f"{path} has mode {mode:04o}, wanted {most:04o}", hint)
    if status.st_uid != owner:
        text = f"{path} belongs to uid {status.st_uid}, wanted {owner}"
        return Finding(FAIL, "permissions", text, f"chown {owner}:{owner} {path}")
    return None
