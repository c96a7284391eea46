"""The commands where the shim does more than pass through: those in ``argv.OURS``."""

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
# how runc begins its errors (create.go, run.go, restore.go)
_PREFIXES = {"create": "runc create failed: ", "run": "runc run failed: ", "restore": ""}


def handle(invocation: Invocation, real: str, launcher: str) -> None:
    """Do our part of the command; on return it passes through to ``real``.

    What is ours and fails ends the process as runc would, with status 1.
    """
    if os.geteuid() != 0:
        if invocation.command not in ("delete", "checkpoint"):
            _refuse(invocation)
        return
    try:
        root = root_of(invocation, real)
    except OSError:  # a relative --root in a working directory that is gone: runc says so
        return
    if invocation.command in ("delete", "checkpoint"):
        _before(invocation, root)
    else:
        _create(invocation, real, root, launcher)


def _refuse(invocation: Invocation) -> None:
    """Outside of a user namespace nobody but root mounts: end where the bundle names our image.

    What is in its rootfs is not what it asks for.  We make no namespace here: what the runtime's
    later commands see would be of another than their caller's (docs/rootless.md).
    """
    name = _explicit_annotation(invocation.bundle)
    if not name:
        return
    from clip_runc.config import DEFAULTS
    from clip_runc.runtime.plain_config import load_settings

    why = f"annotation {name}: user {os.geteuid()} may mount nothing outside of a user namespace"
    try:
        policy = load_settings().explicit_policy
    except ClipError:
        policy = str(DEFAULTS["explicit_policy"])
    if policy == "pass":
        log(invocation, "warning", f"clip-runc: not lazy: {why}")
        return
    hint = "clipctl unshare clip-runc …, or podman unshare clip-runc …"
    report_error(invocation, f"{_PREFIXES[invocation.command]}{why} ({hint})")
    sys.exit(1)


def _explicit_annotation(bundle: str) -> str:
    """The annotation of ours by which the bundle names an image; ``""`` for none."""
    try:
        fd = os.open(f"{bundle}/config.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        data = os.read(fd, 16 << 20)
    except OSError:
        return ""
    finally:
        os.close(fd)
    from clip_runc.config import ANNOTATION_IMAGE, ANNOTATION_INDEX
    from clip_runc.images import lean

    try:
        annotations = lean.loads_object(data).get("annotations")
    except ValueError:
        return ""  # the runtime says so
    if isinstance(annotations, dict):
        for name in (ANNOTATION_INDEX, ANNOTATION_IMAGE):
            if name in annotations:
                return name
    return ""


def _before(invocation: Invocation, root: str) -> None:
    """Whatever is wrong with our part must not keep the runtime from its own."""
    try:
        if invocation.command == "delete":
            from clip_runc.runtime.delete import before_delete

            before_delete(invocation, root)
        else:
            from clip_runc.runtime.checkpoint import before_checkpoint

            before_checkpoint(invocation, root)
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


def root_of(invocation: Invocation, real: str) -> str:
    """The absolute directory of the runtime's state.  Raises ``OSError``."""
    if invocation.root:
        return os.path.abspath(invocation.root)  # noqa: PTH100  # pathlib costs 8 ms
    name = os.path.basename(os.path.realpath(real))
    root = next((found for prefix, found in _ROOTS.items() if name.startswith(prefix)), "/run/runc")
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if own and (name.startswith(("crun", "krun")) or _honours_runtime_dir()):
        return own + root.removeprefix("/run")
    return root


def _honours_runtime_dir() -> bool:
    """runc's ``shouldHonorXDGRuntimeDir``: for whoever is not the machine's root (crun: always)."""
    from clip_runc.config import is_rootless

    return os.geteuid() != 0 or (is_rootless() and os.environ.get("USER") != "root")
