"""What of a spec the shim reads, and the edits that it makes."""

from __future__ import annotations

import os

from clip_runc.config import ANNOTATION_NOSUID
from clip_runc.errors import BundleError
from clip_runc.runtime.edits.annotations import Annotations
from clip_runc.runtime.edits.poststop_hook import PoststopHook
from clip_runc.runtime.edits.root_path import RootPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Protocol

    from clip_runc.linux.idmap import UserNamespace

    class Edit(Protocol):
        """One change of a spec."""

        def apply(self, spec: dict[str, object]) -> None:
            """Change ``spec`` in place.  Raises ``BundleError``."""


# libselinux mounts it here; it is there as soon as the kernel enforces or permits
_SELINUX = "/sys/fs/selinux/class"


def annotations_of(spec: dict[str, object]) -> dict[str, object]:
    """The annotations; empty where they are missing or malformed (runc will say so)."""
    found = spec.get("annotations")
    return found if isinstance(found, dict) else {}


def wants_nosuid(annotations: dict[str, object], default: bool) -> bool:
    """MS_NOSUID for this container?  Raises ``BundleError`` for a value that is none."""
    value = annotations.get(ANNOTATION_NOSUID)
    if value is None:
        return default
    if value not in ("true", "false"):
        raise BundleError(f"annotation {ANNOTATION_NOSUID} = {value!r}", 'use "true" or "false"')
    return value == "true"


def namespace_of(spec: dict[str, object]) -> UserNamespace | None:
    """The user namespace that the container gets; None where it has ours.

    Also None for one that the runtime will refuse: it has the words for it.
    """
    linux = _object(spec, "linux")
    entries = linux.get("namespaces")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("type") == "user":
            return _namespace(linux, entry.get("path"))
    return None


def _namespace(linux: dict[str, object], path: object) -> UserNamespace | None:
    from clip_runc.linux.idmap import UserNamespace

    if isinstance(path, str) and path:
        found = UserNamespace(path=path)
    else:
        uids, gids = _map_lines(linux.get("uidMappings")), _map_lines(linux.get("gidMappings"))
        if not (uids and gids):
            return None
        found = UserNamespace(uids, gids)
    return None if found.is_ours() else found


def _map_lines(mappings: object) -> str:
    """``linux.uidMappings`` as lines of ``/proc/PID/uid_map``; ``""`` for what is malformed."""
    lines = ""
    for mapping in mappings if isinstance(mappings, list) else ():
        if not isinstance(mapping, dict):
            return ""
        numbers = [mapping.get(name, 0) for name in ("containerID", "hostID", "size")]
        if not all(type(number) is int for number in numbers):
            return ""
        lines += " ".join(map(str, numbers)) + "\n"
    return lines


def cgroup_of(spec: dict[str, object]) -> str:
    """``linux.cgroupsPath``; ``""`` where the runtime is to choose."""
    path = _object(spec, "linux").get("cgroupsPath")
    return path if isinstance(path, str) else ""


def asks_for_more(spec: dict[str, object]) -> bool:
    """Has the spec something that a runtime may be too old for (``runtime/too_old.py``)?"""
    version = spec.get("ociVersion")
    newer = isinstance(version, str) and not version.startswith(("1.0", "1.1"))
    return newer or has_time_namespace(spec) or bool(seccomp_flags(spec))


def has_time_namespace(spec: dict[str, object]) -> bool:
    """Is one of the namespaces of the kind that came last?"""
    entries = _object(spec, "linux").get("namespaces")
    entries = entries if isinstance(entries, list) else ()
    return any(isinstance(entry, dict) and entry.get("type") == "time" for entry in entries)


def seccomp_flags(spec: dict[str, object]) -> object:
    """``linux.seccomp.flags``."""
    return _object(_object(spec, "linux"), "seccomp").get("flags")


def label_of(spec: dict[str, object]) -> str:
    """``linux.mountLabel``, where the kernel has SELinux; ``""`` otherwise."""
    label = _object(spec, "linux").get("mountLabel")
    return label if isinstance(label, str) and label and os.path.isdir(_SELINUX) else ""


def _object(spec: dict[str, object], name: str) -> dict[str, object]:
    found = spec.get(name)
    return found if isinstance(found, dict) else {}


def edits_for(
    rootfs: str, hook: str, hook_arguments: Sequence[str], annotations: Mapping[str, str]
) -> list[Edit]:
    """The edits that turn a bundle's spec into one over our root filesystem."""
    return [RootPath(rootfs), PoststopHook(hook, hook_arguments), Annotations(annotations)]


def apply_all(edits: Iterable[Edit], spec: dict[str, object]) -> None:
    """Make the edits, in order."""
    for edit in edits:
        edit.apply(spec)
