"""Whose signatures are believed: ``Settings.trusted_keys``.

The signatures are cosign's (``registry/cosign.py``); the arithmetic is that of the library
``cryptography``.
Of what cosign can do keys count, and nothing else: no certificates, no transparency log.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from clip_runc.config import Settings
from clip_runc.errors import ConfigError
from clip_runc.registry.client import Registry
from clip_runc.registry.cosign import signatures

# Loaded here and now.  The library imports it when it is first needed, which is in a process
# without privileges, to which the modules of a private virtual environment can be out of reach.
default_backend()
_PEM = "-----BEGIN"
_LIMIT = 64 << 10
_RSA_BITS = 2048
_HINT = "a public key as cosign writes it (cosign.pub): PEM, of ECDSA, RSA or Ed25519"


class Key(NamedTuple):
    """A public key in PEM, and what a person calls it."""

    name: str
    pem: bytes


def trusted_keys(settings: Settings) -> tuple[Key, ...]:
    """The keys of the configuration, read and looked at; raises ``ConfigError``."""
    found = []
    for number, entry in enumerate(settings.trusted_keys, 1):
        if entry.lstrip().startswith(_PEM):
            key = Key(f"trusted_keys, entry {number}", entry.strip().encode() + b"\n")
        else:
            key = Key(entry, _read(entry))
        _public(key)
        found.append(key)
    return tuple(found)


def _read(path: str) -> bytes:
    if not path.startswith("/"):
        raise ConfigError(f"trusted_keys: {path!r}: not an absolute path", _HINT)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"trusted_keys: {path}: {error.strerror}", _HINT) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
            raise ConfigError(f"trusted_keys: {path}: no file of a key", _HINT)
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            raise ConfigError(f"trusted_keys: {path}: others than root can write it", "chmod go-w")
        return os.read(fd, _LIMIT)
    finally:
        os.close(fd)


def _public(key: Key) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey:
    if b"PRIVATE KEY" in key.pem:
        raise ConfigError(f"{key.name}: a private key", "name the public one, cosign.pub")
    try:
        public = load_pem_public_key(key.pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{key.name}: not a public key in PEM", _HINT) from None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < _RSA_BITS:
        raise ConfigError(f"{key.name}: an RSA key of {public.key_size} bits", "2048 at least")
    if not isinstance(
        public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)
    ):
        raise ConfigError(f"{key.name}: a key of another kind", _HINT)
    return public


def verifies(key: Key, message: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature of ``message``, as cosign makes them (with SHA-256)."""
    public = _public(key)
    try:
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, message, ec.ECDSA(SHA256()))
        elif isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), SHA256())
        else:
            public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def signer(registry: Registry, digest: str, keys: tuple[Key, ...]) -> str:
    """The name of a key that signed the manifest ``digest``, or ``""``.

    Raises ``RegistryError`` where the registry does not answer.
    """
    for message, signature, subject in signatures(registry, digest):
        if subject != digest:
            continue
        for key in keys:
            if verifies(key, message, signature):
                return key.name
    return ""
