from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BundleError
from clip_runc.runtime.edits.poststop_hook import TIMEOUT_SECONDS, PoststopHook
from clip_runc.runtime.edits.root_path import RootPath
from clip_runc.runtime.spec import annotations_of, apply_all, edits_for, wants_nosuid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_root_path_keeps_the_rest_of_root() -> None:
    spec: dict[str, object] = {"root": {"path": "rootfs", "readonly": True, "new": 1}}
    RootPath("/r").apply(spec)
    assert spec == {"root": {"path": "/r", "readonly": True, "new": 1}}


def test_a_bundle_without_root() -> None:
    spec: dict[str, object] = {}
    RootPath("/r").apply(spec)
    assert spec == {"root": {"path": "/r"}}


@pytest.mark.parametrize(
    "hooks", [{}, {"hooks": None}, {"hooks": {}}, {"hooks": {"poststop": None}}]
)
def test_the_first_hook(hooks: dict[str, object]) -> None:
    PoststopHook("/h", ["a"]).apply(hooks)
    entry = {"path": "/h", "args": ["/h", "a"], "env": [], "timeout": TIMEOUT_SECONDS}
    assert hooks == {"hooks": {"poststop": [entry]}}


def test_hooks_of_others_come_before_and_stay() -> None:
    other = {"path": "/other"}
    spec: dict[str, object] = {"hooks": {"prestart": [other], "poststop": [other]}}
    PoststopHook("/h", []).apply(spec)
    hooks = spec["hooks"]
    assert isinstance(hooks, dict)
    assert hooks["prestart"] == [other]
    assert [hook["path"] for hook in hooks["poststop"]] == ["/other", "/h"]


@pytest.mark.parametrize("spec", [{"root": "/"}, {"hooks": []}, {"hooks": {"poststop": {}}}])
def test_what_cannot_be_edited(spec: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        apply_all(edits_for("/r", "/h", []), spec)


@given(st.dictionaries(st.text(max_size=6).filter(lambda k: k not in ("root", "hooks")), JSON))
def test_everything_else_is_kept(spec: dict[str, object]) -> None:
    edited = copy.deepcopy(spec)
    apply_all(edits_for("/r", "/h", []), edited)
    assert {k: v for k, v in edited.items() if k not in ("root", "hooks")} == spec


def test_annotations() -> None:
    assert annotations_of({"annotations": {"a": "b"}}) == {"a": "b"}
    assert annotations_of({"annotations": None}) == annotations_of({}) == {}
    assert annotations_of({"annotations": ["a"]}) == {}


def test_nosuid() -> None:
    key = "dev.clip-runc.nosuid"
    assert wants_nosuid({}, True) is True
    assert wants_nosuid({}, False) is False
    assert wants_nosuid({key: "false"}, True) is False
    assert wants_nosuid({key: "true"}, False) is True
    for value in ("yes", False, 1, ""):
        with pytest.raises(BundleError):
            wants_nosuid({key: value}, True)
