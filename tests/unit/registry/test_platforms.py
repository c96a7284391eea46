from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import InvalidReference
from clip_runc.registry.platforms import host_platform, normalise, of_json, rank


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64/v8", "linux/arm64"),
        ("Linux/AArch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "linux/amd 64", "linux/amd64\n"])
def test_no_platform(text: str) -> None:
    with pytest.raises(InvalidReference, match="not a platform"):
        normalise(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/amd64", "linux/amd64/v3", None),
        ("linux/amd64/v3", "linux/amd64", 2),
        ("linux/amd64/v3", "linux/amd64/v2", 1),
        ("linux/arm", "linux/arm/v6", 1),
        ("linux/arm/v6", "linux/arm", None),
        ("linux/arm64", "linux/arm", None),
        ("linux/amd64", "windows/amd64", None),
        ("linux/mips/odd", "linux/mips", None),
    ],
)
def test_rank(wanted: str, offered: str, expected: int | None) -> None:
    assert rank(wanted, offered) == expected


@pytest.mark.parametrize(
    ("value", "platform"),
    [
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, "linux/arm64"),
        ({"os": "unknown", "architecture": "unknown"}, None),
        ({"os": "linux"}, None),
        ({"os": 1, "architecture": "amd64"}, None),
        ({"os": "linux", "architecture": "a/b/c/d"}, None),
        ([], None),
    ],
)
def test_of_json(value: object, platform: str | None) -> None:
    assert of_json(value) == platform


def test_host_platform_is_normal() -> None:
    assert normalise(host_platform()) == host_platform()


@given(st.text(max_size=40))
def test_normalise_never_crashes(text: str) -> None:
    try:
        assert rank(normalise(text), normalise(text)) == 0
    except InvalidReference:
        return
