"""Images of small layers in a fake registry, and indexes of them that are changed afterwards."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import replace
from pathlib import Path

from clip_runc.index.clipfile import ClipFile, write_clip
from clip_runc.registry.fake import FakeRegistry
from tests.unit.images.small_clip import sha256


def tar_of(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def add(fake: FakeRegistry, *tars: bytes) -> str:
    blobs = [gzip.compress(data, 1, mtime=0) for data in tars]
    fake.add_image("team/app", "1", blobs, diff_ids=[sha256(data) for data in tars])
    return str(fake.reference("team/app", "1"))


def rewrite(path: Path, **changes: object) -> None:
    """The same index with other arguments to ``write_clip``."""
    with ClipFile.open(str(path)) as clip:
        windows = [
            b"".join(stored_window(clip, chunk.window) for chunk in layer.chunks)
            for layer in clip.layers
        ]
        arguments: dict[str, object] = {
            "manifest": clip.manifest,
            "config": clip.config,
            "platform": clip.platform,
            "source": clip.source,
            "layers": [
                (local_windows(layer), data)
                for layer, data in zip(clip.layers, windows, strict=True)
            ],
            "erofs": clip.erofs(),
        }
    with path.open("wb") as out:
        write_clip(out, **{**arguments, **changes})  # type: ignore[arg-type]


def stored_window(clip: ClipFile, place: tuple[int, int]) -> bytes:
    return clip._read(clip._sections[b"WIND"].offset + place[0], place[1])


def local_windows(layer):
    """The layer with places of windows that count from its own start, as ``write_clip`` wants."""
    chunks, at = [], 0
    for chunk in layer.chunks:
        length = chunk.window[1]
        chunks.append(replace(chunk, window=(at, length) if length else (0, 0)))
        at += length
    return replace(layer, chunks=tuple(chunks))
