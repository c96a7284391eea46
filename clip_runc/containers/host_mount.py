"""An index mounted for a person: read-only, at a directory of their choice, no container.

It is an overlay mount of ours under a name made from the directory, shown there by a bind
mount; so leases, gc and reboot treat it as they treat a container.
"""

from __future__ import annotations

import os

from clip_runc.config import Settings
from clip_runc.containers.api import OverlayMounter
from clip_runc.errors import BundleError, MountFailed
from clip_runc.images.lean import sha256_hex
from clip_runc.images.local import LocalImage
from clip_runc.linux.mount import bind_read_only, unmount
from clip_runc.linux.mountinfo import is_mountpoint


def mount_at(settings: Settings, index: str | LocalImage, directory: str) -> str:
    """Mount ``index`` at the directory, which must exist; the layer mode it got.

    Raises ``BundleError`` where something is mounted there already, and ``ClipError``.
    """
    where = os.path.realpath(directory)
    if not os.path.isdir(where):
        raise BundleError(f"{directory}: not a directory", "make it first")
    if is_mountpoint(where):
        raise BundleError(f"{directory}: something is mounted there", f"clipctl umount {directory}")
    mount = OverlayMounter(settings=settings).mount(index, _name(where))
    try:
        bind_read_only(mount.rootfs_path, where)
    except MountFailed:
        mount.unmount()
        raise
    return mount.mode


def unmount_at(settings: Settings, directory: str) -> None:
    """Undo ``mount_at``.  Raises ``BundleError`` for a mount that is not ours."""
    where = os.path.realpath(directory)
    mount = OverlayMounter(settings=settings).open(_name(where))
    unmount(where)
    mount.unmount()


def _name(where: str) -> str:
    return f"at-{sha256_hex(os.fsencode(where))[:32]}"
