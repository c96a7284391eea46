"""Sweeping what neither ``delete`` nor the poststop hook could.

A container is taken down when its own runtime does not know it (``state.known_to_runc``) and
the process that made it has ended, or when the machine has booted since.  An image is
unmounted when it had no container for ``image_linger`` seconds.  Only names that are ours, in
our directories, are touched.
"""

from __future__ import annotations

import os
import time

from clip_runc.config import is_personal
from clip_runc.containers import kept, leases, teardown
from clip_runc.containers import state as states
from clip_runc.containers.key import is_key
from clip_runc.containers.state import exists, lock_path
from clip_runc.images.local import is_hex
from clip_runc.images.mount import mounted_images, unmount_image
from clip_runc.images.strays import remove_strays
from clip_runc.linux.files import boot_id, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clip_runc.config import Settings
    from clip_runc.containers.state import State


def gc(settings: Settings, alive: Callable[[State], bool] | None = None) -> list[str]:
    """Remove what is left of dead containers and unused image mounts; what was done, in words.

    ``alive`` may answer for a container instead of the rule above.
    """
    done = gc_containers(settings, alive)
    now = time.time()
    for image in mounted_images(settings):
        idle = leases.idle_seconds(settings, image.manifest_hex, now)
        if idle >= settings.image_linger and unmount_image(settings, image.manifest_hex):
            done.append(f"mount of image {image.manifest_hex[:12]}, unused for {_words(idle)}")
    if is_personal():
        from clip_runc.containers.run_dirs import remove_dead

        done += remove_dead(settings)
    return done + [f"unfinished file {path}" for path in remove_strays(settings)]


def gc_containers(settings: Settings, alive: Callable[[State], bool] | None = None) -> list[str]:
    """The part of ``gc`` that is about containers."""
    boot = boot_id()
    judge = alive or (lambda state: states.in_use(state, boot))
    done: list[str] = []
    for key in _keys(settings):
        done += _sweep_dead(settings, key, judge)
    done += [f"lease of {key} on {digits[:12]}" for digits, key in _drop_leases(settings)]
    _drop_locks(settings)
    done += [f"what was kept for {bundle}, which is gone" for bundle in kept.drop_orphans(settings)]
    done += [f"files of {name}" for name in teardown.empty_trash(settings)]
    return done


def run(settings: Settings, paths: list[str]) -> None:
    """As a process that clipd starts when it has started itself (``fs/start.py``).

    Images are not touched: clipd unmounts those that idle.
    """
    import logging

    from clip_runc import log as logs

    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    for line in gc_containers(settings):
        logging.getLogger("clip_runc.gc").info("removed: %s", line)


def _words(seconds: float) -> str:
    return "ever" if seconds == float("inf") else f"{seconds:.0f} s"


def _keys(settings: Settings) -> list[str]:
    """Every container that has a directory or a mount point."""
    return sorted({*_names(settings.container_dir), *_names(settings.rootfs_dir)})


def _names(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if is_key(name)]
    except FileNotFoundError:
        return []


def _sweep_dead(settings: Settings, key: str, alive: Callable[[State], bool]) -> list[str]:
    os.makedirs(settings.lock_dir, 0o700, exist_ok=True)
    try:
        with lock(lock_path(settings, key), wait=False):
            state = states.load(settings, key)
            if state is not None and alive(state):
                return []
            if not exists(settings, key):
                return []
            problems = teardown.sweep(settings, key)
            teardown.forget_lock(settings, key)
    except BlockingIOError:  # it is being made or taken down this moment
        return []
    name = state.id if state is not None and state.id else key
    return [f"container {name}", *(f"container {name}: {text}" for text in problems)]


def _drop_leases(settings: Settings) -> list[tuple[str, str]]:
    """Leases whose container has no directory any more."""
    dropped: list[tuple[str, str]] = []
    try:
        images = [name for name in os.listdir(settings.lease_dir) if is_hex(name)]
    except FileNotFoundError:
        return []
    for digits in images:
        for key in _names(f"{settings.lease_dir}/{digits}"):
            if not os.path.lexists(states.directory(settings, key)) and leases.release(
                settings, digits, key
            ):
                dropped.append((digits, key))
    return dropped


def _drop_locks(settings: Settings) -> None:
    """Lock files of containers that are gone: the poststop hook leaves them."""
    try:
        names = os.listdir(settings.lock_dir)
    except FileNotFoundError:
        return
    for name in names:
        key = name.removeprefix("container-")
        if key == name or not is_key(key) or exists(settings, key):
            continue
        try:
            with lock(lock_path(settings, key), wait=False):
                if not exists(settings, key):
                    teardown.forget_lock(settings, key)
        except BlockingIOError:
            continue
