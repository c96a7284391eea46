"""Reading what cosign stores; whether it is worth anything is tested in images/."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BadResponse, Unauthorized
from clip_runc.registry import cosign
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_MANIFEST
from tests.unit.registry.cosigned import WAYS, bundle_of, new_key, payload_of, sign

Connect = Callable[..., Registry]
DIGEST = "sha256:" + "7" * 64


@pytest.mark.parametrize("api", [True, False])
def test_found_in_every_way(connect: Connect, api: bool) -> None:
    with FakeRegistry(referrers=api) as fake:
        fake.add_image("team/app", "1.0", [b"layer"])
        registry = connect(fake)
        digest = registry.manifest()[2]
        assert list(cosign.signatures(registry, digest)) == []
        for way in WAYS:
            sign(registry, digest, new_key(), way)
        found = list(cosign.signatures(registry, digest))
        assert [one.subject for one in found] == [digest] * 3
        assert len({one.signature for one in found}) == 3
        assert found[0].message == payload_of(digest, registry.reference.name)
        assert found[2].message.startswith(b"DSSEv1 28 application/vnd.in-toto+json ")


def test_what_is_none_is_passed_over(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    digest = registry.manifest()[2]
    payload = payload_of(digest)
    blob = fake.add_blob(payload)
    layer = {"mediaType": cosign.PAYLOAD_TYPE, "digest": blob, "size": len(payload)}
    good = {"annotations": {cosign.SIGNATURE: "c2lnbmF0dXJl"}}
    layers = [
        None,
        layer,  # without a signature
        layer | {"annotations": {cosign.SIGNATURE: "no base64!"}},
        layer | good | {"mediaType": "text/plain"},
        layer | good | {"size": 10 << 30},
        layer | good | {"digest": "sha256:" + "0" * 64},  # a blob that is not there
        layer | good,
    ]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": layers}
    fake.add_manifest("team/app", cosign.tag_of(digest), manifest, OCI_MANIFEST)
    [only] = cosign.signatures(registry, digest)
    assert only == (payload, b"signature", digest)


def test_a_registry_that_refuses_is_an_error(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    digest = registry.manifest()[2]
    fake.fault("status", 403, times=-1, on="/v2/")
    with pytest.raises(Unauthorized):
        list(cosign.signatures(registry, digest))


def test_no_more_are_read_than_make_sense(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    digest = registry.manifest()[2]
    payload = payload_of(digest)
    layer = {"mediaType": cosign.PAYLOAD_TYPE, "digest": fake.add_blob(payload)}
    layer |= {"size": len(payload), "annotations": {cosign.SIGNATURE: "c2ln"}}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}}
    fake.add_manifest(
        "team/app", cosign.tag_of(digest), manifest | {"layers": [layer] * 5000}, OCI_MANIFEST
    )
    assert len(list(cosign.signatures(registry, digest))) == 64


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        payload_of("sha512:" + "1" * 128),
        payload_of("latest"),
        payload_of(DIGEST).replace(b"cosign container", b"atomic container"),
    ],
)
def test_payloads_that_are_none(payload: bytes) -> None:
    with pytest.raises(BadResponse):
        cosign.from_payload(payload, "c2ln")


@pytest.mark.parametrize(
    "changes",
    [
        {"predicateType": "https://slsa.dev/provenance/v1"},  # an attestation is no signature
        {"subject": []},
        {"subject": [{"digest": {"sha512": "1" * 128}}]},
        {"subject": [{"digest": {"sha256": "7" * 64}}] * 2},
    ],
)
def test_bundles_that_are_none(changes: dict[str, object]) -> None:
    with pytest.raises(BadResponse):
        cosign.from_bundle(bundle_of(new_key(), DIGEST, **changes))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["critical", "image", "type", "docker-manifest-digest", "dsseEnvelope", "payload"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.text(max_size=12))
def test_any_json_is_read_or_refused(value: object, signature: str) -> None:
    data = json.dumps(value).encode()
    for read in (lambda: cosign.from_payload(data, signature), lambda: cosign.from_bundle(data)):
        try:
            read()
        except BadResponse:
            continue
