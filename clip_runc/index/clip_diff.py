"""Which parts of two indexes of one image differ: section, layer, chunk, window, path.

For an index that was made again: ``clip_diff`` of the two is empty where they say the same, and
otherwise names what a rebuilt index has otherwise.  What is compressed is compared uncompressed,
for another zstd may write other bytes; what was recorded of the image is no part of what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from clip_runc.index.checkpoints import gzip_target, raw_target
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.model import Chunk
from clip_runc.index.tree_diff import ADDED, REMOVED, Tree, diff_trees

MIB = 1 << 20
_PIECE = 1 << 20


def clip_diff(given: ClipFile, rebuilt: ClipFile) -> Iterator[str]:
    """What differs, a sentence each, coarse first.  Raises ``IndexFormatError``.

    Both are checked whole before their trees are walked.
    """
    if _same_bytes(given, rebuilt):
        return
    check_clip(given)
    check_clip(rebuilt)
    yield from _plain_sections(given, rebuilt)
    yield from _layers(given, rebuilt)
    yield from _trees(given, rebuilt)


def _same_bytes(given: ClipFile, rebuilt: ClipFile) -> bool:
    if given.size != rebuilt.size:
        return False
    return all(
        os.pread(given.fileno(), _PIECE, at) == os.pread(rebuilt.fileno(), _PIECE, at)
        for at in range(0, given.size, _PIECE)
    )


def _plain_sections(given: ClipFile, rebuilt: ClipFile) -> Iterator[str]:
    for name in ("manifest", "config", "platform", "source"):
        if getattr(given, name) != getattr(rebuilt, name):
            yield f"the {name} differs"


def _layers(given: ClipFile, rebuilt: ClipFile) -> Iterator[str]:
    if len(given.layers) != len(rebuilt.layers):
        yield f"{len(given.layers)} layers, not {len(rebuilt.layers)}"
        return
    for number, (one, two) in enumerate(zip(given.layers, rebuilt.layers, strict=True)):
        where = f"layer {number + 1} ({one.digest})"
        for name in ("digest", "diff_id", "media_type", "codec", "compression", "comp_size",
                     "raw_size", "origin", "toc", "chunk_hash"):  # fmt: skip
            if getattr(one, name) != getattr(two, name):
                yield f"{where}: {name} is {getattr(one, name)}, not {getattr(two, name)}"
        yield from _chunks(where, given, rebuilt, number)


def _chunks(where: str, given: ClipFile, rebuilt: ClipFile, layer: int) -> Iterator[str]:
    one, two = given.layers[layer].chunks, rebuilt.layers[layer].chunks
    comparable = given.layers[layer].chunk_hash == rebuilt.layers[layer].chunk_hash
    if len(one) != len(two):
        yield f"{where}: {len(one)} chunks, not {len(two)}"
    for number, (left, right) in enumerate(zip(one, two, strict=False)):
        if _place(left) != _place(right):
            # all that follow lie elsewhere, too
            yield f"{where}: chunk {number} is at {_place(left)}, not {_place(right)}"
            return
        if comparable and left.hash != right.hash:
            yield f"{where}: chunk {number} has another hash"
        if given.window(layer, number) != rebuilt.window(layer, number):
            yield f"{where}: chunk {number} has another window"


def _place(chunk: Chunk) -> tuple[int, ...]:
    """(uncompressed start and end, compressed start and end, bit), and pad and skip if any."""
    place = (chunk.raw_start, chunk.raw_end, chunk.comp_start, chunk.comp_end, chunk.bit)
    return (*place, chunk.pad, chunk.skip) if chunk.pad or chunk.skip else place


def _trees(given: ClipFile, rebuilt: ClipFile) -> Iterator[str]:
    one, two = given.erofs(), rebuilt.erofs()
    if one == two:
        return
    trees = [
        Tree(data, [layer.diff_hex for layer in clip.layers])
        for data, clip in ((one, given), (two, rebuilt))
    ]
    none = True
    for change in diff_trees(*trees, strict=True):
        none = False
        path = os.fsdecode(change.path)
        if change.kind in (ADDED, REMOVED):
            yield f"{path}: {'missing' if change.kind == ADDED else 'not in the image'}"
        for name, (left, right) in change.attributes.items():
            yield f"{path}: {name} is {left!r}, not {right!r}"
    if none:
        place = next(
            (at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
            min(len(one), len(two)),
        )
        yield f"the EROFS images differ from byte {place} on, though no path does"


def spacing(clip: ClipFile) -> int:
    """Which ``checkpoint_mib`` the index was made with, as far as it matters: 1 to 64.

    An index does not say.  But a chunk ends at the first possible place with that much behind
    it, so the largest value that no chunk is too short for gives the same chunks.
    """
    chunks = [(layer.codec, chunk) for layer in clip.layers for chunk in layer.chunks[:-1]]
    fits = (mib for mib in range(64, 1, -1) if all(_reaches(*one, mib * MIB) for one in chunks))
    return next(fits, 1)


def _reaches(codec: str, chunk: Chunk, target: int) -> bool:
    """Whether a chunk may end where it does, with this target."""
    size, raw = chunk.comp_end - chunk.comp_start, chunk.raw_end - chunk.raw_start
    if codec == "gzip":
        return size >= gzip_target(target) or raw >= raw_target(target)
    if codec == "zstd":
        return size >= target or raw >= raw_target(target)
    return codec != "none" or size >= target
