"""Writing to a registry: blobs, manifests, whole images.

Upload sessions and large files go through oras; manifests do not, because oras writes their
JSON anew and the digest would change.  Source: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import oras.utils
import requests

from clip_runc.errors import BadResponse, DigestMismatch
from clip_runc.registry.http_errors import from_status
from clip_runc.registry.image import OCI_CONFIG, OCI_MANIFEST, Descriptor, digest_of, is_digest
from clip_runc.registry.transport import Transport

if TYPE_CHECKING:
    from clip_runc.registry.client import Registry

_AT_ONCE = 16 << 20
_OCTETS = "application/octet-stream"


def has_blob(transport: Transport, digest: str) -> bool:
    """Whether the repository has this blob."""
    response = transport.do_request(transport.blob_url(digest), "HEAD")
    if response.status_code in (200, 404) or response.is_redirect:
        return response.status_code != 404
    raise from_status(response, transport.host, f"blob {digest}")


def push_blob(
    transport: Transport, data: bytes | str, *, digest: str | None, mount_from: str | None
) -> Descriptor:
    """Upload bytes, or the file at a path, unless it is there or can be mounted."""
    actual, size = _digest_and_size(data)
    if digest is not None and digest != actual:
        raise DigestMismatch(f"the blob to push has digest {actual}, not {digest}")
    done = Descriptor(actual, size, _OCTETS)
    if has_blob(transport, actual):
        return done
    session = _start(transport, actual, mount_from)
    if session is None:
        return done
    if isinstance(data, bytes):
        _finish(transport, session, actual, data)
    elif size <= _AT_ONCE:
        with open(data, "rb") as file:
            _finish(transport, session, actual, file.read())
    else:
        _push_large(transport, data, done)
    return done


def push_manifest(transport: Transport, data: bytes, media_type: str, version: str) -> str:
    """Store a manifest under a tag or digest; its digest."""
    put_manifest(transport, data, media_type, version)
    return digest_of(data)


def put_manifest(transport: Transport, data: bytes, media_type: str, version: str) -> bool:
    """Store a manifest; whether the registry says that it took note of its ``subject``."""
    digest = digest_of(data)
    if is_digest(version) and version != digest:
        raise DigestMismatch(f"the manifest to push has digest {digest}, not {version}")
    response = transport.do_request(
        transport.manifest_url(version), "PUT", data=data, headers={"Content-Type": media_type}
    )
    _expect(response, (201, 200, 202), transport, f"manifest {version}")
    stored = response.headers.get("Docker-Content-Digest", digest)
    if stored != digest:
        raise BadResponse(f"manifest {version}: the registry stored {stored[:100]}, not {digest}")
    return "OCI-Subject" in response.headers


def push_image(
    registry: Registry,
    layers: Sequence[tuple[bytes | str, str, str]],
    config: Mapping[str, object],
    *,
    media_type: str = OCI_MANIFEST,
    config_type: str = OCI_CONFIG,
) -> str:
    """Push an image under the registry's reference; the digest of its manifest.

    ``layers``: bottom first, each (bytes or path, media type, diff_id).  ``config``: an image
    config; ``rootfs``, and where missing ``os`` and ``architecture`` (linux, amd64), are filled in.
    """
    pushed = [(registry.push_blob(data), kind) for data, kind, _ in layers]
    filled = {
        "architecture": "amd64",
        "os": "linux",
        **config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, _, diff_id in layers]},
    }
    body = _canonical(filled)
    stored = registry.push_blob(body)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "digest": stored.digest, "size": stored.size},
        "layers": [
            {"mediaType": kind, "digest": blob.digest, "size": blob.size} for blob, kind in pushed
        ],
    }
    return registry.push_manifest(_canonical(manifest), media_type)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest_and_size(data: bytes | str) -> tuple[str, int]:
    if isinstance(data, bytes):
        return digest_of(data), len(data)
    with open(data, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return f"sha256:{digest}", os.fstat(file.fileno()).st_size


def _start(transport: Transport, digest: str, mount_from: str | None) -> str | None:
    """The URL of a new upload session; ``None`` when the blob could be mounted."""
    url = f"{transport.prefix}://{transport.container.upload_blob_url()}"
    if mount_from:
        url += "?" + urlencode({"mount": digest, "from": mount_from})
    response = transport.do_request(url, "POST", headers={"Content-Length": "0"})
    if response.status_code == 201:
        return None
    _expect(response, (202,), transport, f"blob {digest}")
    session = transport._get_location(response, transport.container)
    if not session:
        raise BadResponse("the registry started an upload and did not say where")
    return str(session)


def _finish(transport: Transport, session: str, digest: str, data: bytes) -> None:
    url = oras.utils.append_url_params(session, {"digest": digest})
    headers = {"Content-Type": _OCTETS}
    response = transport.do_request(url, "PUT", data=data, headers=headers)
    _expect(response, (201, 200, 204), transport, f"blob {digest}")


def _push_large(transport: Transport, path: str, blob: Descriptor) -> None:
    layer = {"digest": blob.digest, "size": blob.size, "mediaType": blob.media_type}
    try:
        response = transport.chunked_upload(path, transport.container, layer)
    except (ValueError, RuntimeError):
        # oras's way to report any status that it did not expect; its text holds a URL
        raise BadResponse(f"blob {blob.digest}: the registry refused a chunk of it") from None
    _expect(response, (201, 200, 204), transport, f"blob {blob.digest}")


def _expect(
    response: requests.Response, statuses: tuple[int, ...], transport: Transport, what: str
) -> None:
    if response.status_code not in statuses:
        raise from_status(response, transport.host, what)
