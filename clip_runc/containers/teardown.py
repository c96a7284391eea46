"""Taking a container's root filesystem down.  Twice is as good as once.

Runs from ``delete``, from the poststop hook and from ``gc``, maybe at once; the container's lock
puts them in a row.  Nothing here waits without an end, and one failure does not keep the rest
from being done.
"""

from __future__ import annotations

import os
import time

from clip_runc import events
from clip_runc.containers import bundle, cgroups, leases
from clip_runc.containers import state as states
from clip_runc.containers.removal import remove_tree
from clip_runc.containers.state import exists, idmapped_path, lock_path, rootfs_path
from clip_runc.errors import ClipError, MountFailed
from clip_runc.images import lean
from clip_runc.linux.files import lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

LOCK_SECONDS = 10.0
REMOVE_SECONDS = 20.0
_TRASH = ".trash"


def teardown(settings: Settings, key: str, problems: list[str] | None = None) -> bool:
    """Take down container ``key``; True if there was anything of it.

    What did not work is appended to ``problems``, in words, and left for ``gc``.  Never raises
    for a mount that is busy (it is detached, and gone when its last user is) nor for one that
    is dead.
    """
    collected = problems if problems is not None else []
    if not exists(settings, key):
        return False
    guard = _take_lock(settings, key)
    if guard is None:
        collected.append(f"{key}: another process is at it for {LOCK_SECONDS:.0f} s")
        return True
    try:
        collected += sweep(settings, key)
        if not exists(settings, key):
            forget_lock(settings, key)
    finally:
        os.close(guard)
    return True


def _take_lock(settings: Settings, key: str) -> int | None:
    os.makedirs(settings.lock_dir, 0o700, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return lock(lock_path(settings, key), wait=False).__enter__().fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)


def forget_lock(settings: Settings, key: str) -> None:
    """Remove the lock's file, for who holds it and has nothing more to do.

    Whoever waits for the lock sees that the file is gone and makes another.
    """
    try:
        os.unlink(lock_path(settings, key))
    except FileNotFoundError:
        return


def sweep(settings: Settings, key: str) -> list[str]:
    """What ``teardown`` does, for a caller that holds the container's lock: the problems."""
    problems: list[str] = []
    state = states.load(settings, key)
    if state is not None:
        try:
            bundle.restore(settings, state)
        except ClipError as error:
            problems.append(str(error))
        problems += cgroups.remove(state.cgroups)
    problems += _unmount(settings, key)
    if state is not None:
        leases.release(settings, state.image, key)
    else:
        leases.release_all(settings, key)
    if state is not None:
        problems += _keep(settings, state)
    problems += _remove(settings, key)
    if state is not None:
        _note_end(settings, state, problems)
    if state is not None and not settings.image_linger:
        problems += _unmount_image(settings, state.image)
    return problems


def _note_end(settings: Settings, state: states.State, problems: list[str]) -> None:
    fields: dict[str, object] = {
        "container": state.id or state.key,
        "digest": f"sha256:{state.image}",
        "seconds": max(0, int(time.time()) - state.created),
    }
    if problems:
        fields["problems"] = problems
    events.note(settings, "container-removed", fields, lean.dumps)


def _unmount_image(settings: Settings, manifest_hex: str) -> list[str]:
    """At once, where images do not linger; else ``gc`` does it."""
    from clip_runc.images.mount import unmount_image

    try:
        unmount_image(settings, manifest_hex)
    except (ClipError, OSError) as error:
        return [str(error)]
    return []


def _unmount(settings: Settings, key: str) -> list[str]:
    """Every mount of the container, then the mount points."""
    from clip_runc.linux.mount import unmount

    rootfs = rootfs_path(settings, key)
    problems: list[str] = []
    for path in (rootfs, idmapped_path(settings, key)):
        try:
            # Lazily from the start: a mount that another namespace pins must not hold up delete,
            # and one over a dead server cannot be unmounted in any other way.
            while unmount(path, lazy=True):
                continue
        except MountFailed as error:
            problems.append(str(error))
    for path in (rootfs, idmapped_path(settings, key), os.path.dirname(rootfs)):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
    return problems


def _keep(settings: Settings, state: states.State) -> list[str]:
    """A container that was checkpointed leaves what it wrote to those that are restored."""
    from clip_runc.containers import kept

    try:
        kept.keep(settings, state)
    except OSError as error:
        if os.path.isdir(state.bundle):  # without it nobody can restore anything
            return [f"what {state.id} wrote is not kept for restore: {error}"]
    return []


def _remove(settings: Settings, key: str) -> list[str]:
    """Out of the way in one rename, so that the id is free whatever is in there; then away."""
    trash = f"{settings.container_dir}/{_TRASH}"
    try:
        os.mkdir(trash, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        return []
    except OSError:
        # a full disk has no room for a directory more: empty the container's where it is
        return remove_tree(states.directory(settings, key), REMOVE_SECONDS)
    gone = f"{trash}/{key}-{os.urandom(4).hex()}"
    try:
        os.rename(states.directory(settings, key), gone)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{states.directory(settings, key)}: {error.strerror}"]
    return remove_tree(gone, REMOVE_SECONDS)


def empty_trash(settings: Settings) -> list[str]:
    """What a teardown had no time to remove: the names of what is gone now."""
    trash = f"{settings.container_dir}/{_TRASH}"
    try:
        names = os.listdir(trash)
    except FileNotFoundError:
        return []
    return [name for name in names if not remove_tree(f"{trash}/{name}", 600)]
