"""``create``, ``run``, ``restore`` and ``delete``: where the shim does more than pass through."""

from __future__ import annotations

import os
import sys

from clip_runc.errors import ClipError
from clip_runc.runtime.report import log, report_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.runtime.argv import Invocation

# Where a runtime keeps its containers when --root does not say: what its name begins with.
_ROOTS = {"crun": "/run/crun", "krun": "/run/crun", "youki": "/run/youki"}
_DEFAULT_ROOT = "/run/runc"
# how runc begins its errors (create.go, run.go, restore.go)
_PREFIXES = {"create": "runc create failed: ", "run": "runc run failed: ", "restore": ""}


def handle(invocation: Invocation, real: str, launcher: str) -> None:
    """Do our part of the command; on return it passes through to ``real``.

    What is ours and fails ends the process as runc would, with status 1.
    """
    if os.geteuid() != 0 or not in_first_user_namespace():
        if invocation.command != "delete":
            _warn(invocation)
        return
    try:
        root = root_of(invocation, real)
    except OSError:  # a relative --root in a working directory that is gone: runc says so
        return
    if invocation.command == "delete":
        _delete(invocation, root)
    else:
        _create(invocation, real, root, launcher)


def _warn(invocation: Invocation) -> None:
    """Say that an image of ours is not used where its bundle asks for it: we cannot mount here."""
    try:
        fd = os.open(f"{invocation.bundle}/config.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        data = os.read(fd, 16 << 20)
    except OSError:
        return
    finally:
        os.close(fd)
    from clip_runc.config import ANNOTATION_IMAGE, ANNOTATION_INDEX
    from clip_runc.images import lean

    try:
        annotations = lean.loads_object(data).get("annotations")
    except ValueError:
        return  # the runtime says so
    for name in (ANNOTATION_INDEX, ANNOTATION_IMAGE):
        if isinstance(annotations, dict) and name in annotations:
            why = "only root of the first user namespace can mount images"
            log(invocation, "warning", f"clip-runc: not lazy: annotation {name}: {why}")
            return


def _delete(invocation: Invocation, root: str) -> None:
    """Whatever is wrong with our part must not keep the runtime from deleting."""
    from clip_runc.runtime.delete import before_delete

    try:
        before_delete(invocation, root)
    except Exception as error:  # the process boundary: the runtime follows
        log(invocation, "warning", f"clip-runc: {_in_words(error, invocation)}")


def _create(invocation: Invocation, real: str, root: str, launcher: str) -> None:
    try:
        from clip_runc.runtime.create import create

        create(invocation, real, root, launcher)
    except Exception as error:  # the process boundary: no traceback for users
        report_error(invocation, _PREFIXES[invocation.command] + _in_words(error, invocation))
        sys.exit(1)


def _in_words(error: Exception, invocation: Invocation) -> str:
    """Our own errors speak for themselves; of others the kind is told, with --debug the place."""
    if isinstance(error, ClipError):
        return str(error)
    if invocation.debug:
        import traceback

        return traceback.format_exc()
    return f"clip-runc: {type(error).__name__}: {error}"


def in_first_user_namespace() -> bool:
    """Root of another user namespace (rootless podman) cannot mount what we mount."""
    try:
        fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return os.read(fd, 200).split() == [b"0", b"0", b"4294967295"]
    finally:
        os.close(fd)


def root_of(invocation: Invocation, real: str) -> str:
    """The absolute directory of the runtime's state.  Raises ``OSError``."""
    if invocation.root:
        return os.path.abspath(invocation.root)  # noqa: PTH100  # pathlib costs 8 ms
    name = os.path.basename(os.path.realpath(real))
    for prefix, root in _ROOTS.items():
        if name.startswith(prefix):
            return root
    return _DEFAULT_ROOT
