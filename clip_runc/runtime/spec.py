"""What of a spec the shim reads, and the edits that it makes."""

from __future__ import annotations

from clip_runc.config import ANNOTATION_NOSUID
from clip_runc.errors import BundleError
from clip_runc.runtime.edits.poststop_hook import PoststopHook
from clip_runc.runtime.edits.root_path import RootPath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Edit(Protocol):
        """One change of a spec."""

        def apply(self, spec: dict[str, object]) -> None:
            """Change ``spec`` in place.  Raises ``BundleError``."""


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


def edits_for(rootfs: str, hook: str, hook_arguments: Sequence[str]) -> list[Edit]:
    """The edits that turn a bundle's spec into one over our root filesystem."""
    return [RootPath(rootfs), PoststopHook(hook, hook_arguments)]


def apply_all(edits: Iterable[Edit], spec: dict[str, object]) -> None:
    """Make the edits, in order."""
    for edit in edits:
        edit.apply(spec)
