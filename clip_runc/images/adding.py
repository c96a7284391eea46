"""How an index gets into this machine's store, and out of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from hashlib import sha256

from clip_runc.config import Settings
from clip_runc.errors import ClipError, ImageNotIndexed, IndexFormatError, StoreError
from clip_runc.images import lean
from clip_runc.images.local import (
    LocalImage,
    at,
    find,
    find_alias,
    info_of,
    is_hex,
    leases_of,
    normal_name,
    read_record,
    record_path,
)
from clip_runc.linux.files import lock, make_private_dir, write_atomic

_COPY = 1 << 20
# an index is a few per mille of its image; what is larger was not made by us
INDEX_LIMIT = 4 << 30


def add_open(
    settings: Settings,
    source: int,
    name: str,
    references: Sequence[str] = (),
    aliases: Sequence[str] = (),
    *,
    expected: str = "",
    private: bool = False,
    lists: bool = False,
    unasked: bool = False,
) -> LocalImage:
    """As ``add``, for an open descriptor; ``name`` is for messages.

    ``aliases`` are names for ``local.find_alias`` only: any text, never shown.  ``expected`` is
    the manifest digest that the index must be of.  A ``private`` one came with an image of
    anybody: it is kept under the digest of its own bytes, so that it can stand in for no other.
    An index that was recorded is not replaced by one that only lacks its prefetch lists, unless
    that is what ``lists`` is for.  ``unasked``: it is what the references mean where nobody names a
    platform, also if it is not this machine's.
    """
    make_directories(settings)
    with lock(f"{settings.index_dir}/.lock"):
        try:
            image, info, alias = _add(settings, source, name, expected, private, lists)
            record(settings, image, info, references, [*alias, *aliases], unasked=unasked)
            return image
        except OSError as error:
            message = f"cannot keep the index {name}: {error.strerror}"
            raise StoreError(message, f"check the space on {settings.state_dir}") from None


def open_index(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IndexFormatError(f"{path}: {error.strerror}", "name a .clip file") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > INDEX_LIMIT:
        os.close(fd)
        raise IndexFormatError(f"{path}: not an index", "name a .clip file")
    return fd


def make_directories(settings: Settings) -> None:
    """Make the directories of the index store."""
    make_private_dir(settings.state_dir, 0o755)
    make_private_dir(settings.index_dir, 0o755)
    make_private_dir(settings.reference_dir, 0o755)


def _add(
    settings: Settings,
    source: int,
    name: str,
    expected: str,
    private: bool,
    lists: bool,
) -> tuple[LocalImage, dict[str, object], list[str]]:
    """The image, what is known of it, and the alias of its bytes if they are kept."""
    temporary = f"{settings.index_dir}/.new"
    try:
        content = _copy(source, f"{temporary}.clip")
        alias = f"{'private' if private else 'clip'}-sha256:{content}"
        same = find_alias(settings, alias)
        info = info_of(settings, same.manifest_hex) if same is not None else {}
        if same is not None and info.get("sha256") == content and os.path.exists(same.index_path):
            _refuse_other(name, info, expected)
            image = same
        else:
            info = _check(settings, f"{temporary}.clip", f"{temporary}.erofs", name)
            _refuse_other(name, info, expected)
            image = at(settings, content if private else str(info["manifest"]))
            if not lists and _is_poorer(info, info_of(settings, image.manifest_hex)):
                return image, info_of(settings, image.manifest_hex), []
            info["sha256"] = content
            if private:
                # shown in lists, and no name that leads here
                info["references"] = [f"stub of {info['source']}@sha256:{info['manifest']}"]
                info["image_id"] = ""
            os.rename(f"{temporary}.erofs", image.erofs_path)
            os.rename(f"{temporary}.clip", image.index_path)
    finally:
        for ending in ("clip", "erofs"):
            _unlink(f"{temporary}.{ending}")
    return image, info, [alias]


def _is_poorer(new: dict[str, object], known: dict[str, object]) -> bool:
    """Is the new index the known one without its prefetch lists?"""
    same = new.get("content") == known.get("content") and new.get("source") == known.get("source")
    return same and bool(known.get("prefetch")) and not new.get("prefetch")


def _refuse_other(name: str, info: dict[str, object], expected: str) -> None:
    if expected and f"sha256:{info.get('manifest')}" != expected:
        raise IndexFormatError(
            f"{name}: an index of sha256:{info.get('manifest')}, not of {expected}",
            "whoever pushed it mixed two images up, or means to deceive",
        )


def _copy(source: int, path: str) -> str:
    """Copy from the beginning of ``source`` to a new file; the sha256 of what was copied."""
    digest, offset = sha256(), 0
    _unlink(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    try:
        os.fchmod(fd, 0o644)
        while data := os.pread(source, _COPY, offset):
            offset += len(data)
            if offset > INDEX_LIMIT:
                raise IndexFormatError("the index grows while it is read", "name a .clip file")
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    return digest.hexdigest()


def _check(settings: Settings, clip: str, erofs: str, name: str) -> dict[str, object]:
    """Check the index and write out its EROFS image, both in an unprivileged child."""
    from clip_runc.images import inspection
    from clip_runc.linux.unprivileged import run_unprivileged

    readable = os.open(clip, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _unlink(erofs)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writable = os.open(erofs, flags, 0o644)
        try:
            os.fchmod(writable, 0o644)
            info = run_unprivileged(
                settings.server_uid,
                inspection.check_and_extract,
                readable,
                writable,
                keep_fds=(readable, writable),
            )
            os.fsync(writable)
        finally:
            os.close(writable)
    except ClipError as error:
        message = f"{name}: {error.message}"
        raise type(error)(message, error.hint) from None
    finally:
        os.close(readable)
    if not isinstance(info, dict) or not is_hex(str(info.get("manifest"))):
        raise IndexFormatError(f"{name}: the check gave no manifest digest", "index it again")
    return info


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def record(
    settings: Settings,
    image: LocalImage,
    info: dict[str, object],
    references: Sequence[str],
    aliases: Sequence[str],
    *,
    unasked: bool = False,
) -> None:
    """Write what is known, then every name that leads to it."""
    platform = str(info.get("platform", ""))
    known = info.get("references")
    names = dict.fromkeys([*(known if isinstance(known, list) else ()), *references])
    info = {**info, "references": list(names), "indexed": info.get("indexed") or int(time.time())}
    write_atomic(f"{settings.index_dir}/{image.manifest_hex}.json", lean.dumps(info), 0o644)
    named = [*references, *map(normal_name, references), str(info.get("image_id", ""))]
    named = [name for name in dict.fromkeys(named) if name]
    places = [(name, platform) for name in named]
    anywhere = [*aliases, *(named if unasked else ())]
    for name, place in [*places, *((name, None) for name in anywhere)]:
        record = {
            "reference": name,
            "digest": image.digest,
            "platform": platform,
            "indexed": int(time.time()),
        }
        write_atomic(record_path(settings, name, place), lean.dumps(record), 0o644)


def remove(settings: Settings, reference: str) -> LocalImage:
    """Forget the image and all its references.  Raises ``StoreError`` while containers use it."""
    image = find(settings, reference)
    if image is None:
        raise ImageNotIndexed(f"{reference}: no such image here", "clipctl images lists them")
    users = leases_of(settings, image.manifest_hex)
    if users:
        raise StoreError(
            f"{reference} is used by {len(users)} container(s), {users[0]} among them",
            "delete them first",
        )
    with lock(f"{settings.index_dir}/.lock"):
        for ending in ("erofs", "clip", "json"):
            _unlink(f"{settings.index_dir}/{image.manifest_hex}.{ending}")
        for name in os.listdir(settings.reference_dir):
            path = f"{settings.reference_dir}/{name}"
            if read_record(path).get("digest") == image.digest:
                _unlink(path)
    return image
