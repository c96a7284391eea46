"""Manifests: their media types, the choice of a platform, what an image consists of.

Bytes in, values out; the requests are in ``client.py``.  Sources: OCI image-spec 1.1
(manifest.md, image-index.md, config.md), distribution's docs/spec/manifest-v2-2.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clip_runc.errors import BadResponse, NotFound
from clip_runc.registry import platforms
from clip_runc.registry.reference import Reference

if TYPE_CHECKING:
    from clip_runc.registry.client import Registry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

ACCEPTED = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
MANIFEST_LIMIT = 4 << 20
CONFIG_LIMIT = 8 << 20
LAYER_LIMIT = 1024
_INDEXES = (OCI_INDEX, DOCKER_LIST)
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob: ``digest`` (``sha256:<hex>``), ``size`` in bytes, media type."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """An image of one platform as its registry has it.

    ``manifest`` and ``config`` are the bytes that ``manifest_digest`` and ``config_descriptor``
    name, verified.  ``platform`` is normalised (``linux/amd64``).  ``diff_ids`` come from the
    config, one a layer.
    """

    reference: Reference
    registry: Registry = field(repr=False)
    manifest: bytes = field(repr=False)
    manifest_digest: str
    media_type: str
    config: bytes = field(repr=False)
    config_descriptor: Descriptor
    platform: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object; raises ``BadResponse`` for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadResponse(f"{what}: not a JSON object")
    return value


def media_type_of(data: bytes, content_type: str, what: str) -> str:
    """The media type of a manifest: what it says of itself, else what the registry says.

    Raises ``BadResponse`` for schema 1 and for what is no manifest of an image.
    """
    manifest = parse_json(data, what)
    said = content_type.partition(";")[0].strip().lower()
    if manifest.get("schemaVersion") == 1 or said in DOCKER_SCHEMA1:
        raise BadResponse(
            f"{what}: a Docker schema 1 manifest, which names no config and no layer sizes",
            "push the image again with a tool of this decade",
        )
    own = manifest.get("mediaType")
    kind = own if isinstance(own, str) and own else said
    is_index = isinstance(manifest.get("manifests"), list)
    is_image = isinstance(manifest.get("layers"), list)
    if is_index and is_image:
        # One digest, two images: which one depends on the reader (CVE-2021-41190).
        raise BadResponse(f"{what}: a manifest with both layers and manifests")
    if kind not in ACCEPTED:
        kind = OCI_INDEX if is_index else OCI_MANIFEST if is_image else kind
    if (kind in _INDEXES) != is_index or (kind not in _INDEXES) != is_image:
        raise BadResponse(f"{what}: not a manifest of an image (type {kind[:100]!r})")
    return kind


def is_index(media_type: str) -> bool:
    """Whether a manifest of this type lists others."""
    return media_type in _INDEXES


def choose(data: bytes, platform: str | None, what: str) -> tuple[Descriptor, str]:
    """The entry of an index that serves ``platform`` best, and the entry's own platform.

    ``None`` means this machine's.  Entries of nested indexes may have no platform; the first of
    them is taken when nothing else fits, with ``""`` for its platform.  Raises ``NotFound`` with
    what there is.
    """
    wanted = platforms.normalise(platform) if platform else platforms.host_platform()
    ranked: list[tuple[int, int, Descriptor, str]] = []
    nested: list[Descriptor] = []
    offered: list[str] = []
    for number, entry in enumerate(parse_json(data, what)["manifests"]):
        if not isinstance(entry, dict) or _is_no_image(entry):
            continue
        named = platforms.of_json(entry.get("platform"))
        if named is None:
            if entry.get("platform") is None and entry.get("mediaType") in ACCEPTED:
                nested.append(descriptor(entry, what))
            continue
        offered.append(named)
        rank = platforms.rank(wanted, named)
        if rank is not None:
            ranked.append((rank, number, descriptor(entry, what), named))
    if ranked:
        best = min(ranked, key=lambda candidate: candidate[:2])
        return best[2], best[3]
    if nested:
        return nested[0], ""
    raise no_such_platform(what, wanted, offered)


def no_such_platform(what: str, wanted: str, offered: list[str]) -> NotFound:
    """The error that says what there is instead."""
    have = ", ".join(dict.fromkeys(offered)) or "none"
    return NotFound(
        f"{what}: no such platform: {wanted}: have {have[:500]}", "choose with --platform"
    )


def _is_no_image(entry: dict[str, Any]) -> bool:
    """What others put beside images: BuildKit's attestations, and artifacts (a SOCI index)."""
    annotations = entry.get("annotations")
    if isinstance(annotations, dict) and _ATTESTATION in annotations:
        return True
    return entry.get("artifactType", OCI_CONFIG) not in (OCI_CONFIG, DOCKER_CONFIG)


def descriptor(value: object, what: str) -> Descriptor:
    """Check a descriptor of a manifest or an index; raises ``BadResponse``."""
    if not isinstance(value, dict):
        raise BadResponse(f"{what}: a descriptor that is no object")
    digest, size, kind = value.get("digest"), value.get("size"), value.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadResponse(f"{what}: {str(digest)[:100]!r} is not a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise BadResponse(f"{what}: {digest} has no sensible size")
    if not isinstance(kind, str):
        raise BadResponse(f"{what}: {digest} has no media type")
    return Descriptor(digest, size, kind)


def is_digest(text: str) -> bool:
    """Whether this is ``sha256:`` and 64 lower-case hex digits."""
    return bool(re.fullmatch(r"sha256:[0-9a-f]{64}", text))


def parts(data: bytes, what: str) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """The config and the layers, bottom first, of an image manifest."""
    manifest = parse_json(data, what)
    config = descriptor(manifest.get("config"), what)
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG, ""):
        raise BadResponse(
            f"{what}: not a container image but an artifact of type {config.media_type[:100]!r}"
        )
    if config.size > CONFIG_LIMIT:
        raise BadResponse(f"{what}: its config has {config.size} bytes; {CONFIG_LIMIT} are allowed")
    if len(manifest["layers"]) > LAYER_LIMIT:
        raise BadResponse(f"{what}: {len(manifest['layers'])} layers; {LAYER_LIMIT} are allowed")
    return config, tuple(descriptor(layer, what) for layer in manifest["layers"])


def check_config(data: bytes, layers: int, what: str) -> tuple[str, tuple[str, ...]]:
    """The platform and the diff_ids of an image config; raises ``BadResponse``."""
    config = parse_json(data, f"config of {what}")
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(
        isinstance(d, str) and is_digest(d) for d in diff_ids
    ):
        raise BadResponse(f"{what}: its config names no sha256 diff_ids")
    if len(diff_ids) != layers:
        raise BadResponse(f"{what}: {layers} layers, but {len(diff_ids)} diff_ids in its config")
    platform = platforms.of_json(config)
    if platform is None:
        raise BadResponse(f"{what}: its config names no platform")
    return platform, tuple(diff_ids)
