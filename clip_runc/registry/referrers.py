"""Artifacts that refer to an image: the referrers API, and the tag scheme without it.

Sources: OCI distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema"; image-spec
1.1, manifest.md (``subject``, ``artifactType``, ``annotations``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import requests

from clip_runc.errors import BadResponse, NotFound
from clip_runc.registry.image import OCI_INDEX, OCI_MANIFEST, descriptor, digest_of, parse_json
from clip_runc.registry.transport import Transport

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY_CONFIG = b"{}"
EMPTY = json.dumps(
    {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, separators=(",", ":")
).encode()
_PAGES = 16
_ENTRIES = 1024

GetDocument = Callable[[str, str], tuple[requests.Response, bytes]]


@dataclass(frozen=True, slots=True)
class Referrer:
    """An artifact as a list of referrers describes it: nothing of it is verified."""

    digest: str
    size: int
    artifact_type: str
    annotations: dict[str, str] = field(default_factory=dict)


def tag_of(digest: str) -> str:
    """The tag under which the referrers of ``digest`` are listed where there is no API."""
    return digest.replace(":", "-")


def artifact_manifest(
    artifact_type: str,
    layer: dict[str, object],
    subject: dict[str, object],
    annotations: dict[str, str],
) -> bytes:
    """The manifest of an artifact of one blob (image-spec, "Guidelines for Artifact Usage")."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": {
            "mediaType": EMPTY_TYPE,
            "digest": digest_of(EMPTY_CONFIG),
            "size": len(EMPTY_CONFIG),
        },
        "layers": [layer],
        "subject": subject,
        "annotations": annotations,
    }
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()


def by_api(transport: Transport, get: GetDocument, digest: str, what: str) -> list[Referrer] | None:
    """Every page of the referrers API; ``None`` where the registry has no such API."""
    url = f"{transport.base}/referrers/{digest}{transport.query}"
    found: list[Referrer] = []
    for page in range(_PAGES):
        try:
            response, data = get(url, what)
            found += parse(data, what)
        except (NotFound, BadResponse):
            if page:
                raise
            return None
        link = re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', response.headers.get("Link", ""))
        if link is None or len(found) > _ENTRIES:
            break
        url = urljoin(url, link[1])
        if not transport.is_registry(url):
            raise BadResponse(f"{what}: its list of referrers goes on at another host")
    return found[:_ENTRIES]


def parse(data: bytes, what: str) -> list[Referrer]:
    """The entries of a list of referrers; raises ``BadResponse`` for what is none."""
    entries = parse_json(data, what).get("manifests")
    if not isinstance(entries, list):
        raise BadResponse(f"{what}: its list of referrers is no image index")
    found = []
    for entry in entries[:_ENTRIES]:
        kind = descriptor(entry, what)
        said = entry.get("artifactType")
        found.append(
            Referrer(
                kind.digest,
                kind.size,
                said if isinstance(said, str) else "",
                texts(entry.get("annotations")),
            )
        )
    return found


def texts(value: Any) -> dict[str, str]:
    """The annotations that are texts."""
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}


def with_entry(listed: bytes, manifest: bytes) -> bytes:
    """The list with the artifact of ``manifest`` in it; unchanged when it has it already."""
    index = parse_json(listed, "the list of referrers")
    entries = index.get("manifests")
    entries = entries if isinstance(entries, list) else []
    digest = digest_of(manifest)
    if any(isinstance(entry, dict) and entry.get("digest") == digest for entry in entries):
        return listed
    content = parse_json(manifest, "the artifact")
    entry = {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(manifest)}
    entry |= {k: content[k] for k in ("artifactType", "annotations") if k in content}
    index |= {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, entry]}
    return json.dumps(index, separators=(",", ":")).encode()
