"""Keys of the configuration, and what they say of a signature."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from clip_runc.config import Settings
from clip_runc.errors import ConfigError
from clip_runc.images.signing import Key, signer, trusted_keys, verifies
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry
from tests.unit.registry.cosigned import WAYS, new_key, payload_of, public_pem, sign, signed_by

OTHER = "sha256:" + "9" * 64


@pytest.fixture
def registry() -> Iterator[Registry]:
    with FakeRegistry(referrers=True) as fake:
        fake.add_image("team/app", "1.0", [b"layer"])
        with Registry(fake.reference("team/app", "1.0")) as found:
            yield found


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_signature_by_each_kind_of_key(kind: str) -> None:
    ours, other = new_key(kind), new_key(kind)
    message = payload_of(OTHER)
    signature = base64.b64decode(signed_by(ours, message))
    key = Key("ours", public_pem(ours))
    assert verifies(key, message, signature)
    assert not verifies(key, message + b" ", signature)
    assert not verifies(key, message, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not verifies(key, message, b"")
    assert not verifies(Key("other", public_pem(other)), message, signature)


@pytest.mark.parametrize("way", WAYS)
def test_who_signed(registry: Registry, way: str) -> None:
    digest = registry.manifest()[2]
    ours, other = new_key(), new_key()
    keys = (Key("first", public_pem(new_key())), Key("ours", public_pem(ours)))
    assert signer(registry, digest, keys) == ""
    sign(registry, digest, other, way)
    assert signer(registry, digest, keys) == "", "signed, but by nobody whom we know"
    sign(registry, digest, ours, way, signed=OTHER)
    assert signer(registry, digest, keys) == "", "a signature of something else"
    sign(registry, digest, ours, way)
    assert signer(registry, digest, keys) == "ours"


def test_keys_by_path_and_in_the_configuration(tmp_path: Path) -> None:
    pem = public_pem(new_key())
    path = tmp_path / "cosign.pub"
    path.write_bytes(pem)
    found = trusted_keys(Settings(trusted_keys=[str(path), pem.decode()]))
    assert found == (Key(str(path), pem), Key("trusted_keys, entry 2", pem))
    assert trusted_keys(Settings()) == ()


def _private() -> str:
    return new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("cosign.pub", "not an absolute path"),
        ("/nonexistent/cosign.pub", "No such file"),
        ("/", "no file of a key"),
        ("-----BEGIN PUBLIC KEY-----\nrubbish", "not a public key in PEM"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "not a public key"),
        (_private(), "a private key"),
        (public_pem(rsa.generate_private_key(65537, 1024)).decode(), "of 1024 bits"),
        (public_pem(dsa.generate_private_key(1024)).decode(), "of another kind"),
    ],
)
def test_keys_that_are_none(entry: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trusted_keys(Settings(trusted_keys=[entry]))


def test_a_key_that_others_can_write(tmp_path: Path) -> None:
    path = tmp_path / "cosign.pub"
    path.write_bytes(public_pem(new_key()))
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others than root can write it"):
        trusted_keys(Settings(trusted_keys=[str(path)]))
