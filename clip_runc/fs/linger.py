"""Unmounting images that no container has used for a while.

The layout below ``run_dir`` and the lock are those of ``images/mount.py``, which is above us:
a mount at ``images/<hex>`` with a note ``images/<hex>.mount`` beside it, leases in
``leases/<hex>/``, the lock ``locks/image-<hex>``.
"""

from __future__ import annotations

import os
import re
import time

from clip_runc.linux.files import lock
from clip_runc.linux.mount import unmount
from clip_runc.linux.processes import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs.images import Images
    from clip_runc.fs.loop import Loop
    from clip_runc.fs.state import State

_HEX = re.compile(r"[0-9a-f]{64}")


class Lingering:
    """The supervisor's part: looks now and then, unmounts and detaches what is idle."""

    def __init__(
        self, loop: Loop, log: Logger, settings: Settings, state: State, images: Images
    ) -> None:
        self._loop = loop
        self._log = log
        self._settings = settings
        self._state = state
        self._images = images
        self._idle = Idleness(settings)
        self._releasing: set[str] = set()

    def begin(self) -> None:
        """Look often enough for ``image_linger``."""
        self._loop.every(min(30.0, max(0.5, self._settings.image_linger / 4)), self._sweep)

    def _sweep(self) -> None:
        """Unmount and detach what no container has used for a while."""
        names = {*self._state.images, *mounted(self._settings)}
        for name in set(self._idle.expired(names - self._images.busy())) - self._releasing:
            self._releasing.add(name)
            self._release(name)

    def _release(self, name: str) -> None:
        settings, before = self._settings, self._state.images.get(name)

        def done(code: int, data: bytes) -> None:
            self._releasing.discard(name)
            # Whoever came after the child let go of the lock has attached it anew, and
            # every attach makes a new object.
            unchanged = self._state.images.get(name) is before
            if code == 0 and data == b"yes" and unchanged and name not in self._images.busy():
                event = {"event": "image-unmounted", "pid": os.getpid(), "image": name}
                self._log.info("image %s is idle: unmounted", name, extra={"fields": event})
                self._images.detach(name, lambda _: None)

        def release_one() -> bytes:
            return b"yes" if release(settings, name) else b"no"

        self._loop.output(*in_child(release_one), done)


class Idleness:
    """Since when each image has had no container."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since: dict[str, float] = {}

    def expired(self, images: Iterable[str]) -> list[str]:
        """Of ``images``, those idle longer than ``settings.image_linger``."""
        now = time.monotonic()
        idle = {name for name in images if not has_lease(self._settings, name)}
        self._since = {name: self._since.get(name, now) for name in idle}
        return [n for n, since in self._since.items() if now - since >= self._settings.image_linger]


def has_lease(settings: Settings, manifest_hex: str) -> bool:
    """Does a container use the image?"""
    try:
        return bool(os.listdir(f"{settings.lease_dir}/{manifest_hex}"))
    except FileNotFoundError:
        return False


def mounted(settings: Settings) -> list[str]:
    """The images with a mount, by their notes."""
    try:
        names = os.listdir(settings.image_mount_dir)
    except FileNotFoundError:
        return []
    found = [name.removesuffix(".mount") for name in names if name.endswith(".mount")]
    return [name for name in found if _HEX.fullmatch(name)]


def release(settings: Settings, manifest_hex: str) -> bool:
    """Unmount the image unless a container has come meanwhile; False if it stays.

    Takes the image's lock and may wait for the kernel: for a child process.
    """
    try:
        with lock(f"{settings.lock_dir}/image-{manifest_hex}", wait=False):
            if has_lease(settings, manifest_hex):
                return False
            target = f"{settings.image_mount_dir}/{manifest_hex}"
            while unmount(target):
                continue
            _remove(os.unlink, f"{target}.mount")
            _remove(os.rmdir, target)
            _remove(os.rmdir, f"{settings.lease_dir}/{manifest_hex}")
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _remove(how: object, path: str) -> None:
    assert callable(how)
    try:
        how(path)
    except OSError:
        return  # not there, or used again: the next mount copes with either
