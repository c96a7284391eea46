"""The indexes on this machine, and which image reference means which.

Per image three files in ``Settings.index_dir``, named by the hexadecimal digits of the
manifest digest: ``.clip`` (the index), ``.erofs`` (its EROFS image, uncompressed, what the
kernel mounts) and ``.json`` (what ``list_images`` tells).  A reference is a file of its own in
``Settings.reference_dir``, so looking one up is one ``open``: no network, no lock, no scan.

``find`` is on the hot path of the shim; how images come and go is in ``images/adding.py``.
"""

from __future__ import annotations

import os

from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clip_runc.config import Settings

_HEX = frozenset("0123456789abcdef")
_RECORD_LIMIT = 1 << 20
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
    normal = normal_name(reference)
    return _look_up(settings, normal, platform) if normal not in ("", reference) else None


def _look_up(settings: Settings, name: str, platform: str | None) -> LocalImage | None:
    record = read_record(record_path(settings, name, platform))
    digits = str(record.get("digest", "")).removeprefix("sha256:")
    if record.get("reference") != name or not is_hex(digits):
        return None
    image = at(settings, digits)
    return image if os.path.exists(image.erofs_path) else None


def find_alias(settings: Settings, alias: str) -> LocalImage | None:
    """The image that was added with this alias."""
    return _look_up(settings, alias, None)


def record_path(settings: Settings, name: str, platform: str | None) -> str:
    """Images of this machine's platform are named by the reference alone."""
    text = name
    if platform is not None and not _is_host(platform):
        text = f"{name} {platform}"
    digits = lean.sha256_hex(text.encode("utf-8", "surrogateescape"))
    return f"{settings.reference_dir}/{digits}.json"


def _is_host(platform: str) -> bool:
    return "/".join(platform.split("/")[:2]) == host_platform()


def read_record(path: str) -> dict[str, object]:
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


def normal_name(reference: str) -> str:
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
    from clip_runc.images import adding

    source = adding.open_index(index_path)
    try:
        return adding.add_open(settings, source, index_path, references)
    finally:
        os.close(source)


def info_of(settings: Settings, manifest_hex: str) -> dict[str, object]:
    """What was noted when the image was added: ``manifest``, ``platform``, ``source``,
    ``image_id``, ``references``, ``layers``, ``sha256``, ``indexed`` (seconds since 1970).
    """
    return read_record(f"{settings.index_dir}/{manifest_hex}.json")


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
    from clip_runc.images import adding

    return adding.remove(settings, reference)


def leases_of(settings: Settings, manifest_hex: str) -> list[str]:
    """The keys of the containers that use the image."""
    try:
        return sorted(os.listdir(f"{settings.lease_dir}/{manifest_hex}"))
    except FileNotFoundError:
        return []
