"""What is remembered of a container, in ``<container_dir>/<key>/state.json``.

Our own directory, never an annotation: an image can bring annotations.  The file is read
defensively all the same; a damaged one counts as none.
"""

from __future__ import annotations

import os

from clip_runc.containers.key import is_key
from clip_runc.images import lean
from clip_runc.images.local import is_hex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

VERSION = 1
_LIMIT = 4 << 20

# Made by runc and crun before there is a container, which state.json and status speak of.
_HALF_MADE = frozenset(("config.json", "exec.fifo", "notify", "notify.sock"))

_TEXTS = ("key", "id", "root", "bundle", "image", "mode", "boot", "config_sha256", "root_path")


class State:
    """One container.

    ``id`` and ``root`` are runc's (``root`` is ``""`` for a mount made through the API);
    ``bundle`` the real path of its directory; ``image`` the hexadecimal digits of the manifest
    digest; ``mode`` how the image is mounted; ``created`` seconds since 1970; ``boot`` the boot
    it was made in; ``creator`` (pid, start time in clock ticks) of the process that made it,
    which becomes runc.  Of the bundle: ``config_sha256`` of the config.json that we wrote,
    ``root_path`` in it, ``original_root`` what root was, ``hooks`` those that we added.
    ``start`` says in words how it was started: the annotations that ``state`` shows.
    ``cgroups`` are those that the runtime was about to make.
    """

    __slots__ = (
        "boot",
        "bundle",
        "cgroups",
        "config_sha256",
        "created",
        "creator",
        "hooks",
        "id",
        "image",
        "key",
        "mode",
        "original_root",
        "root",
        "root_path",
        "start",
    )

    def __init__(self, key: str) -> None:
        self.key = key
        self.id = self.root = self.bundle = self.image = self.mode = self.boot = ""
        self.config_sha256 = self.root_path = ""
        self.created = 0
        self.creator = (0, 0)
        self.original_root: object = None
        self.hooks: dict[str, list[object]] = {}
        self.start: dict[str, str] = {}
        self.cgroups: list[str] = []

    def as_dict(self) -> dict[str, object]:
        """As it stands in the file."""
        return {"version": VERSION, **{name: getattr(self, name) for name in self.__slots__}}


def directory(settings: Settings, key: str) -> str:
    """Where upper, work and the state of container ``key`` are."""
    return f"{settings.container_dir}/{key}"


def rootfs_path(settings: Settings, key: str) -> str:
    """Where the overlay of container ``key`` is mounted."""
    return f"{settings.rootfs_dir}/{key}/rootfs"


def idmapped_path(settings: Settings, key: str) -> str:
    """Where the image is mounted with the owners of a user namespace while the overlay is made."""
    return f"{settings.rootfs_dir}/{key}/lower"


def lock_path(settings: Settings, key: str) -> str:
    """The file whose lock is held while a container is made or taken down."""
    return f"{settings.lock_dir}/container-{key}"


def exists(settings: Settings, key: str) -> bool:
    """Is anything of the container there: its directory, or its mount point?"""
    places = (directory(settings, key), f"{settings.rootfs_dir}/{key}")
    return any(os.path.lexists(place) for place in places)


def save(settings: Settings, state: State, *, durable: bool) -> None:
    """Write the state.  ``durable`` waits for the disk: before a bundle is changed."""
    put(f"{directory(settings, state.key)}/state.json", lean.dumps(state.as_dict()), durable)


def put(path: str, data: bytes, durable: bool) -> None:
    """Replace the file at ``path`` (0600), whole or not at all.

    The directory is not synced: what is written durably here comes before the change of a
    bundle, whose own fsync commits the journal that this rename is in.
    """
    temporary = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)


def load(settings: Settings, key: str) -> State | None:
    """The state of container ``key``; None where there is none that makes sense."""
    data = get(f"{directory(settings, key)}/state.json")
    try:
        values = lean.loads_object(data) if data else {}
    except ValueError:
        return None
    return _parse(key, values)


def get(path: str) -> bytes | None:
    """The bytes of a file of ours; None where it is missing or larger than it can be."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(fd).st_size
        return os.read(fd, size) if size <= _LIMIT * 4 else None
    except OSError:
        return None
    finally:
        os.close(fd)


def list_states(settings: Settings) -> list[State]:
    """The state of every container of this machine, by key."""
    try:
        names = sorted(os.listdir(settings.container_dir))
    except FileNotFoundError:
        return []
    found = [load(settings, name) for name in names if is_key(name)]
    return [state for state in found if state is not None]


def _parse(key: str, values: dict[str, object]) -> State | None:
    texts = {name: values.get(name) for name in _TEXTS}
    if values.get("version") != VERSION or texts["key"] != key:
        return None
    state = State(key)
    for name, text in texts.items():
        if not isinstance(text, str):
            return None
        setattr(state, name, text)
    created, creator, hooks = (values.get(name) for name in ("created", "creator", "hooks"))
    if not is_hex(state.image) or not isinstance(created, int):
        return None
    if not isinstance(creator, list) or [type(x) for x in creator] != [int, int]:
        return None
    if not isinstance(hooks, dict) or not all(isinstance(x, list) for x in hooks.values()):
        return None
    state.created = created
    state.creator = (creator[0], creator[1])
    state.hooks = hooks
    state.original_root = values.get("original_root")
    start = values.get("start")
    for name, text in (start if isinstance(start, dict) else {}).items():
        state.start[name] = str(text)
    cgroups = values.get("cgroups")
    state.cgroups = [str(path) for path in (cgroups if isinstance(cgroups, list) else ())]
    return state


def start_time(pid: int | str) -> int:
    """When process ``pid`` started, in clock ticks since boot; 0 if it is gone or a zombie."""
    data = get_proc(f"/proc/{pid}/stat")
    # the name in parentheses may hold anything, parentheses included
    fields = data.rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return 0
    return int(fields[19])


def get_proc(path: str) -> bytes:
    """A short file of /proc; ``b""`` where it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def known_to_runc(root: str, container_id: str) -> bool:
    """Has runc (or crun, youki, gVisor) a container of that id below ``root``?

    What a runtime that was killed in the middle of a create leaves in its directory is none.
    The directory of a runtime that we do not know counts by whatever else is in it.
    """
    if not root:
        return False
    try:
        names = os.listdir(f"{root}/{container_id}")
    except OSError:
        names = []
    known = any(not (name in _HALF_MADE or name.startswith("state-")) for name in names)
    return known or _known_to_runsc(root, container_id)


def being_created(state: State) -> bool:
    """Is the process that prepared the container still at it?

    The shim becomes runc by exec: pid and start time stay.  ``runc run`` is that process for as
    long as the container runs.
    """
    pid, started = state.creator
    return bool(pid and started) and start_time(pid) == started


def in_use(state: State, boot: str) -> bool:
    """Must the container be left alone?  One that the API made lives until it is unmounted."""
    if state.boot != boot:
        return False
    if not state.root:
        return True
    return known_to_runc(state.root, state.id) or being_created(state)


def _known_to_runsc(root: str, container_id: str) -> bool:
    """gVisor has a file ``<sandbox>_sandbox:<id>.state`` instead of a directory."""
    try:
        return any(name.endswith(f"_sandbox:{container_id}.state") for name in os.listdir(root))
    except OSError:
        return False
