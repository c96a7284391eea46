"""From what a person types, a file or a reference, to an open index."""

from __future__ import annotations

from pathlib import Path

from clip_runc.config import Settings
from clip_runc.errors import ImageNotIndexed, IndexFormatError
from clip_runc.index.clipfile import ClipFile


def looks_like_file(text: str) -> bool:
    """Whether ``text`` is meant as the path of an index: it ends so, or is such a path."""
    return text.endswith(".clip") or text.startswith(("/", "./", "../"))


def index_path(settings: Settings, text: str) -> str:
    """The path of the index that ``text`` names.  Raises ``ImageNotIndexed``."""
    if looks_like_file(text):
        if not Path(text).exists():
            raise IndexFormatError(f"{text}: no such index file", "make it with clipctl index")
        return text
    from clip_runc.images.local import find

    image = find(settings, text)
    if image is None:
        raise ImageNotIndexed(
            f"{text}: not indexed on this machine", f"make an index with: clipctl index {text}"
        )
    return image.index_path


def open_index(settings: Settings, text: str) -> ClipFile:
    """Open the index that ``text`` names."""
    return ClipFile.open(index_path(settings, text))


def ensure_index(settings: Settings, text: str, *, keep: bool = False) -> str:
    """The path of the index of ``text``, made now (with progress) where it is not here yet.

    With ``keep`` what is fetched for that is kept for the container that follows.
    """
    if not looks_like_file(text):
        from clip_runc.images.local import find

        if find(settings, text) is None:
            from clip_runc.cli.console import layer_progress
            from clip_runc.images.make import index_image

            with layer_progress() as progress:
                index_image(settings, text, None, keep=keep, progress=progress)
    return index_path(settings, text)
