"""Containers as people want to see them: what each runs, how lazily, what it wrote and fetched."""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple

from clip_runc.config import Settings
from clip_runc.containers.state import State, directory, list_states
from clip_runc.images.local import list_images

Status = dict[str, Any]
_SECONDS = 2.0


class View(NamedTuple):
    """One container.

    ``lazy`` is the share of its image that is not on this machine, 0 to 1, and ``fetched`` the
    compressed bytes that came for its layers since clipd's server runs; None where clipd does not
    say, because it does not run or the image is not attached.  ``upper`` is what the container
    wrote, in bytes on disk; None where counting took too long.  ``completing``: what its
    image lacks is being fetched in the background.
    """

    state: State
    reference: str
    lazy: float | None
    fetched: int | None
    upper: int | None
    completing: bool = False

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        state = self.state
        return {
            "id": state.id,
            "key": state.key,
            "image": state.image,
            "reference": self.reference,
            "mode": state.mode,
            "root": state.root,
            "bundle": state.bundle,
            "created": state.created,
            "start": state.start,
            "lazy": self.lazy,
            "completing": self.completing,
            "fetched_bytes": self.fetched,
            "upper_bytes": self.upper,
        }


def views(settings: Settings, status: Status | None) -> list[View]:
    """Every container of this machine; ``status`` is what clipd says of itself."""
    names = {
        image.manifest_hex: min(references, default="")
        for image, references in list_images(settings)
    }
    images = {str(one.get("manifest")): one for one in (status or {}).get("images", [])}
    background = (status or {}).get("background", {})
    end = time.monotonic() + _SECONDS
    found = []
    for state in list_states(settings):
        layers = images.get(state.image, {}).get("layers")
        lazy, fetched = _shares(layers) if layers else (None, None)
        upper = tree_bytes(f"{directory(settings, state.key)}/upper", end)
        completing = background.get("image") == state.image
        found.append(View(state, names.get(state.image, ""), lazy, fetched, upper, completing))
    return found


def _shares(layers: list[dict[str, Any]]) -> tuple[float, int]:
    size = sum(int(layer.get("size", 0)) for layer in layers)
    there = sum(int(layer.get("size", 0)) * float(layer.get("present", 0)) for layer in layers)
    fetched = sum(int(layer.get("fetched", 0)) for layer in layers)
    return (max(0.0, 1 - there / size) if size else 0.0), fetched


def tree_bytes(path: str, end: float) -> int | None:
    """Bytes on disk below ``path``, hard links once; None after ``end`` (``time.monotonic``).

    The container writes there meanwhile: what vanishes is not counted.
    """
    seen: set[int] = set()
    total = 0
    pending = [path]
    while pending:
        if time.monotonic() > end:
            return None
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif status.st_nlink > 1 and status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                    total += status.st_blocks * 512
        except OSError:
            continue
    return total
