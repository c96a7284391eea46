"""Indexes beside images in a repository that nobody trusts: by signature, by comparison."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_runc.registry.client import Registry
from clip_runc.registry.cosign import PAYLOAD_TYPE, SIGNATURE, tag_of
from clip_runc.registry.image import OCI_CONFIG, OCI_MANIFEST, digest_of
from clip_runc.registry.reference import Reference
from tests.integration.busybox_images import CONTENT
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry, wait_for
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need
from tests.integration.pushing import push
from tests.unit.registry.cosigned import payload_of

CONFIG = b'{"architecture":"","created":"0001-01-01T00:00:00Z","os":"","rootfs":{}}'
NOBODY = ["registry.example/team"]


@pytest.fixture
def shared_ref(registry: DockerRegistry, busybox_image: Image, tmp_path: Path) -> str:
    """The busybox image in a repository that only this test pushes indexes to."""
    return push(busybox_image, registry.host, f"trust/{tmp_path.name.strip('_')}", "1")


def pushed(clip: ClipMachine, reference: str) -> tuple[str, Path]:
    """The digest of the artifact, and a bundle as an engine makes it."""
    clip.index(reference)
    done = clip.ctl("push", "--json", reference, check=True)
    bundle = clip.bundle(reference, "/bin/cat", "/srv/data/a")
    clip.edit(bundle, lambda spec: _engines_annotation(spec, reference))
    return json.loads(done.stdout)["artifact"], bundle


def _engines_annotation(spec: dict[str, Any], reference: str) -> None:
    spec["annotations"] = {"io.kubernetes.cri.image-name": reference}


def new_key(directory: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key as cosign's, made by openssl."""
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    make = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"]
    subprocess.run([*make, private], check=True, capture_output=True)
    show = ["openssl", "ec", "-in", private, "-pubout", "-out", public]
    subprocess.run(show, check=True, capture_output=True)
    return private, public


def sign(reference: str, digest: str, private: Path, directory: Path) -> None:
    """What ``cosign sign --key`` leaves in the registry; the signature is openssl's."""
    payload = directory / "payload"
    payload.write_bytes(payload_of(digest))
    signature = directory / "signature"
    make = ["openssl", "dgst", "-sha256", "-sign", private, "-out", signature, payload]
    subprocess.run(make, check=True, capture_output=True)
    with Registry(Reference.parse(reference)) as registry:
        parts = []
        for data, kind in ((CONFIG, OCI_CONFIG), (payload.read_bytes(), PAYLOAD_TYPE)):
            registry.push_blob(data)
            parts.append({"mediaType": kind, "size": len(data), "digest": digest_of(data)})
        signed = base64.b64encode(signature.read_bytes()).decode()
        layers = [{**parts[1], "annotations": {SIGNATURE: signed}}]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0]}
        data = json.dumps({**manifest, "layers": layers}).encode()
        registry.push_manifest(data, OCI_MANIFEST, tag_of(digest))


def test_a_signature_by_a_trusted_key(
    clip_with: Callable[..., ClipMachine], shared_ref: str, tmp_path: Path
) -> None:
    need("openssl")
    private, public = new_key(tmp_path, "cosign")
    other, _ = new_key(tmp_path, "other")
    artifact, bundle = pushed(clip_with(), shared_ref)
    user = clip_with(trusted_registries=NOBODY, trusted_keys=[str(public)], pull_retry=0)

    def refused() -> None:
        assert user.runc("run", "-b", bundle, "c1").returncode != 0, "nothing vouches for it"
        done = user.ctl("pull", shared_ref)
        assert done.returncode == 1
        assert "without a signature by a key of trusted_keys" in done.stderr
        assert f"cosign sign --key cosign.key {shared_ref[:-2]}@{artifact}" in done.stderr

    refused()
    sign(shared_ref, artifact, other, tmp_path)
    refused()
    sign(shared_ref, artifact, private, tmp_path)
    done = user.runc("run", "-b", bundle, "c1")
    assert (done.returncode, done.stdout.encode()) == (0, CONTENT["a"]), done.stderr
    told = json.loads(user.ctl("pull", "--json", shared_ref, check=True).stdout)
    assert (told["artifact"], told["signer"]) == (artifact, str(public))


def test_without_a_signature_when_asked_to(
    clip_with: Callable[..., ClipMachine], shared_ref: str, tmp_path: Path
) -> None:
    need("openssl")
    _, public = new_key(tmp_path, "cosign")
    artifact, _ = pushed(clip_with(), shared_ref)
    user = clip_with(trusted_registries=NOBODY, trusted_keys=[str(public)])
    done = user.ctl("pull", "--json", "--unsigned", shared_ref, check=True)
    told = json.loads(done.stdout)
    assert (told["artifact"], told["signer"]) == (artifact, "")


def test_a_key_that_cannot_be_read_is_said(
    clip_with: Callable[..., ClipMachine], shared_ref: str, tmp_path: Path
) -> None:
    user = clip_with(trusted_registries=NOBODY, trusted_keys=[str(tmp_path / "missing.pub")])
    done = user.ctl("pull", shared_ref)
    assert done.returncode == 1
    assert "missing.pub: No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_nobody_vouches_for_is_compared(
    clip_with: Callable[..., ClipMachine], shared_ref: str
) -> None:
    """The first container goes without; once it is known to be right, the next one has it."""
    artifact, bundle = pushed(clip_with(), shared_ref)
    user = clip_with(trusted_registries=NOBODY, compare_untrusted=True)
    first = user.runc("run", "-b", bundle, "c1")
    assert first.returncode != 0, "the bundle itself has no root filesystem"

    def known() -> bool:
        return "is what its image makes" in user.clipd_log()

    wait_for(known, "the comparison", 120)
    assert artifact in user.clipd_log()
    done = user.runc("run", "-b", bundle, "c2")
    assert (done.returncode, done.stdout.encode()) == (0, CONTENT["a"]), done.stderr
