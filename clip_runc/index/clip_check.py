"""Everything about an index that can be checked without the image's bytes.

Opening an index checks its tables; this reads the rest: windows, config, manifest, EROFS.  It is
what an unprivileged process does before the index is believed.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from clip_runc.errors import IndexFormatError
from clip_runc.index import estargz, zstd_chunked
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_check import Stats, check_erofs
from clip_runc.index.model import ESTARGZ, ZSTD_CHUNKED, Layer

_TABLES = {ESTARGZ: estargz.toc_digest, ZSTD_CHUNKED: zstd_chunked.toc_digest}


def check_clip(clip: ClipFile) -> Stats:
    """Raise ``IndexFormatError`` unless all parts of the index are sound and agree.

    Time is linear in the index; memory is bounded by the EROFS image's limit.
    """
    _check_manifest(clip)
    _check_windows(clip)
    clip.prefetch()
    return check_erofs(clip.erofs(), [layer.raw_size for layer in clip.layers])


def _check_manifest(clip: ClipFile) -> None:
    manifest = _object(clip.manifest, "manifest")
    descriptor = manifest.get("config")
    digest = f"sha256:{hashlib.sha256(clip.config).hexdigest()}"
    if not isinstance(descriptor, dict) or descriptor.get("digest") != digest:
        raise IndexFormatError("the config of a .clip file is not the one that its manifest names")
    rows = manifest.get("layers")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise IndexFormatError("the manifest of a .clip file lists no layers")
    named = [(row.get("digest"), row.get("size")) for row in rows]
    if named != [(layer.digest, layer.comp_size) for layer in clip.layers]:
        raise IndexFormatError("the layers of a .clip file are not those of its manifest")
    for row, layer in zip(rows, clip.layers, strict=True):
        _check_table(row.get("annotations"), layer)
    rootfs = _object(clip.config, "config").get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids != [layer.diff_id for layer in clip.layers]:
        raise IndexFormatError("the diff_ids of a .clip file are not those of its config")


def _check_table(annotations: Any, layer: Layer) -> None:
    """Where a layer was not read but its table of contents: the manifest names that table."""
    digest_of = _TABLES.get(layer.origin)
    if digest_of is None:
        return
    pairs = annotations.items() if isinstance(annotations, dict) else ()
    texts = {key: value for key, value in pairs if isinstance(value, str)}
    if digest_of(texts) != layer.toc:
        raise IndexFormatError("a layer of a .clip file is from a table of another image")


def _check_windows(clip: ClipFile) -> None:
    clip.check_windows_section()
    for number, layer in enumerate(clip.layers):
        for place in range(len(layer.chunks)):
            clip.window(number, place)


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise IndexFormatError(f"the {what} of a .clip file is no JSON object")
    return value
