"""One mount an image, shared by its containers.

What is mounted is noted beside the mount point (``<hex>.mount``): the mode, the device number
of the mount, the device number of the FUSE mount that its data comes through (0 where every
layer is complete on disk), and how many layers were complete and how many lazy.  With that a
container of a warm image asks neither clipd nor the mount table, and a mount whose FUSE server
is gone for good is told from a live one.

Read-ahead of an EROFS mount over FUSE stays at the kernel's 128 KiB: the FUSE file below has 1 MiB
and the store its own.  120 MB in sequence over loopback, three times each: 333-358 MB/s with
128 KiB, 288-336 with 512, 279-314 with 2048.  One that reads past the caches of its files has no
other read-ahead, and gets 1 MiB (docs/design/data-plane.md).
"""

from __future__ import annotations

import errno
import os

from clip_runc.config import is_rootless
from clip_runc.errors import ClipError, MountFailed
from clip_runc.images.local import at, is_hex, leases_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from clip_runc.config import Settings
    from clip_runc.images.local import LocalImage

_ORDER = ("erofs", "loop", "tree")
_SECTOR = 512
_DIRECT_READ_AHEAD_KIB = 1024


class MountedImage:
    """Where an image can be read: ``lower`` is a directory, ``mode`` how it came to be.

    ``layers`` says in words how many were complete on this machine when it was mounted.
    """

    __slots__ = ("layers", "lower", "mode")

    def __init__(self, lower: str, mode: str, layers: str = "") -> None:
        self.lower = lower
        self.mode = mode
        self.layers = layers


def mount_image(
    settings: Settings, image: LocalImage, command: Sequence[str] = (), lease: str = ""
) -> MountedImage:
    """Have the image mounted; the same mount for every caller.

    Where it was not yet, what its index lists for ``command`` is fetched at once, as long as
    there is that lease.
    A forced ``layer_mode`` that does not work raises ``MountFailed`` with the reason; ``auto``
    takes the first of erofs, loop and tree that does, and remembers it until reboot.  Whoever
    wants the mount to stay holds a lease (``containers/leases.py``) before calling.
    """
    target = f"{settings.image_mount_dir}/{image.manifest_hex}"
    try:
        guard = image_lock(settings, image.manifest_hex)
    except FileNotFoundError:
        _make_directories(settings)
        guard = image_lock(settings, image.manifest_hex)
    try:
        found = _alive(settings, target)
        if found is None:
            _make_directories(settings)
            _clean(target)
            found = _mount(settings, image, target, command, lease)
        return found
    finally:
        os.close(guard)


def image_lock(settings: Settings, manifest_hex: str, *, wait: bool = True) -> int:
    """Take the image's lock; closing the descriptor lets go of it."""
    import fcntl

    path = f"{settings.lock_dir}/image-{manifest_hex}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_directories(settings: Settings) -> None:
    from clip_runc.linux.files import make_private_dir

    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(settings.image_mount_dir, 0o711)
    make_private_dir(settings.lock_dir)


def _alive(settings: Settings, target: str) -> MountedImage | None:
    """The mount at ``target`` if it is the one that was noted and its data can be read."""
    noted = _read_note(target)
    if noted is None:
        return None
    mode, device, fuse, layers = noted
    lower = _tree_path(settings, target) if mode == "tree" else target
    try:
        same = os.stat(lower).st_dev == device
        if same and fuse:
            same = os.stat(settings.fuse_dir).st_dev == fuse and _answers(settings.fuse_dir)
    except OSError:
        return None
    return MountedImage(lower, mode, layers) if same else None


def _answers(fuse_dir: str) -> bool:
    """Does the FUSE mount have a server?  Attributes may be cached; statfs always asks."""
    try:
        os.statvfs(fuse_dir)
    except OSError as error:
        return error.errno == errno.ENOSYS
    return True


def _tree_path(settings: Settings, target: str) -> str:
    return f"{settings.fuse_dir}/images/{os.path.basename(target)}"


def _read_note(target: str) -> tuple[str, int, int, str] | None:
    try:
        fd = os.open(f"{target}.mount", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fields = os.read(fd, 200).split()
    finally:
        os.close(fd)
    if len(fields) not in (3, 5) or not all(field.isdigit() for field in fields[1:]):
        return None
    layers = _in_words(*map(int, fields[3:])) if len(fields) == 5 else ""
    return fields[0].decode("ascii", "replace"), int(fields[1]), int(fields[2]), layers


def _write_note(target: str, mode: str, device: int, fuse: int, layers: tuple[int, int]) -> None:
    """Written beside and renamed; no sync: what it speaks of does not survive a reboot."""
    text = f"{mode} {device} {fuse} {layers[0]} {layers[1]}\n"
    _write(target, f"{target}.mount", text)


def _count(answer: dict[str, object]) -> tuple[int, int]:
    """How many layers are complete here, and how many not."""
    layers = answer.get("layers")
    found = [bool(layer["complete"]) for layer in layers] if isinstance(layers, list) else []
    return found.count(True), found.count(False)


def _in_words(complete: int, lazy: int) -> str:
    return f"{complete} complete, {lazy} lazy"


def _write(target: str, path: str, text: str) -> None:
    """Replace ``path``.  The new file has a name of ``target``, whose lock the caller holds:
    ``path`` may be one that the creates of other images write at this moment."""
    temporary = f"{target}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _clean(target: str) -> None:
    """Take away what is left of an earlier mount: dead ones, and stacks of them."""
    from clip_runc.linux.mount import unmount

    while unmount(target, lazy=True):
        continue
    try:
        os.unlink(f"{target}.mount")
    except FileNotFoundError:
        return


def _mount(
    settings: Settings, image: LocalImage, target: str, command: Sequence[str], lease: str
) -> MountedImage:
    from clip_runc.fs.client import ensure_clipd

    with ensure_clipd(settings) as client:
        answer = client.attach(image.manifest_hex, image.index_path, command, lease)
    errors: list[str] = []
    for mode in _modes(settings):
        try:
            mounted = _try(settings, image, target, mode, answer)
        except MountFailed as error:
            if settings.layer_mode != "auto":
                raise _forced(mode, error) from None
            errors.append(f"{mode}: {error.message}")
        else:
            if settings.layer_mode == "auto":
                _write(target, f"{settings.run_dir}/mode", mode)
            return mounted
    raise MountFailed(
        f"{image.digest} can be mounted in no way: {'; '.join(errors)}",
        "clipctl doctor says what this machine lacks",
    )


def _forced(mode: str, error: MountFailed) -> MountFailed:
    if mode != "tree" and is_rootless():
        message = (
            f'layer_mode = "{mode}" does not work in a user namespace: EROFS is for root of the'
        )
        return MountFailed(f"{message} machine", 'layer_mode = "auto" or "tree"', error.errno)
    message = f'layer_mode = "{mode}" does not work here: {error.message}'
    hint = f"{error.hint}; " if error.hint else ""
    return MountFailed(message, f'{hint}layer_mode = "auto" takes what works', error.errno)


def _modes(settings: Settings) -> Sequence[str]:
    """What to try, in order: the mode that worked last on this boot comes first."""
    if settings.layer_mode != "auto":
        return (settings.layer_mode,)
    if is_rootless():
        return ("tree",)  # the kernel lets nobody else mount EROFS
    try:
        with open(f"{settings.run_dir}/mode", encoding="ascii") as file:
            known = file.read(16)
    except (OSError, UnicodeDecodeError):
        return _ORDER
    return sorted(_ORDER, key=lambda mode: mode != known)


def _try(
    settings: Settings, image: LocalImage, target: str, mode: str, answer: dict[str, object]
) -> MountedImage:
    layers = _count(answer)
    if mode == "tree":
        return _use_tree(settings, target, layers)
    paths, through_fuse = layer_paths(settings, answer)
    fuse = os.stat(settings.fuse_dir).st_dev if through_fuse else 0
    os.makedirs(target, 0o711, exist_ok=True)
    # Noted before it is done: a process killed in between leaves a mount that the next one
    # knows to be a stranger (the device number does not fit) and cleans.
    _write_note(target, mode, 0, fuse, layers)
    if mode == "erofs":
        _mount_on_files(image.erofs_path, paths, target, direct=not through_fuse)
    else:
        _mount_on_loops(image.erofs_path, paths, target)
    device = os.stat(target).st_dev
    _write_note(target, mode, device, fuse, layers)
    return MountedImage(target, mode, _in_words(*layers))


def layer_paths(settings: Settings, answer: dict[str, object]) -> tuple[list[str], bool]:
    """The file of each layer, and whether any of them is a FUSE file.

    A layer that is complete in the store is read straight from there, unless its length is no
    multiple of 512: a device of EROFS has whole blocks, and only the FUSE file is padded.
    """
    layers = answer.get("layers")
    paths: list[str] = []
    through_fuse = False
    for layer in layers if isinstance(layers, list) else []:
        digits = str(layer["diff"])
        if not is_hex(digits):
            raise ClipError(f"clipd speaks of a layer {digits!r}", "is it of this version?")
        path = f"{settings.store_dir}/{digits}/data"
        if not (layer["complete"] and _whole_sectors(path)):
            path = f"{settings.fuse_dir}/layers/{_file_name(layer)}"
            through_fuse = True
        paths.append(path)
    return paths, through_fuse


def _file_name(layer: dict[str, object]) -> str:
    """The name that no other image's index has a say in; a clipd of before had none."""
    name = str(layer.get("file") or layer["diff"])
    if not is_hex(name):
        raise ClipError(f"clipd speaks of a file {name!r}", "is it of this version?")
    return name


def _whole_sectors(path: str) -> bool:
    try:
        return os.stat(path).st_size % _SECTOR == 0
    except OSError:
        return False


def _mount_on_files(meta: str, paths: Sequence[str], target: str, *, direct: bool) -> None:
    """``direct``: EROFS reads past the caches of the files, where their disk can.

    A byte then is in memory once, and comes at the speed of the disk: not so through two caches,
    each with a read-ahead of its own.  Never with a file on FUSE: an unmount would wait for reads
    that nobody answers, which it does not through FUSE's cache.
    """
    from clip_runc.linux import backing_device
    from clip_runc.linux.mount import mount_erofs
    from clip_runc.linux.storage import reads_sectors

    direct = direct and all(map(reads_sectors, (meta, *paths)))
    before = backing_device.of_erofs() if direct else ()
    mount_erofs(meta, paths, target, direct=direct)
    if direct:
        backing_device.set_of_added(before, _DIRECT_READ_AHEAD_KIB)


def _mount_on_loops(meta: str, paths: Sequence[str], target: str) -> None:
    """The devices free themselves when the last mount goes: they are made with autoclear.

    A layer that another image has in use comes from the same device.
    """
    from clip_runc.linux.loop import attach, share
    from clip_runc.linux.mount import mount_erofs

    devices = []
    try:
        devices.append(attach(meta))
        devices.extend(map(share, paths))
        mount_erofs(devices[0].path, [device.path for device in devices[1:]], target)
    finally:
        for device in devices:
            device.close()


def _use_tree(settings: Settings, target: str, layers: tuple[int, int]) -> MountedImage:
    lower = _tree_path(settings, target)
    try:
        device = os.stat(lower).st_dev
    except OSError as error:
        reason = f"{lower}: {error.strerror}"
        raise MountFailed(reason, "see clipd's log", error.errno or 0) from None
    _write_note(target, "tree", device, device, layers)
    return MountedImage(lower, "tree", _in_words(*layers))


def unmount_image(settings: Settings, manifest_hex: str) -> bool:
    """Unmount the image and tell clipd; False where containers use it or it was not mounted."""
    try:
        guard = image_lock(settings, manifest_hex)
    except FileNotFoundError:
        return False
    try:
        if leases_of(settings, manifest_hex):
            return False
        return _unmount(settings, manifest_hex)
    finally:
        os.close(guard)


def _unmount(settings: Settings, manifest_hex: str) -> bool:
    target = f"{settings.image_mount_dir}/{manifest_hex}"
    if _read_note(target) is None:
        return False
    _clean(target)
    for directory in (target, f"{settings.lease_dir}/{manifest_hex}"):
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):
                raise
    _detach(settings, manifest_hex)
    return True


def _detach(settings: Settings, manifest_hex: str) -> None:
    """clipd keeps nothing that matters of an image; one that is gone needs not be told."""
    from clip_runc.errors import ServerError
    from clip_runc.fs.client import connect

    client = connect(settings) if os.path.exists(settings.socket) else None
    if client is None:
        return
    try:
        client.detach(manifest_hex)
    except ServerError:
        return
    finally:
        client.close()


def mounted_images(settings: Settings) -> list[LocalImage]:
    """The images that have a mount, by their notes."""
    try:
        names = sorted(os.listdir(settings.image_mount_dir))
    except FileNotFoundError:
        return []
    found = [name.removesuffix(".mount") for name in names if name.endswith(".mount")]
    return [at(settings, digits) for digits in found if is_hex(digits)]
