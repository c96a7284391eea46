"""Who a container runs as, from the image's own files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BundleError
from clip_runc.images.users import User, resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/bash
app:x:1000:1000::/home/app:/bin/sh
broken line
odd:x:many:1::/:/bin/sh
svc:x:2000:50::/srv:/usr/sbin/nologin
"""
GROUP = b"""root:x:0:
audio:x:29:app,svc
video:x:44:app
staff:x:50:
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, (), "/root")),
        ("root", User(0, 0, (), "/root")),
        ("app", User(1000, 1000, (29, 44), "/home/app")),
        ("1000", User(1000, 1000, (29, 44), "/home/app")),
        ("svc", User(2000, 50, (29,), "/srv")),
        ("app:staff", User(1000, 50, (), "/home/app")),
        ("app:77", User(1000, 77, (), "/home/app")),
        ("4242", User(4242, 0, (), "/")),
        ("4242:video", User(4242, 44, (), "/")),
    ],
)
def test_forms_of_the_image_spec(text: str, expected: User) -> None:
    assert resolve_user(text, PASSWD, GROUP) == expected


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "odd", "99999999999"])
def test_names_that_the_image_does_not_have(text: str) -> None:
    with pytest.raises(BundleError, match=r"not in its /etc/(passwd|group)"):
        resolve_user(text, PASSWD, GROUP)


def test_root_needs_no_files() -> None:
    assert resolve_user("") == User(0, 0, (), "/root")


@given(st.text(), st.binary(), st.binary())
def test_any_input_gives_ids_or_our_error(text: str, passwd: bytes, group: bytes) -> None:
    try:
        user = resolve_user(text, passwd, group)
    except BundleError:
        return
    assert 0 <= user.uid < 2**32 - 1
    assert 0 <= user.gid < 2**32 - 1
