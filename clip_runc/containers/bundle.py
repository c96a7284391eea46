"""A bundle's config.json: read, rewritten, and put back as it was.

The directory is opened once and everything goes through that descriptor.  What we write keeps
the members that we do not know, their order, and the file's owner and mode.  The original file
is kept in the container's own directory (a hard link, or a copy where that is on another file
system), so that putting back is exact where nobody else has written the file since; where
somebody has, only what is ours is taken out.

Waiting for the disk took a third of what a warm create cost.  So only our own state is synced, and
not even that where both are on one ext4 as it is mounted by default: renamed over the one before,
its data is on disk before the journal has the name (``storage.keeps_order``), and the journal has
that name before the bundle's.  The original needs no sync where it is a link, for the same
reason.  Our file itself may be found empty after a power cut on file systems that write names
before data (XFS does); ``restore`` and ``revive`` know an empty one.

A config.json that is a symlink is read through it, as runc reads it; a file of the bundle's own
takes its place for as long as the container is there.

Several containers may be made of one bundle.  The second finds the root of the first in the
file; the original is then the one that the first one's state remembers.
"""

from __future__ import annotations

import errno
import os
import stat

from clip_runc.config import ANNOTATION_STATE
from clip_runc.containers import state as states
from clip_runc.containers.key import is_key
from clip_runc.errors import BundleError
from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clip_runc.config import Settings
    from clip_runc.containers.state import State

CONFIG = "config.json"
SIZE_LIMIT = 16 << 20
_ORIGINAL = "config.json"
_LINK = "config.json.link"

Spec = dict[str, object]


class Config:
    """A config.json as it was read: ``spec`` is parsed, ``data`` its bytes.

    ``file`` says which it is, for who wants to link it; ``link`` where a symlink leads.
    """

    __slots__ = ("data", "file", "link", "mode", "owner", "spec")

    def __init__(self, data: bytes, spec: Spec, status: os.stat_result) -> None:
        self.data = data
        self.spec = spec
        self.mode = stat.S_IMODE(status.st_mode)
        self.owner = (status.st_uid, status.st_gid)
        self.file = (status.st_dev, status.st_ino)
        self.link = ""


def open_bundle(path: str) -> int:
    """A descriptor of the bundle's directory.  Raises ``BundleError``."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BundleError(f"bundle {path}: {error.strerror}") from None


def read_config(bundle_fd: int) -> Config:
    """The bundle's config.json.  Raises ``BundleError`` for one that cannot be used."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    link = ""
    try:
        try:
            fd = os.open(CONFIG, flags, dir_fd=bundle_fd)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            link = os.readlink(CONFIG, dir_fd=bundle_fd)
            fd = os.open(CONFIG, flags & ~os.O_NOFOLLOW, dir_fd=bundle_fd)
    except OSError as error:
        raise BundleError(f"{CONFIG}: {error.strerror}", "it must be a regular file") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{CONFIG} is not a regular file")
        data = _read_all(fd)
    finally:
        os.close(fd)
    try:
        spec = lean.loads_object(data)
    except ValueError as error:
        raise BundleError(f"{CONFIG}: {error}") from None
    config = Config(data, spec, status)
    if link:
        config.link, config.file = link, (0, 0)
    return config


def _read_all(fd: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while data := os.read(fd, 1 << 20):
        size += len(data)
        if size > SIZE_LIMIT:
            raise BundleError(f"{CONFIG} is larger than {SIZE_LIMIT >> 20} MiB")
        pieces.append(data)
    return b"".join(pieces)


def read_original(settings: Settings, bundle_fd: int) -> Config:
    """The config.json as it is without us: what a container made of the bundle now goes by.

    The bytes on disk, unless another container of ours has rewritten them.
    """
    config = read_config(bundle_fd)
    owner = _owner_of(settings, config)
    if owner is None:
        return config
    data = states.get(_original_path(settings, owner)) if _unchanged(owner, config) else None
    whole = data is not None
    if data is None:
        spec = config.spec
        _take_out(spec, owner)
        data = lean.dumps(spec, "\t")
    config.data, config.spec, config.file = data, lean.loads_object(data), (0, 0)
    config.link = _kept_link(settings, owner) if whole else ""
    return config


def _owner_of(settings: Settings, config: Config) -> State | None:
    """The container whose root the spec names, if that is one of ours."""
    path = root_path(config.spec)
    prefix = f"{settings.rootfs_dir}/"
    if not path.startswith(prefix):
        return None
    key = path.removeprefix(prefix).split("/", 1)[0]
    if not is_key(key):
        return None
    owner = states.load(settings, key)
    return owner or _guess_of(key, config)


def _guess_of(key: str, config: Config) -> State:
    """A container whose state is lost, and with it what root was: runc's own default is a guess."""
    owner = states.State(key)
    root = config.spec.get("root")
    owner.original_root = {**(root if isinstance(root, dict) else {}), "path": "rootfs"}
    owner.root_path = root_path(config.spec)
    owner.config_sha256 = lean.sha256_hex(config.data)  # the original may be there still
    hooks = config.spec.get("hooks")
    present = hooks.get("poststop") if isinstance(hooks, dict) else None
    if isinstance(present, list):
        owner.hooks = {"poststop": [hook for hook in present if _names(hook, key)]}
    return owner


def _names(hook: object, key: str) -> bool:
    """Is the container's key an argument of the hook?"""
    arguments = hook.get("args") if isinstance(hook, dict) else None
    return isinstance(arguments, list) and key in arguments


def root_path(spec: Spec) -> str:
    """``root.path`` of a spec; ``""`` where it is missing or no string."""
    root = spec.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    return path if isinstance(path, str) else ""


def _unchanged(state: State, config: Config) -> bool:
    return bool(state.config_sha256) and lean.sha256_hex(config.data) == state.config_sha256


def _original_path(settings: Settings, state: State) -> str:
    return f"{states.directory(settings, state.key)}/{_ORIGINAL}"


def _link_path(settings: Settings, state: State) -> str:
    return f"{states.directory(settings, state.key)}/{_LINK}"


def _kept_link(settings: Settings, state: State) -> str:
    """Where the original led if it was a symlink."""
    try:
        return os.readlink(_link_path(settings, state))
    except OSError:
        return ""


def rewrite(
    settings: Settings, state: State, bundle_fd: int, edit: Callable[[Spec], object]
) -> Config:
    """Let ``edit`` change the bundle's original spec in place, and write that.

    Before the file changes, ``state`` is on disk with all that ``restore`` needs.  The result is
    the original.  Raises ``BundleError``; the bundle is then as it was.
    """
    _remove_strays(bundle_fd)
    original = read_original(settings, bundle_fd)
    spec = lean.loads_object(original.data)
    edit(spec)
    data = lean.dumps(spec, "\t")
    state.original_root = original.spec.get("root")
    state.root_path = root_path(spec)
    state.hooks = _added_hooks(original.spec, spec)
    state.config_sha256 = lean.sha256_hex(data)
    state.bundle = os.readlink(f"/proc/self/fd/{bundle_fd}")
    try:
        if original.link:
            os.symlink(original.link, _link_path(settings, state))
        durable = _keep(_original_path(settings, state), bundle_fd, original)
        states.save(settings, state, durable=durable)
        _replace(bundle_fd, data, original, durable=False)
    except OSError as error:
        message = f"{state.bundle}: cannot rewrite {CONFIG}: {error.strerror}"
        raise BundleError(
            message, "a bundle of a lazy image has to be on storage that can be written"
        ) from None
    return original


def _keep(path: str, bundle_fd: int, original: Config) -> bool:
    """Keep the original at ``path``; must the state be synced before the bundle is changed?

    Not where a reboot takes the bundle away, nor where one journal has both in their order.
    """
    from clip_runc.linux.storage import filesystem_type, keeps_order

    if original.file != (0, 0):
        try:
            os.link(CONFIG, path, src_dir_fd=bundle_fd, follow_symlinks=False)
            kept = os.lstat(path)
            if (kept.st_dev, kept.st_ino) == original.file:
                return not keeps_order(path)
            os.unlink(path)  # replaced since it was read
        except OSError:  # another file system, or one without links
            pass
    durable = filesystem_type(f"/proc/self/fd/{bundle_fd}") not in ("tmpfs", "ramfs")
    states.put(path, original.data, durable)
    return durable


def _added_hooks(before: Spec, after: Spec) -> dict[str, list[object]]:
    """The hooks of ``after`` that ``before`` has not, by the moment they run at."""
    old, new = before.get("hooks"), after.get("hooks")
    old = old if isinstance(old, dict) else {}
    added: dict[str, list[object]] = {}
    for moment, hooks in (new if isinstance(new, dict) else {}).items():
        known = old.get(moment)
        fresh = [x for x in hooks if not (isinstance(known, list) and x in known)]
        if fresh:
            added[moment] = fresh
    return added


def _remove_strays(bundle_fd: int) -> None:
    """Files that ``_replace`` left when its process was killed."""
    for name in os.listdir(bundle_fd):
        if not (name.startswith(f".{CONFIG}.") and name.endswith(".clip")):
            continue
        pid = name[len(CONFIG) + 2 : -5]
        if pid.isdigit() and not os.path.lexists(f"/proc/{pid}"):
            os.unlink(name, dir_fd=bundle_fd)


def _replace(bundle_fd: int, data: bytes, like: Config, *, durable: bool) -> None:
    """Written beside, synced if ``durable``, renamed; owner and mode are those of ``like``."""
    temporary = f".{CONFIG}.{os.getpid()}.clip"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600, dir_fd=bundle_fd)
    except FileExistsError:  # of a process that had our number and died
        os.unlink(temporary, dir_fd=bundle_fd)
        fd = os.open(temporary, flags, 0o600, dir_fd=bundle_fd)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if like.owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *like.owner)
            os.fchmod(fd, like.mode)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, CONFIG, src_dir_fd=bundle_fd, dst_dir_fd=bundle_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=bundle_fd)
        raise


def restore(settings: Settings, state: State) -> str:
    """Put config.json back as it was before ``state``'s container; what was done, in a word.

    ``restored`` (exactly the original bytes), ``mended`` (somebody had written the file: only
    our root and hooks were taken out), ``foreign`` (nothing of ours in it), ``gone``.
    Raises ``BundleError`` where it should have been written and could not be.
    """
    if not state.config_sha256 or not state.bundle:
        return "foreign"
    try:
        fd = open_bundle(state.bundle)
    except BundleError:
        return "gone"
    try:
        done = _restore(settings, state, fd)
        _remove_strays(fd)
        return done
    except OSError as error:
        raise BundleError(f"{state.bundle}: {error.strerror}") from None
    finally:
        os.close(fd)


def _restore(settings: Settings, state: State, fd: int) -> str:
    try:
        config = read_config(fd)
    except BundleError:
        return "restored" if _was_lost(fd) and _bring_back(settings, state, fd) else "gone"
    if _unchanged(state, config):
        if _put_back(settings, state, fd, config):
            return "restored"
        data = states.get(_original_path(settings, state))
        done = "restored"
    else:
        data, done = None, "mended"
    if data is None:
        if root_path(config.spec) != state.root_path or not state.root_path:
            return "foreign"
        _take_out(config.spec, state)
        data = lean.dumps(config.spec, "\t")
        done = "mended"
    try:
        _replace(fd, data, config, durable=True)
    except OSError as error:
        message = f"{state.bundle}: cannot restore {CONFIG}: {error.strerror}"
        raise BundleError(message) from None
    return done


def _put_back(settings: Settings, state: State, fd: int, present: Config | None = None) -> bool:
    """Rename the original to where it was; False where that is another file system.

    Also where somebody gave ``present`` another owner or mode since.
    """
    path = _original_path(settings, state)
    link = _kept_link(settings, state)
    try:
        if link:
            _relink(fd, link)
            return True
        kept = os.lstat(path)
        mine = (stat.S_IMODE(kept.st_mode), (kept.st_uid, kept.st_gid))
        if present is not None and mine != (present.mode, present.owner):
            return False
        os.rename(path, CONFIG, dst_dir_fd=fd)
    except OSError:
        return False
    return True


def _relink(fd: int, link: str) -> None:
    """The symlink that config.json was."""
    temporary = f".{CONFIG}.{os.getpid()}.clip"
    try:
        os.symlink(link, temporary, dir_fd=fd)
    except FileExistsError:  # of a process that had our number and died
        os.unlink(temporary, dir_fd=fd)
        os.symlink(link, temporary, dir_fd=fd)
    os.rename(temporary, CONFIG, src_dir_fd=fd, dst_dir_fd=fd)


def _bring_back(settings: Settings, state: State, fd: int) -> bool:
    """The original in place of an empty file."""
    if _put_back(settings, state, fd):
        return True
    data = states.get(_original_path(settings, state))
    if data is None:
        return False
    like = Config(data, {}, os.stat(CONFIG, dir_fd=fd, follow_symlinks=False))
    _replace(fd, data, like, durable=True)
    return True


def _was_lost(bundle_fd: int) -> bool:
    """Is config.json an empty file?  So a power cut leaves it where data is written last."""
    try:
        status = os.stat(CONFIG, dir_fd=bundle_fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def revive(settings: Settings, bundle_fd: int) -> bool:
    """Put back the original of a config.json that a power cut made empty; False for no such."""
    if not _was_lost(bundle_fd):
        return False
    path = os.readlink(f"/proc/self/fd/{bundle_fd}")
    owners = [state for state in states.list_states(settings) if state.bundle == path]
    return any(restore(settings, state) == "restored" for state in owners)


def _take_out(spec: Spec, state: State) -> None:
    """Undo root.path, our hooks and annotations in a spec that has other changes as well."""
    _take_out_annotations(spec)
    original = state.original_root
    path = original.get("path") if isinstance(original, dict) else None
    root = spec.get("root")
    if isinstance(root, dict):
        if path is None:
            del spec["root"]
        else:
            root["path"] = path
    hooks = spec.get("hooks")
    if not isinstance(hooks, dict):
        return
    for moment, ours in state.hooks.items():
        present = hooks.get(moment)
        if isinstance(present, list):
            hooks[moment] = [hook for hook in present if not _is_one_of(hook, ours)]
            if not hooks[moment]:
                del hooks[moment]
    if not hooks:
        del spec["hooks"]


def _is_one_of(hook: object, ours: list[object]) -> bool:
    """By path and arguments: who wrote the file since may have left empty members out."""

    def told(one: object) -> object:
        return (one.get("path"), one.get("args")) if isinstance(one, dict) else one

    return any(told(hook) == told(one) for one in ours)


def _take_out_annotations(spec: Spec) -> None:
    present = spec.get("annotations")
    if not isinstance(present, dict):
        return
    for name in [name for name in present if name.startswith(ANNOTATION_STATE)]:
        del present[name]
    if not present:
        del spec["annotations"]
