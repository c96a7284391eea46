"""Files of the Go library: which image they speak of, or why they speak of none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import IndexFormatError
from clip_runc.images.go_clip import GoClip, read
from tests.unit.images.go_clips import go_clip, oci_info, wrapped

DIGEST, LAYER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ABOUT = {"Digest": DIGEST, "Architecture": "arm64", "Os": "linux", "Variant": "v8"}


def said(data: bytes, tmp_path: Path) -> GoClip:
    path = tmp_path / "go.clip"
    path.write_bytes(data)
    with path.open("rb") as file:
        return read(file.fileno())


def info(reference: str, host: str = "r.example", about: dict[str, str] = ABOUT) -> bytes:
    return wrapped("oci", oci_info(host, "team/app", reference, [LAYER], about))


def test_a_digest_comes_before_a_tag(tmp_path: Path) -> None:
    expected = GoClip(f"r.example/team/app@{DIGEST}", "linux/arm64/v8", (LAYER,))
    assert said(go_clip(info("1.0")), tmp_path) == expected
    assert said(go_clip(info(DIGEST)), tmp_path) == expected


def test_a_tag_where_there_is_no_more(tmp_path: Path) -> None:
    found = said(go_clip(info("1.0", "https://index.docker.io", {"Os": "linux"})), tmp_path)
    assert found == GoClip("docker.io/team/app:1.0", "", (LAYER,))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK", "not a .clip"),
        (b"\x89CLIP\r\n\x1a\n\x01", "cut short"),
        (go_clip(info("1.0"), version=2), "version 2"),
        (go_clip(b""), "names no image"),
        (go_clip(wrapped("s3", b"")), "'s3'"),
        (go_clip(info("1.0"))[:-3], "cut short"),
        (go_clip(info("")).replace(DIGEST.encode(), b"x" * 71), "names no image"),
        (go_clip(wrapped("oci", b"\x03\x04\x00\x09")), "damaged"),
    ],
)
def test_what_names_no_image(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match=words):
        said(data, tmp_path)


WHOLE = go_clip(info("1.0"))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_damage_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    damaged = WHOLE[:place] + bytes([WHOLE[place] ^ flip]) + WHOLE[place + 1 :]
    try:
        said(damaged, tmp_path_factory.mktemp("go"))
    except IndexFormatError:
        return
