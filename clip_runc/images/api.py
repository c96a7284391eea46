"""Making and checking an index from a program: two of the three public steps."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass

# for the child that inspects, which may be unable to import anything
import zstandard  # noqa: F401

from clip_runc.config import Settings, load
from clip_runc.errors import ClipError, RegistryError
from clip_runc.images.make import IndexResult, Progress, index_image
from clip_runc.images.source import access_of
from clip_runc.index.clip_check import check_clip
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_read import ErofsImage
from clip_runc.linux.unprivileged import run_unprivileged
from clip_runc.registry.client import Registry

# Links that the root of a distribution with a merged /usr has.  The fault that started this
# project showed them empty.
_LINKS = (b"bin", b"lib", b"lib64", b"sbin")
_SECONDS = 600


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and whether it is as it should be."""

    ok: bool
    text: str


def create_from_oci_image(
    image_ref: str,
    output_path: str | os.PathLike[str],
    checkpoint_mib: int = 2,
    *,
    platform: str | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> IndexResult:
    """Make the index of an image straight from its registry and write it to ``output_path``.

    ``image_ref`` is a registry reference such as ``docker.io/library/ubuntu:24.04``; a local OCI
    directory raises ``InvalidReference``.  ``checkpoint_mib``: compressed MiB between two places
    where a gzip layer can be entered.  ``platform`` is ``os/architecture[/variant]``, by default
    this machine's.  ``progress(layer digest, bytes done, bytes in all)``.  Needs no privileges.
    Raises ``ClipError``; no file is left then.
    """
    return index_image(
        settings or load(),
        image_ref,
        os.fspath(output_path),
        platform=platform,
        checkpoint_mib=checkpoint_mib,
        store=False,
        progress=progress,
    )


def verify(
    index_path: str | os.PathLike[str],
    *,
    settings: Settings | None = None,
    offline: bool = False,
) -> list[Check]:
    """Check the index at ``index_path``; with its registry, unless ``offline``.

    Says of each part whether it is sound: structure and digests, the links in the root, /proc,
    and that every layer can be had where the index says.  Raises only for a file that cannot be
    opened as an index.
    """
    settings = settings or load()
    with ClipFile.open(os.fspath(index_path)) as clip:
        checks = _check_inside(settings, clip)
        if not offline:
            checks += _check_registry(settings, clip)
    return checks


def _check_inside(settings: Settings, clip: ClipFile) -> list[Check]:
    """Parse everything, as a process without privileges where we are root."""
    fd = clip.fileno()
    try:
        answer = run_unprivileged(
            settings.server_uid, inspect, fd, keep_fds=(fd,), seconds=_SECONDS
        )
    except ClipError as error:
        return [Check(False, f"the index is sound: {error}")]
    rows = answer if isinstance(answer, list) else []
    return [Check(bool(ok), str(text)) for ok, text in rows]


def inspect(fd: int) -> list[tuple[bool, str]]:
    """The checks that need nothing but the index open as ``fd``.  Raises ``IndexFormatError``."""
    clip = ClipFile.open(fd)
    stats = check_clip(clip)
    found = [
        (True, f"the manifest is {clip.manifest_digest}, and config and layers are what it names"),
        (True, f"the metadata is sound: {stats.inodes} inodes, {stats.files} files, "
               f"{stats.dirs} directories, {stats.symlinks} symlinks"),
    ]  # fmt: skip
    image = ErofsImage(clip.erofs())
    found += [_link(image, name) for name in _LINKS if image.lookup(image.root, name) is not None]
    found.append(_proc(image))
    chunks = sum(len(layer.chunks) for layer in clip.layers)
    raw = sum(layer.raw_size for layer in clip.layers)
    found.append((True, f"{len(clip.layers)} layers in {chunks} chunks cover {raw} bytes"))
    return found


def _link(image: ErofsImage, name: bytes) -> tuple[bool, str]:
    nid = image.lookup(image.root, name)
    assert nid is not None
    shown = os.fsdecode(name)
    mode = image.inode(nid).mode
    if stat.S_ISLNK(mode):
        target = image.readlink(nid)
        return bool(target), f"/{shown} -> {os.fsdecode(target) or '(empty)'}"
    return stat.S_ISDIR(mode), f"/{shown} is {'a directory' if stat.S_ISDIR(mode) else 'a file'}"


def _proc(image: ErofsImage) -> tuple[bool, str]:
    nid = image.lookup(image.root, b"proc")
    if nid is None:
        return True, "/proc is not in the image; the runtime makes it (as with images from scratch)"
    ok = stat.S_ISDIR(image.inode(nid).mode)
    return ok, f"/proc {'is a directory' if ok else 'is no directory'}"


def _check_registry(settings: Settings, clip: ClipFile) -> list[Check]:
    checks: list[Check] = []
    with access_of(settings, clip).connect() as registry:
        checks.append(_manifest(registry, clip))
        for number, layer in enumerate(clip.layers, 1):
            name = f"layer {number} of {len(clip.layers)}, {layer.digest[:19]}…"
            checks.append(_layer(registry, layer.digest, layer.comp_size, name))
    return checks


def _manifest(registry: Registry, clip: ClipFile) -> Check:
    where = f"{clip.source} has the manifest"
    try:
        same = json.loads(registry.manifest()[0]) == json.loads(clip.manifest)
    except RegistryError as error:
        return Check(False, f"{where}: {error}")
    return Check(same, where)


def _layer(registry: Registry, digest: str, size: int, name: str) -> Check:
    """Its last byte: that is there, and ranges work."""
    try:
        registry.read_range(digest, max(0, size - 1), size)
    except RegistryError as error:
        return Check(False, f"{name}: {error}")
    return Check(True, f"{name} can be read in the registry, {size} bytes")
