"""The indexes on this machine, and which image reference means which.

Per image three files in ``Settings.index_dir``, named by the hexadecimal digits of the
manifest digest: ``.clip`` (the index), ``.erofs`` (its EROFS image, uncompressed, what the
kernel mounts) and ``.json`` (what ``list_images`` tells).  A reference is a file of its own in
``Settings.reference_dir``, so looking one up is one ``open``: no network, no lock, no scan.

``find`` is on the hot path of the shim; what ``add`` needs is imported there.
"""

from __future__ import annotations

import os
import stat

from clip_runc.errors import ClipError, ImageNotIndexed, IndexFormatError, StoreError
from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clip_runc.config import Settings

_HEX = frozenset("0123456789abcdef")
_COPY = 1 << 20
_RECORD_LIMIT = 1 << 20
# an index is a few per mille of its image; what is larger was not made by us
INDEX_LIMIT = 4 << 30
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "loongarch64": "loong64",
}


class LocalImage:
    """An image whose index is on this machine."""

    __slots__ = ("erofs_path", "index_path", "manifest_hex")

    def __init__(self, manifest_hex: str, index_path: str, erofs_path: str) -> None:
        self.manifest_hex = manifest_hex
        self.index_path = index_path
        self.erofs_path = erofs_path

    @property
    def digest(self) -> str:
        """The manifest digest, ``sha256:<hex>``."""
        return f"sha256:{self.manifest_hex}"

    def __repr__(self) -> str:
        return f"LocalImage({self.manifest_hex[:12]}…, {self.index_path})"


def at(settings: Settings, manifest_hex: str) -> LocalImage:
    """The image of that manifest digest as a value, whether or not it is there."""
    base = f"{settings.index_dir}/{manifest_hex}"
    return LocalImage(manifest_hex, f"{base}.clip", f"{base}.erofs")


def host_platform() -> str:
    """This machine in OCI's words, without a variant: ``linux/amd64``."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def is_hex(text: str) -> bool:
    """Is ``text`` the 64 hexadecimal digits of a sha256?"""
    return len(text) == 64 and all(c in _HEX for c in text)


def _digest_in(reference: str) -> str:
    """The hexadecimal digits in ``name@sha256:<hex>`` and ``sha256:<hex>``; else ``""``."""
    digits = reference.rpartition("@")[2].removeprefix("sha256:")
    return digits if is_hex(digits) else ""


def find(settings: Settings, reference: str, platform: str | None = None) -> LocalImage | None:
    """The image that ``reference`` named when it was indexed here, or None.

    A digest (of the manifest, of the multi-platform index it was chosen from, or of the
    config, which is what container engines call the image id) is as good as a name.
    ``platform`` is ``os/architecture``; this machine's when it is not given.  Never asks a
    registry; an odd string is simply not found.
    """
    digits = _digest_in(reference)
    if digits:
        image = at(settings, digits)
        if os.path.exists(image.erofs_path):
            return image
    found = _look_up(settings, reference, platform)
    if found is not None or digits == reference:
        return found
    normal = _normal(reference)
    return _look_up(settings, normal, platform) if normal not in ("", reference) else None


def _look_up(settings: Settings, name: str, platform: str | None) -> LocalImage | None:
    record = _read_record(_record_path(settings, name, platform))
    digits = str(record.get("digest", "")).removeprefix("sha256:")
    if record.get("reference") != name or not is_hex(digits):
        return None
    image = at(settings, digits)
    return image if os.path.exists(image.erofs_path) else None


def find_alias(settings: Settings, alias: str) -> LocalImage | None:
    """The image that was added with this alias."""
    return _look_up(settings, alias, None)


def _record_path(settings: Settings, name: str, platform: str | None) -> str:
    """Images of this machine's platform are named by the reference alone."""
    text = name
    if platform is not None and not _is_host(platform):
        text = f"{name} {platform}"
    digits = lean.sha256_hex(text.encode("utf-8", "surrogateescape"))
    return f"{settings.reference_dir}/{digits}.json"


def _is_host(platform: str) -> bool:
    return "/".join(platform.split("/")[:2]) == host_platform()


def _read_record(path: str) -> dict[str, object]:
    """A small JSON object of ours; ``{}`` for one that is missing or damaged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return lean.loads_object(os.read(fd, _RECORD_LIMIT))
    except (OSError, ValueError):
        return {}
    finally:
        os.close(fd)


def _normal(reference: str) -> str:
    """The reference spelled out (``docker.io/library/…:latest``); ``""`` where it is none."""
    from clip_runc.errors import InvalidReference
    from clip_runc.registry.reference import Reference

    try:
        return str(Reference.parse(reference))
    except InvalidReference:
        return ""


def add(settings: Settings, index_path: str, references: Sequence[str] = ()) -> LocalImage:
    """Copy the index at ``index_path`` in, and make ``references`` mean it from now on.

    The bytes are checked in a process without privileges first, all of them; a different index
    of the same manifest takes the place of the one that was there.  Adding the same bytes again
    costs a hash.  Raises ``IndexFormatError`` for an index that is damaged, ``StoreError``
    where it cannot be kept.
    """
    source = _open_index(index_path)
    try:
        return add_open(settings, source, index_path, references)
    finally:
        os.close(source)


def add_open(
    settings: Settings,
    source: int,
    name: str,
    references: Sequence[str] = (),
    aliases: Sequence[str] = (),
) -> LocalImage:
    """As ``add``, for an open descriptor; ``name`` is for messages.

    ``aliases`` are names for ``find_alias`` only: any text, never shown.
    """
    from clip_runc.linux.files import lock

    _make_directories(settings)
    with lock(f"{settings.index_dir}/.lock"):
        try:
            return _add(settings, source, name, references, aliases)
        except OSError as error:
            message = f"cannot keep the index {name}: {error.strerror}"
            raise StoreError(message, f"check the space on {settings.state_dir}") from None


def _open_index(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise IndexFormatError(f"{path}: {error.strerror}", "name a .clip file") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > INDEX_LIMIT:
        os.close(fd)
        raise IndexFormatError(f"{path}: not an index", "name a .clip file")
    return fd


def _make_directories(settings: Settings) -> None:
    from clip_runc.linux.files import make_private_dir

    make_private_dir(settings.state_dir, 0o755)
    make_private_dir(settings.index_dir, 0o755)
    make_private_dir(settings.reference_dir, 0o755)


def _add(
    settings: Settings,
    source: int,
    name: str,
    references: Sequence[str],
    aliases: Sequence[str],
) -> LocalImage:
    temporary = f"{settings.index_dir}/.new"
    try:
        content = _copy(source, f"{temporary}.clip")
        same = find_alias(settings, f"clip-sha256:{content}")
        if same is not None and os.path.exists(same.index_path):
            info = info_of(settings, same.manifest_hex)
            image = same
        else:
            info = _check(settings, f"{temporary}.clip", f"{temporary}.erofs", name)
            image = at(settings, str(info["manifest"]))
            info["sha256"] = content
            _put(f"{temporary}.erofs", image.erofs_path)
            _put(f"{temporary}.clip", image.index_path)
    finally:
        for ending in ("clip", "erofs"):
            _unlink(f"{temporary}.{ending}")
    _record(settings, image, info, references, [f"clip-sha256:{content}", *aliases])
    return image


def _copy(source: int, path: str) -> str:
    """Copy from the beginning of ``source`` to a new file; the sha256 of what was copied."""
    from hashlib import sha256

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
    from clip_runc.linux.privileges import run_unprivileged

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


def _put(temporary: str, path: str) -> None:
    os.rename(temporary, path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _record(
    settings: Settings,
    image: LocalImage,
    info: dict[str, object],
    references: Sequence[str],
    aliases: Sequence[str],
) -> None:
    """Write what is known, then every name that leads to it."""
    import time

    from clip_runc.linux.files import write_atomic

    platform = str(info.get("platform", ""))
    known = info.get("references")
    names = dict.fromkeys([*(known if isinstance(known, list) else ()), *references])
    info = {**info, "references": list(names), "indexed": info.get("indexed") or int(time.time())}
    write_atomic(f"{settings.index_dir}/{image.manifest_hex}.json", lean.dumps(info), 0o644)
    named = [*references, *map(_normal, references), str(info.get("image_id", ""))]
    places = [(name, platform) for name in dict.fromkeys(named) if name]
    for name, place in [*places, *((alias, None) for alias in aliases)]:
        record = {
            "reference": name,
            "digest": image.digest,
            "platform": platform,
            "indexed": int(time.time()),
        }
        write_atomic(_record_path(settings, name, place), lean.dumps(record), 0o644)


def info_of(settings: Settings, manifest_hex: str) -> dict[str, object]:
    """What was noted when the image was added: ``manifest``, ``platform``, ``source``,
    ``image_id``, ``references``, ``layers``, ``sha256``, ``indexed`` (seconds since 1970).
    """
    return _read_record(f"{settings.index_dir}/{manifest_hex}.json")


def list_images(settings: Settings) -> Iterator[tuple[LocalImage, list[str]]]:
    """Every image of this machine with its references, by manifest digest."""
    try:
        names = sorted(os.listdir(settings.index_dir))
    except FileNotFoundError:
        return
    for name in names:
        digits, ending = os.path.splitext(name)
        if ending == ".erofs" and is_hex(digits):
            references = info_of(settings, digits).get("references")
            names = references if isinstance(references, list) else []
            yield at(settings, digits), [str(name) for name in names]


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
    from clip_runc.linux.files import lock

    with lock(f"{settings.index_dir}/.lock"):
        for ending in ("erofs", "clip", "json"):
            _unlink(f"{settings.index_dir}/{image.manifest_hex}.{ending}")
        for name in os.listdir(settings.reference_dir):
            path = f"{settings.reference_dir}/{name}"
            if _read_record(path).get("digest") == image.digest:
                _unlink(path)
    return image


def leases_of(settings: Settings, manifest_hex: str) -> list[str]:
    """The keys of the containers that use the image."""
    try:
        return sorted(os.listdir(f"{settings.lease_dir}/{manifest_hex}"))
    except FileNotFoundError:
        return []
