"""SOCI indexes: which zTOC describes which layer of an image, and fetching one.

Version 2 is named by an annotation of the image's manifest, and as trustworthy as that.  Version 1
refers to the image, as anybody can who may push to its repository: it is looked for only where the
configuration trusts who can.  Source: soci/soci_index.go of soci-snapshotter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from clip_runc.errors import BadResponse, ClipError, DigestMismatch, LayerFormatError
from clip_runc.index.ztoc import SIZE_MAX
from clip_runc.registry.image import Descriptor, descriptor, is_digest, parse_json
from clip_runc.registry.referrers import Referrer, texts

TYPE_V1 = "application/vnd.amazon.soci.index.v1+json"
_NAMED = "com.amazon.soci.index-digest"
_LAYER = "com.amazon.soci.image-layer-digest"
_CANDIDATES = 4


class Repository(Protocol):
    """What we need of a registry, beside ranges."""

    def manifest(self, reference: str | None = None) -> tuple[bytes, str, str]: ...
    def referrers(self, digest: str, artifact_type: str) -> list[Referrer]: ...
    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]: ...


def ztocs(
    registry: Repository, manifest: bytes, digest: str, *, referrers: bool
) -> dict[str, Descriptor]:
    """The zTOC of each layer that has one, by the layer's digest.

    ``manifest`` is the image's and has ``digest``; without ``referrers`` what refers to it is not
    looked for.  Raises ``RegistryError``.
    """
    named = texts(parse_json(manifest, "the manifest").get("annotations")).get(_NAMED, "")
    if is_digest(named):
        return _listed(registry.manifest(named)[0], named)
    if not referrers:
        return {}
    problem: ClipError | None = None
    for one in sorted(registry.referrers(digest, TYPE_V1), key=lambda x: x.digest)[:_CANDIDATES]:
        try:
            data = registry.manifest(one.digest)[0]
            subject = parse_json(data, one.digest).get("subject")
            if not isinstance(subject, dict) or subject.get("digest") != digest:
                raise BadResponse(f"the SOCI index {one.digest} does not refer to {digest}")
            return _listed(data, one.digest)
        except ClipError as error:
            problem = error
    if problem is not None:
        raise problem
    return {}


def _listed(index: bytes, what: str) -> dict[str, Descriptor]:
    layers = parse_json(index, what).get("layers")
    rows: Sequence[object] = layers if isinstance(layers, list) else []
    found = {}
    for row in rows:
        blob = descriptor(row, what)
        layer = texts(row.get("annotations") if isinstance(row, dict) else None).get(_LAYER, "")
        if is_digest(layer):
            found[layer] = blob
    return found


def fetch(registry: Repository, blob: Descriptor) -> bytes:
    """The bytes of a zTOC, verified.  Raises ``RegistryError``, ``DigestMismatch``."""
    if blob.size > SIZE_MAX:
        raise LayerFormatError(f"its zTOC is of {blob.size} bytes; we read {SIZE_MAX}")
    data = b"".join(registry.stream(blob.digest, blob.size))
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != blob.digest:
        raise DigestMismatch(f"the zTOC {blob.digest}: its bytes have another digest")
    return data
