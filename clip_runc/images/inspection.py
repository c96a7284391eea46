"""What an unprivileged child does with an index before this machine believes it."""

from __future__ import annotations

import hashlib
import os

# for the child, which may be unable to import anything
import zstandard  # noqa: F401

from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.store.checking import check_layer

_PIECE = 1 << 20


def check_and_extract(index_fd: int, erofs_fd: int) -> dict[str, object]:
    """Check the whole index at ``index_fd``; write its EROFS image to ``erofs_fd``.

    What comes back is what ``images/local.py`` notes of an image; JSON values only.
    Raises ``IndexFormatError``.
    """
    clip = ClipFile.open(index_fd)
    check_clip(clip)
    view = memoryview(clip.erofs())
    while view:
        view = view[os.write(erofs_fd, view[:_PIECE]) :]
    return describe(clip)


def check_stored(store_fd: int, index_fd: int, number: int, boot: str) -> list[int] | None:
    """What ``check_layer`` finds of the stored bytes of layer ``number`` of that index."""
    with ClipFile.open(index_fd) as clip:
        return check_layer(store_fd, clip.layers[number], boot)


def describe(clip: ClipFile) -> dict[str, object]:
    """An index in a few words: digests, platform, source, and the layers' names and sizes."""
    return {
        "manifest": clip.manifest_digest.removeprefix("sha256:"),
        "image_id": f"sha256:{hashlib.sha256(clip.config).hexdigest()}",
        "platform": clip.platform,
        "source": clip.source,
        "content": clip.content_digest,
        "prefetch": len(clip.prefetch()),
        "layers": [
            {"digest": x.digest, "diff": x.diff_hex, "size": x.comp_size, "raw_size": x.raw_size}
            for x in clip.layers
        ],
    }
