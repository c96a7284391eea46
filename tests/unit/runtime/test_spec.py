from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BundleError
from clip_runc.runtime import spec as specs
from clip_runc.runtime.edits.annotations import Annotations
from clip_runc.runtime.edits.poststop_hook import TIMEOUT_SECONDS, PoststopHook
from clip_runc.runtime.edits.root_path import RootPath
from clip_runc.runtime.spec import (
    annotations_of,
    apply_all,
    cgroup_of,
    edits_for,
    label_of,
    namespace_of,
    wants_nosuid,
)

CHANGED = ("root", "hooks", "annotations")
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
    entry = {"path": "/h", "args": ["/h", "a"], "timeout": TIMEOUT_SECONDS}
    entry["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    assert hooks == {"hooks": {"poststop": [entry]}}


def test_hooks_of_others_come_before_and_stay() -> None:
    other = {"path": "/other"}
    spec: dict[str, object] = {"hooks": {"prestart": [other], "poststop": [other]}}
    PoststopHook("/h", []).apply(spec)
    hooks = spec["hooks"]
    assert isinstance(hooks, dict)
    assert hooks["prestart"] == [other]
    assert [hook["path"] for hook in hooks["poststop"]] == ["/other", "/h"]


@pytest.mark.parametrize(
    "spec", [{"root": "/"}, {"hooks": []}, {"hooks": {"poststop": {}}}, {"annotations": []}]
)
def test_what_cannot_be_edited(spec: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        apply_all(edits_for("/r", "/h", [], {}), spec)


@given(st.dictionaries(st.text(max_size=6).filter(lambda k: k not in CHANGED), JSON))
def test_everything_else_is_kept(spec: dict[str, object]) -> None:
    edited = copy.deepcopy(spec)
    apply_all(edits_for("/r", "/h", [], {}), edited)
    assert {k: v for k, v in edited.items() if k not in CHANGED} == spec


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


@pytest.mark.parametrize("before", [{}, {"annotations": None}, {"annotations": {}}])
def test_the_first_annotations(before: dict[str, object]) -> None:
    Annotations({"mode": "tree"}).apply(before)
    assert before == {"annotations": {"dev.clip-runc.state.mode": "tree"}}


def test_annotations_of_ours_are_nobody_elses() -> None:
    theirs = {"a": "b", "dev.clip-runc.state.mode": "claimed", "dev.clip-runc.state.more": "x"}
    spec: dict[str, object] = {"annotations": theirs}
    Annotations({"mode": "tree"}).apply(spec)
    assert spec == {"annotations": {"a": "b", "dev.clip-runc.state.mode": "tree"}}


def user_spec(path: str = "", **more: object) -> dict[str, object]:
    mappings = [
        {"containerID": 0, "hostID": 100000, "size": 1000},
        {"containerID": 1000, "hostID": 0, "size": 1},
    ]
    namespaces = [{"type": "pid"}, {"type": "user", **({"path": path} if path else {})}]
    return {
        "linux": {
            "namespaces": namespaces, "uidMappings": mappings, "gidMappings": mappings[:1], **more
        }
    }  # fmt: skip


def test_the_user_namespace_of_a_container() -> None:
    found = namespace_of(user_spec())
    assert found is not None
    assert (found.uids, found.gids, found.path) == (
        "0 100000 1000\n1000 0 1\n", "0 100000 1000\n", ""
    )  # fmt: skip
    found = namespace_of(user_spec("/proc/1/ns/nothing"))
    assert found is not None and (found.uids, found.path) == ("", "/proc/1/ns/nothing")


@pytest.mark.parametrize(
    "spec",
    [
        {}, {"linux": None}, {"linux": {"namespaces": "x"}}, {"linux": {"namespaces": [1]}},
        {"linux": {"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}},
        user_spec("/proc/self/ns/user"), user_spec(uidMappings=[]), user_spec(gidMappings=None),
        user_spec(uidMappings=[3]), user_spec(gidMappings=[{"hostID": "0", "size": 1}]),
    ],
)  # fmt: skip
def test_no_user_namespace_that_is_ours_to_care_for(spec: dict[str, object]) -> None:
    """None, our own, or one whose maps runc refuses."""
    assert namespace_of(spec) is None


def test_the_cgroup_of_a_container() -> None:
    assert cgroup_of({"linux": {"cgroupsPath": "/a/b"}}) == "/a/b"
    assert cgroup_of({"linux": {"cgroupsPath": 1}}) == cgroup_of({}) == ""


def test_the_label_where_there_is_selinux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    spec: dict[str, object] = {"linux": {"mountLabel": label}}
    monkeypatch.setattr(specs, "_SELINUX", str(tmp_path))
    assert label_of(spec) == label
    assert label_of({}) == label_of({"linux": {"mountLabel": 3}}) == ""
    monkeypatch.setattr(specs, "_SELINUX", str(tmp_path / "missing"))
    assert label_of(spec) == ""
