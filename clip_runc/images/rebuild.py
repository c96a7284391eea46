"""Checking an index by making it again: the same image must give the same bytes."""

from __future__ import annotations

import itertools
import os
import tempfile

from clip_runc.config import Settings
from clip_runc.images.make import Progress, index_image
from clip_runc.index.clip_diff import clip_diff, spacing
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.unprivileged import run_unprivileged

_SHOWN = 100
_SECONDS = 600


def differences(
    settings: Settings,
    path: str,
    *,
    checkpoint_mib: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """What the index at ``path`` has otherwise than one made now from its registry.

    Empty where both are the same bytes; at most a hundred differences and a last line that
    says there are more.  Every layer is fetched, but those that the index knows by a table of
    contents: the table is.  ``checkpoint_mib`` is what it was made with,
    by default what its chunks look like.  Raises as ``index_image`` does, and
    ``IndexFormatError`` where the file is no sound index.
    """
    with ClipFile.open(path) as given, tempfile.TemporaryDirectory(prefix="clip-deep-") as place:
        output = os.path.join(place, "rebuilt.clip")
        index_image(
            settings,
            f"{given.source}@{given.manifest_digest}",
            output,
            checkpoint_mib=checkpoint_mib or spacing(given),
            store=False,
            reuse=False,
            published=any(layer.origin for layer in given.layers),
            progress=progress,
        )
        with ClipFile.open(output) as rebuilt:
            return compare(settings, given.fileno(), rebuilt.fileno())


def compare(settings: Settings, given: int, rebuilt: int) -> list[str]:
    """As ``differences``, of two open files."""
    answer = run_unprivileged(
        settings.server_uid,
        _compare,
        given,
        rebuilt,
        keep_fds=(given, rebuilt),
        seconds=_SECONDS,
    )
    return [str(line) for line in answer] if isinstance(answer, list) else ["it cannot be compared"]


def _compare(given_fd: int, rebuilt_fd: int) -> list[str]:
    with ClipFile.open(given_fd) as given, ClipFile.open(rebuilt_fd) as rebuilt:
        found = list(itertools.islice(clip_diff(given, rebuilt), _SHOWN + 1))
    if len(found) > _SHOWN:
        found[_SHOWN:] = ["and more"]
    return found
