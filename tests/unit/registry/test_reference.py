from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import InvalidReference
from clip_runc.registry.reference import Reference, is_loopback

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
        ("index.docker.io/team/app:1", "docker.io/team/app:1"),
        ("docker://ghcr.io/a/b", "ghcr.io/a/b:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
        ("host.example/my.org/image", "host.example/my.org/image:latest"),
        ("host:443/a__b/c-d.e", "host:443/a__b/c-d.e:latest"),
        ("MyHost/app", "MyHost/app:latest"),
        (f"ubuntu@sha256:{HEX}", f"docker.io/library/ubuntu@sha256:{HEX}"),
        (f"a.b/c:t@sha256:{HEX}", f"a.b/c:t@sha256:{HEX}"),
    ],
)
def test_parse(text: str, whole: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == whole
    assert Reference.parse(whole) == reference
    assert hash(Reference.parse(whole)) == hash(reference)
    assert pickle.loads(pickle.dumps(reference)) == reference


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("oci:/var/images/app:latest", "local oci"),
        ("oci:app", "local oci"),
        ("oci-archive:app.tar", "local oci-archive"),
        ("docker-archive:app.tar", "local docker-archive"),
        ("containers-storage:app", "containers-storage"),
        ("dir:/x", "local dir"),
        ("/var/images/app", "path"),
        ("./app", "path"),
        ("../app", "path"),
        (".", "path"),
        ("~/app", "path"),
        ("https://ghcr.io/a/b", "URL"),
        ("Ubuntu", "not a repository"),
        ("a//b", "not a repository"),
        ("a/", "not a repository"),
        ("a b", "not a repository"),
        ("ubuntu:", "not a tag"),
        ("ubuntu:a:b", "not a tag"),
        ("ubuntu\n", "not a repository"),
        ("ubuntu:1\n", "not a tag"),
        ("host.example:99999/a", "not a port"),
        ("host_x.example/a", "not a host"),
        ("user@host.example/a", "not a digest"),
        ("ubuntu@sha256:abc", "not a digest"),
        (f"ubuntu@sha512:{HEX}", "not a digest"),
        (HEX, "image id"),
        ("a/" * 200 + "b", "255"),
        ("a" * 2000, "2000 characters"),
    ],
)
def test_refuse(text: str, reason: str) -> None:
    with pytest.raises(InvalidReference, match=reason):
        Reference.parse(text)


def test_a_local_image_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse("oci:/images/app")
    assert "registry reference" in caught.value.hint
    assert "host/repository:tag" in caught.value.hint


def test_host_of_docker_hub_differs_from_its_name() -> None:
    assert Reference.parse("ubuntu").host == "registry-1.docker.io"
    assert Reference.parse("ubuntu").name == "docker.io/library/ubuntu"
    assert Reference.parse("ghcr.io/a/b").host == "ghcr.io"


def test_version_is_the_digest_if_there_is_one() -> None:
    reference = Reference.parse("a.b/c:t")
    assert reference.version == "t"
    assert reference.with_digest(f"sha256:{HEX}").version == f"sha256:{HEX}"


def test_immutable() -> None:
    with pytest.raises(AttributeError):
        Reference.parse("ubuntu").tag = "x"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "127.0.0.1:5000", "127.9.8.7", "[::1]:1"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.example", "127.0.0.1.example", "10.0.0.1", "[::2]:1", "1127.0.0.1", ""]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


component = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
hosts = st.sampled_from(["docker.io", "localhost", "a.example", "h:5000", "[::1]:80", "127.0.0.1"])


@given(
    hosts,
    st.lists(component, min_size=1, max_size=4),
    st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
)
def test_str_and_parse_are_inverse(
    host: str, path: list[str], tag: str | None, digest: str | None
) -> None:
    if tag is None and digest is None:
        tag = "latest"
    if host == "docker.io" and len(path) == 1:
        path = ["library", *path]
    reference = Reference(host, "/".join(path), tag, digest)
    assert Reference.parse(str(reference)) == reference


@given(st.text(max_size=80) | st.from_regex(r"[a-zA-Z0-9.:/@\[\]_-]{0,60}", fullmatch=True))
def test_anything_parses_or_is_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
