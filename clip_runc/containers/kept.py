"""What a container that was checkpointed wrote to its root, kept for ``restore``.

runc destroys a container that it has checkpointed, and with plain runc its files stay: they are in
the bundle's own root.  Ours are the overlay's.  So ``checkpoint`` leaves a mark in the container's
directory, and whoever takes that container down moves its upper directory to
``containers/.kept/<name>/upper`` instead of removing it.  The bundle's directory has the name as an
extended attribute: as with a root of its own, a bundle that is removed, or made anew, takes along
what was kept for it (``gc``), and any number of containers can be restored from it.
"""

from __future__ import annotations

import os

from clip_runc.config import is_rootless
from clip_runc.containers import state as states
from clip_runc.errors import StoreError
from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.containers.state import State

# Of the kind that only the machine's root can set, where we are that.
ATTRIBUTES = ("trusted.clip-runc.kept", "user.clip-runc.kept")
_MARK = "checkpointed"
_NOTE = "note.json"
_HEX = frozenset("0123456789abcdef")
_COPY = ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--"]
_DIRECTORIES = ("/bin", "/usr/bin")


def mark(settings: Settings, key: str, images: str) -> None:
    """Container ``key`` is about to be checkpointed into the directory ``images``.

    Raises ``OSError``.
    """
    states.put(f"{states.directory(settings, key)}/{_MARK}", os.fsencode(images), durable=False)


def keep(settings: Settings, state: State) -> None:
    """Before its directory is removed: move away what a marked container wrote.

    Not where criu left no inventory in its directory of images: then there is no checkpoint.
    Raises ``OSError``: then nothing is kept.
    """
    directory = states.directory(settings, state.key)
    marked = states.get(f"{directory}/{_MARK}")
    if marked is None or not os.path.isdir(f"{directory}/upper"):
        return
    images = os.fsdecode(marked)
    if os.path.isdir(images) and not os.path.exists(f"{images}/inventory.img"):
        return
    name = os.urandom(12).hex()
    place = f"{_directory(settings)}/{name}"
    os.makedirs(place, 0o700)
    note = {"bundle": state.bundle, "image": state.image}
    states.put(f"{place}/{_NOTE}", lean.dumps(note), durable=False)
    os.rename(f"{directory}/upper", f"{place}/upper")
    before = _name_at(state.bundle)
    os.setxattr(state.bundle, attribute(), name.encode())
    if before:
        _remove(settings, before)


def find(settings: Settings, bundle: str, image: str) -> str:
    """The upper directory kept for a bundle and the image of that digest; ``""`` for none."""
    name = _name_at(bundle)
    place = f"{_directory(settings)}/{name}"
    if not name or _note(place).get("image") != image:
        return ""
    return f"{place}/upper"


def give(kept: str, upper: str) -> None:
    """Make ``upper``, which must not exist, a copy of the directory ``kept``.

    Shares the blocks where the file system can.  Raises ``StoreError``.
    """
    program = next((f"{d}/cp" for d in _DIRECTORIES if os.access(f"{d}/cp", os.X_OK)), "")
    if not program:
        raise StoreError(f"no cp in {' or '.join(_DIRECTORIES)}", "install coreutils")
    null = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in range(3)]
    child = os.posix_spawn(program, [*_COPY, kept, upper], {"LC_ALL": "C"}, file_actions=null)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise StoreError(f"cannot copy {kept}: cp exited with {code}", "is the disk full?")


def drop_orphans(settings: Settings) -> list[str]:
    """Remove what was kept for bundles that are gone; their paths."""
    try:
        names = os.listdir(_directory(settings))
    except FileNotFoundError:
        return []
    dropped = []
    for name in names:
        bundle = str(_note(f"{_directory(settings)}/{name}").get("bundle", ""))
        if _name_at(bundle) != name and _remove(settings, name):
            dropped.append(bundle)
    return dropped


def attribute() -> str:
    """The extended attribute of a bundle that says what is kept for it."""
    return ATTRIBUTES[is_rootless()]


def _directory(settings: Settings) -> str:
    return f"{settings.container_dir}/.kept"


def _name_at(bundle: str) -> str:
    try:
        name = os.getxattr(bundle, attribute()).decode("ascii", "replace")
    except OSError:
        return ""
    return name if len(name) == 24 and _HEX.issuperset(name) else ""


def _note(place: str) -> dict[str, object]:
    try:
        return lean.loads_object(states.get(f"{place}/{_NOTE}") or b"{}")
    except ValueError:
        return {}


def _remove(settings: Settings, name: str) -> bool:
    from clip_runc.containers.removal import remove_tree

    return not remove_tree(f"{_directory(settings)}/{name}")
