from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BadResponse, ClipError, NotFound
from clip_runc.registry import image

HEX = "ab" * 32
ENTRY = {"mediaType": image.OCI_MANIFEST, "digest": f"sha256:{HEX}", "size": 7}


def manifest(**fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **fields}).encode()


def index(*entries: object) -> bytes:
    return manifest(mediaType=image.OCI_INDEX, manifests=entries)


def entry(number: int, platform: str) -> dict[str, object]:
    names = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return {**ENTRY, "digest": f"sha256:{number:064x}", "platform": names}


@pytest.mark.parametrize(
    ("data", "content_type", "expected"),
    [
        (manifest(layers=[]), image.OCI_MANIFEST, image.OCI_MANIFEST),
        (manifest(layers=[], mediaType=image.DOCKER_MANIFEST), "text/plain", image.DOCKER_MANIFEST),
        (manifest(manifests=[]), f"{image.DOCKER_LIST}; charset=utf-8", image.DOCKER_LIST),
        (manifest(layers=[]), "application/json", image.OCI_MANIFEST),
        (manifest(manifests=[]), "", image.OCI_INDEX),
    ],
)
def test_media_type(data: bytes, content_type: str, expected: str) -> None:
    assert image.media_type_of(data, content_type, "x") == expected


@pytest.mark.parametrize(
    ("data", "content_type", "reason"),
    [
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "", "schema 1"),
        (manifest(), image.DOCKER_SCHEMA1[1], "schema 1"),
        (manifest(layers=[], manifests=[]), image.OCI_MANIFEST, "both"),
        (manifest(layers=[]), image.OCI_INDEX, "not a manifest"),
        (manifest(manifests=[]), image.DOCKER_MANIFEST, "not a manifest"),
        (manifest(), "text/html", "not a manifest"),
        (b"<html>", "text/html", "not a JSON object"),
        (b"[" * 100_000, "", "not a JSON object"),
        (b"[]", "", "not a JSON object"),
    ],
)
def test_media_type_refused(data: bytes, content_type: str, reason: str) -> None:
    with pytest.raises(BadResponse, match=reason):
        image.media_type_of(data, content_type, "x")


PLATFORMS = ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6", "windows/amd64"]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("linux/amd64", 0),
        ("linux/amd64/v3", 0),
        ("linux/arm64", 1),
        ("linux/arm64/v8", 1),
        ("arm", 2),
        ("linux/arm/v6", 3),
        ("windows/amd64", 4),
    ],
)
def test_choose(wanted: str, number: int) -> None:
    data = index(*(entry(i, platform) for i, platform in enumerate(PLATFORMS)))
    chosen, _ = image.choose(data, wanted, "x")
    assert chosen.digest == f"sha256:{number:064x}"


def test_choose_says_what_there_is() -> None:
    data = index(entry(0, "linux/amd64"), entry(1, "linux/arm64/v8"), entry(2, "unknown/unknown"))
    with pytest.raises(
        NotFound, match="no such platform: linux/s390x: have linux/amd64, linux/arm64 "
    ):
        image.choose(data, "linux/s390x", "x")


def test_attestations_are_skipped() -> None:
    attestation = {
        **entry(0, "linux/amd64"),
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    unknown = entry(1, "unknown/unknown")
    chosen, named = image.choose(index(attestation, unknown, entry(2, "linux/amd64")), "amd64", "x")
    assert (chosen.digest, named) == (f"sha256:{2:064x}", "linux/amd64")


def test_artifacts_beside_images_are_skipped() -> None:
    soci = entry(0, "linux/amd64") | {"artifactType": "application/vnd.amazon.soci.index.v2+json"}
    named_so = entry(1, "linux/amd64") | {"artifactType": image.OCI_CONFIG}
    assert image.choose(index(soci, named_so), "amd64", "x")[0].digest == f"sha256:{1:064x}"


def test_an_entry_without_platform_is_the_last_resort() -> None:
    chosen, named = image.choose(index(ENTRY, entry(1, "linux/arm64")), "linux/amd64", "x")
    assert (chosen.digest, named) == (ENTRY["digest"], "")
    chosen, named = image.choose(index(ENTRY, entry(1, "linux/arm64")), "linux/arm64", "x")
    assert named == "linux/arm64"


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {"digest": "sha256:x", "size": 1},
        {"digest": f"sha512:{HEX}", "size": 1},
        {"digest": f"sha256:{HEX}\n", "size": 1},
        {"digest": f"sha256:{HEX}", "size": -1},
        {"digest": f"sha256:{HEX}", "size": True},
        {"digest": f"sha256:{HEX}", "size": 1 << 60},
        {"digest": f"sha256:{HEX}", "size": "1"},
        {"digest": f"sha256:{HEX}", "size": 1, "mediaType": 3},
    ],
)
def test_bad_descriptor(bad: object) -> None:
    with pytest.raises(BadResponse):
        image.descriptor(bad, "x")


def test_parts() -> None:
    config = {**ENTRY, "mediaType": image.OCI_CONFIG}
    found, layers = image.parts(manifest(config=config, layers=[ENTRY, ENTRY]), "x")
    assert found.size == 7
    assert len(layers) == 2


@pytest.mark.parametrize(
    ("config", "layers", "reason"),
    [
        ({**ENTRY, "mediaType": "application/vnd.cncf.helm.config.v1+json"}, [], "artifact"),
        ({**ENTRY, "mediaType": image.OCI_CONFIG, "size": 9 << 20}, [], "8388608 are allowed"),
        ({**ENTRY, "mediaType": image.OCI_CONFIG}, [ENTRY] * 1025, "1025 layers"),
        ({**ENTRY, "mediaType": image.OCI_CONFIG}, [1], "no object"),
        (None, [], "no object"),
    ],
)
def test_parts_refused(config: object, layers: object, reason: str) -> None:
    with pytest.raises(BadResponse, match=reason):
        image.parts(manifest(config=config, layers=layers), "x")


def config_json(**fields: object) -> bytes:
    filled = {
        "os": "linux",
        "architecture": "arm64",
        "rootfs": {"diff_ids": [f"sha256:{HEX}"]},
        **fields,
    }
    return json.dumps(filled).encode()


def test_check_config() -> None:
    assert image.check_config(config_json(), 1, "x") == ("linux/arm64", (f"sha256:{HEX}",))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (config_json(rootfs=None), "no sha256 diff_ids"),
        (config_json(rootfs={"diff_ids": ["x"]}), "no sha256 diff_ids"),
        (config_json(rootfs={"diff_ids": []}), "1 layers, but 0"),
        (config_json(os=""), "no platform"),
        (b"{", "not a JSON object"),
    ],
)
def test_check_config_refuses(data: bytes, reason: str) -> None:
    with pytest.raises(BadResponse, match=reason):
        image.check_config(data, 1, "x")


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just(ENTRY),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifests", "layers", "config", "platform", "os", "architecture", "digest"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(values, st.booleans())
def test_any_json_is_read_or_refused(value: object, as_index: bool) -> None:
    data = json.dumps(value).encode()
    try:
        kind = image.media_type_of(data, "", "x")
        if image.is_index(kind):
            image.choose(data, "linux/amd64", "x")
        else:
            image.parts(data, "x")
        image.check_config(data, 0, "x")
    except ClipError:
        return
