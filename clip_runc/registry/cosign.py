"""Signatures as cosign stores them beside what they sign, in its older format and its newer one.

Found here, and read; whether one is worth anything is for ``images/signing.py`` to say.
Sources: sigstore/cosign, specs/SIGNATURE_SPEC.md (the tag ``sha256-<hex>.sig``, simple signing),
and its OCI 1.1 mode, where the same manifest is a referrer; specs/BUNDLE_SPEC.md (the default
since cosign 3), whose bundles hold a DSSE envelope (secure-systems-lab/dsse, protocol.md) around
a statement of in-toto.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any, NamedTuple

from clip_runc.errors import BadResponse, DigestMismatch, NotFound
from clip_runc.registry.client import Registry
from clip_runc.registry.image import Descriptor, descriptor, is_digest, parse_json
from clip_runc.registry.referrers import texts

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT_TYPE = "application/vnd.dev.cosign.artifact.sig.v1+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
CLAIM = "cosign container image signature"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "application/vnd.in-toto+json"
_MANIFESTS = 8
_SIGNATURES = 64
_BLOB_LIMIT = 256 << 10


class Signed(NamedTuple):
    """The bytes that were signed, the signature, and the digest of which these bytes speak."""

    message: bytes
    signature: bytes
    subject: str


def tag_of(digest: str) -> str:
    """Where the signatures of the manifest ``digest`` are in its repository."""
    return f"{digest.replace(':', '-')}.sig"


def signatures(registry: Registry, digest: str) -> Iterator[Signed]:
    """What is stored as a signature of the manifest ``digest``, whoever made it.

    What cannot be read, or is of another format, is passed over.  Raises ``RegistryError`` where
    the registry does not answer.
    """
    left = _SIGNATURES
    for manifest in _manifests(registry, digest):
        for blob, said in _layers(manifest):
            if not left:
                return
            left -= 1
            try:
                data = registry.blob(blob.digest, blob.size)
                if blob.media_type == BUNDLE_TYPE:
                    yield from from_bundle(data)
                else:
                    yield from_payload(data, said.get(SIGNATURE, ""))
            except (NotFound, BadResponse, DigestMismatch):
                continue


def _manifests(registry: Registry, digest: str) -> Iterator[bytes]:
    # Of any type: with cosign's own list for registries without the API the type is the config's.
    listed = registry.referrers(digest, None)
    for name in [tag_of(digest), *(one.digest for one in listed[:_MANIFESTS])]:
        try:
            yield registry.manifest(name)[0]
        except (NotFound, BadResponse, DigestMismatch):
            continue


def _layers(manifest: bytes) -> Iterator[tuple[Descriptor, dict[str, str]]]:
    layers = parse_json(manifest, "signatures").get("layers")
    for layer in layers[:_SIGNATURES] if isinstance(layers, list) else ():
        try:
            blob = descriptor(layer, "a signature")
        except BadResponse:
            continue
        if blob.media_type in (PAYLOAD_TYPE, BUNDLE_TYPE) and blob.size <= _BLOB_LIMIT:
            yield blob, texts(layer.get("annotations"))


def from_payload(payload: bytes, signature: str) -> Signed:
    """A payload in the form of simple signing; raises ``BadResponse``.

    Its docker-reference is not looked at, as the specification says.
    """
    what = "a signature's payload"
    critical = _dict(parse_json(payload, what).get("critical"))
    digest = _dict(critical.get("image")).get("docker-manifest-digest")
    if critical.get("type") != CLAIM:
        raise BadResponse(f"{what} that is no {CLAIM}")
    return Signed(payload, _bytes(signature), _digest(digest))


def from_bundle(data: bytes) -> list[Signed]:
    """What a bundle of sigstore holds; raises ``BadResponse``."""
    envelope = _dict(parse_json(data, "a signature's bundle").get("dsseEnvelope"))
    if envelope.get("payloadType") != _STATEMENT:
        raise BadResponse("a signature's bundle that holds no statement of in-toto")
    payload = _bytes(envelope.get("payload"))
    statement = parse_json(payload, "a signature's statement")
    if statement.get("predicateType") != PREDICATE:
        raise BadResponse("a statement that is no signature of cosign's")
    subjects, entries = statement.get("subject"), envelope.get("signatures")
    if not isinstance(subjects, list) or len(subjects) != 1 or not isinstance(entries, list):
        raise BadResponse("a statement of another number of subjects than one")
    subject = _digest(f"sha256:{_dict(_dict(subjects[0]).get('digest')).get('sha256')}")
    message = encoded(_STATEMENT.encode(), payload)
    return [
        Signed(message, _bytes(_dict(entry).get("sig")), subject) for entry in entries[:_SIGNATURES]
    ]


def encoded(kind: bytes, payload: bytes) -> bytes:
    """What is signed of a DSSE envelope: its pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(value: object) -> str:
    if not isinstance(value, str) or not is_digest(value):
        raise BadResponse("a signature that names no digest of a manifest")
    return value


def _bytes(text: object) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise BadResponse("a signature that is not base64")
    return data
