"""From a ``.clip`` file of the Go library to an index of the same image."""

from __future__ import annotations

import dataclasses
import os

from clip_runc.config import Settings
from clip_runc.errors import IndexFormatError
from clip_runc.images.adding import open_index
from clip_runc.images.go_clip import GoClip, read
from clip_runc.images.make import IndexResult, Progress, index_image
from clip_runc.index.clip_format import MAGIC
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.unprivileged import run_unprivileged


def import_clip(
    settings: Settings,
    path: str,
    output: str | None = None,
    *,
    store: bool = True,
    progress: Progress | None = None,
) -> IndexResult:
    """Index the image that the Go library's file at ``path`` was made from, as ``index_image``.

    A file that names a tag only may find another image there by now: ``warnings`` says so.
    Raises ``IndexFormatError`` for a file that names no image.
    """
    old = _read(settings, path)
    made = index_image(
        settings,
        old.reference,
        output,
        platform=old.platform or None,
        store=store,
        progress=progress,
    )
    with ClipFile.open(made.path) as clip:
        same = tuple(layer.digest for layer in clip.layers) == old.layers
    if same:
        return made
    warning = f"{old.reference} has other layers by now than those that {path} was made from"
    return dataclasses.replace(made, warnings=(*made.warnings, warning))


def _read(settings: Settings, path: str) -> GoClip:
    """What the file says, read in a process without privileges."""
    fd = open_index(path)
    try:
        if os.pread(fd, len(MAGIC), 0) == MAGIC:
            raise IndexFormatError(
                f"{path}: an index already", "use it as it is: clipctl bundle, run, mount"
            )
        found = run_unprivileged(settings.server_uid, _parts, fd, keep_fds=[fd])
    except IndexFormatError as error:
        message = error.message if path in error.message else f"{path}: {error.message}"
        raise IndexFormatError(message, error.hint) from None
    finally:
        os.close(fd)
    assert isinstance(found, list)
    reference, platform, layers = found
    return GoClip(str(reference), str(platform), tuple(str(layer) for layer in layers))


def _parts(fd: int) -> list[object]:
    found = read(fd)
    return [found.reference, found.platform, list(found.layers)]
