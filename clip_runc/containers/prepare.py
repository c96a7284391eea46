"""A root filesystem for a container: an overlay over its image, and everything it needs.

On the hot path of the shim.  Whatever fails, nothing of it stays.
"""

from __future__ import annotations

import os

from clip_runc.containers import leases
from clip_runc.containers import state as states
from clip_runc.containers.cgroups import to_come
from clip_runc.containers.overlay import mount_rootfs
from clip_runc.errors import BundleError, ClipError, StoreError
from clip_runc.images.mount import mount_image
from clip_runc.linux.files import boot_id, lock, make_private_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from clip_runc.config import Settings
    from clip_runc.containers.state import State
    from clip_runc.images.local import LocalImage
    from clip_runc.images.mount import MountedImage
    from clip_runc.linux.idmap import UserNamespace


class Prepared:
    """What ``prepare`` made.

    ``rootfs`` is the overlay's mount point, ``mode`` and ``layers`` are the image's.
    """

    __slots__ = ("key", "layers", "lower", "mode", "rootfs", "state", "upper")

    def __init__(self, state: State, rootfs: str, upper: str, mounted: MountedImage) -> None:
        self.state = state
        self.key = state.key
        self.mode = state.mode
        self.rootfs = rootfs
        self.upper = upper
        self.lower = mounted.lower
        self.layers = mounted.layers


def prepare(
    settings: Settings,
    key: str,
    image: LocalImage,
    *,
    nosuid: bool,
    root: str = "",
    container_id: str = "",
    bundle: str = "",
    cgroup: str = "",
    command: Sequence[str] = (),
    namespace: UserNamespace | None = None,
    label: str = "",
    restored: bool = False,
) -> Prepared:
    """Mount a root filesystem of ``image`` for container ``key``.

    ``root`` and ``container_id`` are runc's: by them ``gc`` knows later whether the container
    still exists; ``cgroup`` is its ``linux.cgroupsPath``; what the index lists for ``command`` may
    be fetched early.  ``namespace`` is the user namespace that the container gets (a process is
    forked then), ``label`` the context of SELinux for its files.  A container that is ``restored``
    gets what was kept for its bundle (``containers/kept.py``).  What a crashed attempt left under
    the key is taken away first; a container that exists, or that another process is just making,
    raises ``BundleError``.
    Raises ``StorageRefused``, ``MountFailed``, ``ServerError``, ``StoreError``.
    """
    make_directories(settings)
    with lock(states.lock_path(settings, key)):
        state = _new_state(key, image, root, container_id, bundle)
        state.cgroups = to_come(cgroup, container_id) if root else []
        _make_room(settings, state)
        try:
            mounted = _mount_image(settings, state, image, command)
            return _mount_rootfs(
                settings, state, mounted, nosuid, namespace, label, restored=restored
            )
        except BaseException as error:
            _undo(settings, key)
            if isinstance(error, OSError):
                message = f"cannot prepare container {container_id or key}: {error}"
                raise StoreError(message, f"check {settings.state_dir}") from None
            raise


def make_directories(settings: Settings) -> None:
    """The directories that hold containers, and a refusal of file systems that must not."""
    from clip_runc.linux.storage import refuse_unsuitable

    if not os.path.isdir(settings.container_dir):
        refuse_unsuitable(settings.state_dir)
        make_private_dir(settings.state_dir, 0o755)
        make_private_dir(settings.container_dir)
    if not (os.path.isdir(settings.rootfs_dir) and os.path.isdir(settings.lock_dir)):
        # passable, not readable: the root of a user namespace has to get to its rootfs
        make_private_dir(settings.run_dir, 0o711)
        make_private_dir(settings.rootfs_dir, 0o711)
        make_private_dir(settings.lock_dir)
        make_private_dir(settings.lease_dir)
    refuse_unsuitable(settings.container_dir)


def _new_state(key: str, image: LocalImage, root: str, container_id: str, bundle: str) -> State:
    import time

    state = states.State(key)
    state.id, state.image, state.bundle = container_id, image.manifest_hex, bundle
    state.root = os.path.realpath(root) if root else ""
    state.created, state.boot = int(time.time()), boot_id()
    state.creator = (os.getpid(), states.start_time("self"))
    return state


def _make_room(settings: Settings, new: State) -> None:
    """Nothing may be there under the key; what is left of a dead container is swept."""
    if new.root and os.path.lexists(f"{new.root}/{new.id}"):  # runc refuses it empty as well
        raise BundleError(f"container with id {new.id} already exists")
    old = states.load(settings, new.key)
    if old is not None and states.in_use(old, new.boot):
        raise BundleError(
            f"container with id {old.id or old.key} is being made by process {old.creator[0]}"
            if old.root
            else f"{old.key} is mounted already"
        )
    leftovers = (states.directory(settings, new.key), f"{settings.rootfs_dir}/{new.key}")
    if old is not None or any(os.path.lexists(path) for path in leftovers):
        from clip_runc.containers.teardown import sweep

        problems = sweep(settings, new.key)
        if any(os.path.lexists(path) for path in leftovers):
            raise StoreError(
                f"what an earlier container {new.id or new.key} left cannot be removed: "
                + "; ".join(problems),
                "clipctl gc tries again",
            )


def _mount_image(
    settings: Settings, state: State, image: LocalImage, command: Sequence[str]
) -> MountedImage:
    """The container's directory with its state, a lease, and the image's mount."""
    os.mkdir(states.directory(settings, state.key), 0o700)
    states.save(settings, state, durable=False)
    leases.acquire(settings, state.image, state.key)
    mounted = mount_image(settings, image, command, state.key)
    state.mode = mounted.mode
    if not state.root:  # else the rewriting of the bundle saves it again
        states.save(settings, state, durable=False)
    return mounted


def _mount_rootfs(
    settings: Settings,
    state: State,
    mounted: MountedImage,
    nosuid: bool,
    namespace: UserNamespace | None,
    label: str,
    *,
    restored: bool,
) -> Prepared:
    base = states.directory(settings, state.key)
    upper, work = f"{base}/upper", f"{base}/work"
    rootfs = states.rootfs_path(settings, state.key)
    os.mkdir(os.path.dirname(rootfs), 0o711)
    lower = mounted.lower
    if namespace is not None:
        lower = _idmap(settings, state, lower, namespace)
    _make_upper(settings, state, lower, restored=restored)
    os.mkdir(work, 0o700)
    os.mkdir(rootfs, 0o755)
    mount_rootfs(lower, upper, work, rootfs, nosuid=nosuid, label=label)
    if namespace is not None:
        _drop(lower)
    return Prepared(state, rootfs, upper, mounted)


def _idmap(settings: Settings, state: State, lower: str, namespace: UserNamespace) -> str:
    from clip_runc.linux.idmap import mount_idmapped

    idmapped = states.idmapped_path(settings, state.key)
    os.mkdir(idmapped, 0o700)
    mount_idmapped(lower, idmapped, namespace)
    return idmapped


def _drop(idmapped: str) -> None:
    """The overlay has a copy of the mount: nobody needs this one any more."""
    from clip_runc.linux.mount import unmount

    unmount(idmapped)
    os.rmdir(idmapped)


def _make_upper(settings: Settings, state: State, lower: str, *, restored: bool) -> None:
    """Empty, or a copy of what a checkpointed container of the bundle had."""
    upper = f"{states.directory(settings, state.key)}/upper"
    if restored:
        from clip_runc.containers import kept

        before = kept.find(settings, state.bundle, state.image)
        if before:
            kept.give(before, upper)
            return
    _empty_upper(upper, lower)


def _empty_upper(upper: str, lower: str) -> None:
    """The root of an overlay looks like the upper directory: give it the image's attributes."""
    os.mkdir(upper, 0o755)
    like = os.stat(lower)
    if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(upper, like.st_uid, like.st_gid)
    os.chmod(upper, like.st_mode & 0o7777)
    try:
        names = os.listxattr(lower)
    except OSError:
        names = []
    for name in names:
        if not name.startswith("trusted.overlay."):
            try:
                os.setxattr(upper, name, os.getxattr(lower, name))
            except OSError:  # a name that the disk's file system does not know
                continue
    os.utime(upper, ns=(like.st_atime_ns, like.st_mtime_ns))


def _undo(settings: Settings, key: str) -> None:
    from clip_runc.containers.teardown import sweep

    try:
        sweep(settings, key)
    except (ClipError, OSError):
        return  # the first error is the one to tell; gc sweeps again
