"""Signatures as ``cosign sign --key`` stores them, byte for byte, made here.

In the three ways that it knows: under the tag ``sha256-<hex>.sig``; the same manifest as a referrer
(OCI 1.1 mode); a bundle of sigstore as a referrer (the default since cosign 3).
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clip_runc.registry.client import Registry
from clip_runc.registry.cosign import (
    ARTIFACT_TYPE,
    BUNDLE_TYPE,
    CLAIM,
    PAYLOAD_TYPE,
    PREDICATE,
    SIGNATURE,
    encoded,
    tag_of,
)
from clip_runc.registry.image import OCI_CONFIG, OCI_MANIFEST, digest_of

WAYS = ("tag", "referrer", "bundle")


def new_key(kind: str = "ec") -> Any:
    """A private key; ``cosign generate-key-pair`` makes those of kind ``ec``."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Any) -> bytes:
    """What is in cosign.pub."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def signed_by(key: Any, message: bytes) -> str:
    """The signature in base64."""
    if isinstance(key, rsa.RSAPrivateKey):
        raw = key.sign(message, padding.PKCS1v15(), SHA256())
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.sign(message)
    else:
        raw = key.sign(message, ec.ECDSA(SHA256()))
    return base64.b64encode(raw).decode()


def payload_of(digest: str, name: str = "registry.example/team/app") -> bytes:
    """Simple signing as Go's encoding/json writes it."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": CLAIM,
    }
    return _json({"critical": critical, "optional": None})


def bundle_of(key: Any, digest: str, **changes: Any) -> bytes:
    """A bundle of sigstore with a statement about the manifest ``digest``."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest[7:]}}],
        "predicateType": PREDICATE,
        "predicate": {},
    }
    payload = _json(statement | changes)
    kind = "application/vnd.in-toto+json"
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": signed_by(key, encoded(kind.encode(), payload))}],
    }
    material = {"publicKey": {"hint": "k"}, "tlogEntries": []}
    return _json(
        {"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    )


def sign(registry: Registry, digest: str, key: Any, way: str = "tag", signed: str = "") -> str:
    """Sign the manifest ``digest`` of the repository; the digest of what was stored.

    ``signed`` is another digest that the signature shall speak of.
    """
    if way == "bundle":
        layer = _stored(registry, bundle_of(key, signed or digest), BUNDLE_TYPE)
        config = _stored(registry, b"{}", "application/vnd.oci.empty.v1+json")
        manifest = _manifest(config, [layer]) | {"artifactType": BUNDLE_TYPE}
        return _attached(registry, manifest, digest)
    payload = payload_of(signed or digest, registry.reference.name)
    layer = _stored(registry, payload, PAYLOAD_TYPE)
    layer["annotations"] = {SIGNATURE: signed_by(key, payload)}
    kind = OCI_CONFIG if way == "tag" else ARTIFACT_TYPE
    config = _stored(registry, _json({"architecture": "", "rootfs": {"type": "layers"}}), kind)
    if way == "referrer":
        return _attached(registry, _manifest(config, [layer]), digest)
    manifest = _json(_manifest(config, [layer]))
    return registry.push_manifest(manifest, OCI_MANIFEST, tag_of(digest))


def _stored(registry: Registry, data: bytes, media_type: str) -> dict[str, Any]:
    registry.push_blob(data)
    return {"mediaType": media_type, "size": len(data), "digest": digest_of(data)}


def _manifest(config: dict[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}


def _attached(registry: Registry, manifest: dict[str, Any], digest: str) -> str:
    size = len(registry.manifest(digest)[0])
    manifest["subject"] = {"mediaType": OCI_MANIFEST, "digest": digest, "size": size}
    return registry.attach(_json(manifest), digest)[0]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
