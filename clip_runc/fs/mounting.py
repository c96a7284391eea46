"""The one FUSE mount: made, or found again through whoever still holds its device."""

from __future__ import annotations

import os
import stat
import time

from clip_runc.linux import backing_device, fuse_device, mount, processes
from clip_runc.linux.files import make_private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs.state import State

# Layer files are read by EROFS and by loop devices in pieces of the read-ahead: one chunk
# (about 2 MiB of the compressed stream) in a few requests instead of thirty.
READ_AHEAD_KIB = 1024
_FUSE_RDEV = (10, 229)
_DEATH_SECONDS = 5.0


def obtain(
    settings: Settings, state: State, handed: Sequence[int], log: Logger
) -> tuple[int, bool]:
    """The device of the mount that is there, or of a new one; and is it none of ``handed``?

    The server of an earlier supervisor has ended.  Raises ``MountFailed``.
    """
    device = recover(settings, state, handed)
    fresh = device not in handed
    _end_server(state)
    fields: dict[str, object] = {"event": "clipd-took-over", "pid": os.getpid()}
    if device >= 0 and not resends(settings, state.init):
        device, fresh = renewed(device), True
    if device < 0:
        device = mount_anew(settings, state)
        fields["event"] = "clipd-started"
        log.info("mounted %s", settings.fuse_dir, extra={"fields": fields})
    else:
        text = "took over %s with %d images"
        log.info(text, settings.fuse_dir, len(state.images), extra={"fields": fields})
    return device, fresh


def _end_server(state: State) -> None:
    """It cannot be talked to by another supervisor: it goes, its requests stay."""
    old = state.processes.pop("server", None)
    if old is None or not processes.kill(old.pid, old.started):
        return
    deadline = time.monotonic() + _DEATH_SECONDS
    while old.alive and time.monotonic() < deadline:
        time.sleep(0.005)


def recover(settings: Settings, state: State, handed: Sequence[int] = ()) -> int:
    """The device of the mount that is there, or -1.

    ``handed`` are descriptors that were passed to us; else a process that an earlier supervisor
    noted, and that lives, is asked for its own.  All but the one that is returned are closed.
    """
    candidates = list(handed)
    if not state.init or not _is_fuse(settings.fuse_dir):
        for fd in candidates:
            os.close(fd)
        return -1
    for process in state.processes.values():
        if process.alive and process.device >= 0:
            try:
                candidates.append(processes.get_fd(process.pid, process.device))
            except OSError:
                continue
    good = [fd for fd in candidates if _is_device(fd) and fuse_device.is_connected(fd)]
    for fd in set(candidates) - set(good[:1]):
        os.close(fd)
    return good[0] if good else -1


def resends(settings: Settings, init: bytes) -> bool:
    """Is a new server asked again what a dead one had taken?

    Where not (Linux before 6.9), each server gets a device of its own, whose end is the end of
    what was taken through it: an error, and nobody waits for ever.
    """
    return settings.resend and fuse_device.can_resend(init)


def renewed(device: int) -> int:
    """``device``, which may have been a server's, without the requests taken through it."""
    fresh = fuse_device.clone(device)
    os.close(device)
    return fresh


def _is_fuse(path: str) -> bool:
    top = [m for m in mount.mounts() if m.target == _real(path)]
    return bool(top) and top[-1].fstype == "fuse"


def _real(target: str) -> str:
    """The path without links, and without a look at the mount: nobody may be there to answer."""
    return f"{os.path.realpath(os.path.dirname(target))}/{os.path.basename(target)}"


def _is_device(fd: int) -> bool:
    found = os.fstat(fd)
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    return stat.S_ISCHR(found.st_mode) and number == _FUSE_RDEV


def mount_anew(settings: Settings, state: State) -> int:
    """Clean what is dead at the target and mount; the device.  Raises ``MountFailed``.

    Answers INIT, so that the mount works with any server from here on.
    """
    target = settings.fuse_dir
    while mount.unmount(target):
        continue
    make_private_dir(target)
    device = fuse_device.open_device()
    fuse_device.mount_fuse(device, target)
    mount.make_private(target)
    state.init = fuse_device.read_init(device)
    os.write(device, fuse_device.init_reply(state.init))
    _set_read_ahead(target)
    state.images.clear()
    state.slots.clear()
    return device


def _set_read_ahead(target: str) -> None:
    for found in mount.mounts():
        if found.target == _real(target):
            backing_device.set_read_ahead(f"{found.dev[0]}:{found.dev[1]}", READ_AHEAD_KIB)
