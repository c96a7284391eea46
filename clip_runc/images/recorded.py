"""Prefetch lists of an index on this machine: made of what clipd saw, and written into it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.fs.client import Client
from clip_runc.images import adding, local
from clip_runc.images.local import LocalImage
from clip_runc.images.strays import new_index
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.prefetch import PrefetchList, Touch, listed_bytes, make_list, merge
from clip_runc.linux.files import lock, make_private_dir


@dataclass(frozen=True)
class Recorded:
    """A list that is in an index now: how much it holds, of how much.  Sizes in bytes."""

    index: str
    command: tuple[str, ...]
    chunks: int
    bytes: int
    image_bytes: int
    ranges: int
    phases: int
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def touches_of(client: Client, manifest_hex: str) -> list[Touch]:
    """What clipd saw of an image since it was attached, in seconds from the first read."""
    rows = [
        (float(str(first)), int(str(layer)), int(str(chunk)), float(str(until)))
        for layer, chunk, first, until in client.trace(manifest_hex, "touched")
    ]
    begin = min((row[0] for row in rows), default=0.0)
    return [
        Touch(first - begin, layer, chunk, until - begin if until else 0.0)
        for first, layer, chunk, until in sorted(rows)
    ]


def write_list(
    settings: Settings, path: str, command: Sequence[str], touches: Sequence[Touch]
) -> Recorded:
    """Put the list of ``touches`` into the index at ``path``, for ``command``.

    An index of the local store is replaced there, any other file where it lies.  Raises
    ``ClipError`` where nothing was seen.
    """
    if not touches:
        raise ClipError(
            "no read of the image was seen",
            "the kernel had all of it, or every layer is complete on disk: record by reference",
        )
    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(settings.lock_dir)
    with lock(f"{settings.lock_dir}/record"), ClipFile.open(path) as clip:
        made = make_list(command, touches, clip.layers)
        _replace(settings, path, clip, merge(clip.prefetch(), made))
        size = listed_bytes(made, clip.layers)
        whole = sum(layer.comp_size for layer in clip.layers)
    return Recorded(
        index=path,
        command=made.command,
        chunks=sum(one.last - one.first + 1 for one in made.ranges),
        bytes=size,
        image_bytes=whole,
        ranges=len(made.ranges),
        phases=1 + made.ranges[-1].phase,
        seconds=max(max(touch.seconds, touch.until) for touch in touches),
    )


def forget_lists(settings: Settings, path: str) -> int:
    """Take every list out of the index at ``path``; how many there were."""
    with ClipFile.open(path) as clip:
        count = len(clip.prefetch())
        if count:
            _replace(settings, path, clip, [])
    return count


def _replace(settings: Settings, path: str, clip: ClipFile, lists: Iterable[PrefetchList]) -> None:
    image = _stored(settings, path)
    directory = os.path.dirname(path) or "."
    fd, temporary = new_index(directory)
    try:
        with open(fd, "wb", closefd=False) as out:
            clip.write_with_prefetch(out, lists)
        os.fchmod(fd, 0o644)
        if image is None:
            os.fsync(fd)
            os.rename(temporary, path)
            return
        known = local.info_of(settings, image.manifest_hex).get("references")
        names = [str(name) for name in known] if isinstance(known, list) else []
        adding.add_open(settings, fd, path, names, lists=True)
    finally:
        os.close(fd)
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _stored(settings: Settings, path: str) -> LocalImage | None:
    """The image whose index in the local store the file is."""
    directory, name = os.path.split(os.path.realpath(path))
    digits = name.removesuffix(".clip")
    if directory != os.path.realpath(settings.index_dir) or not local.is_hex(digits):
        return None
    return local.at(settings, digits)
