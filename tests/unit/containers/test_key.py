from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.containers.key import is_key, key
from clip_runc.errors import BundleError

ids = st.text(min_size=1).filter(lambda text: "/" not in text and "\0" not in text)


@given(ids)
def test_a_key_is_one_safe_and_stable_name(container_id: str) -> None:
    found = key("/run/runc", container_id)
    assert found == key("/run/runc", container_id)
    assert is_key(found) and len(found) <= 65
    assert found.isascii() and "/" not in found and found not in (".", "..")


@given(ids, ids)
def test_different_containers_have_different_keys(one: str, other: str) -> None:
    if one != other:
        assert key("/run/runc", one) != key("/run/runc", other)
    assert key("/run/runc", one) != key("/run/crun", one)


def test_the_beginning_of_the_id_can_be_read() -> None:
    assert key("/run/runc", "web-1").startswith("web-1-")


def test_it_is_the_real_path_of_the_root_that_counts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert key(str(tmp_path / "link"), "a") == key(f"{tmp_path}/real/", "a")


@pytest.mark.parametrize("container_id", ["", "a/b", "..//", "a\0"])
def test_what_is_no_id_is_refused(container_id: str) -> None:
    with pytest.raises(BundleError):
        key("/run/runc", container_id)


@pytest.mark.parametrize(
    "name", ["", ".", ".trash", "upper", "a" * 64, "-" + "0" * 24, "lost+found"]
)
def test_other_names_are_no_keys(name: str) -> None:
    assert not is_key(name)
