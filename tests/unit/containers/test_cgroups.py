from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clip_runc.containers import cgroups

LINES = "4:memory:/pod/own\n3:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "cgroup"
    for name in ("memory/pod/own", "cpu,cpuacct", "systemd", "unified"):
        (found / name).mkdir(parents=True)
    monkeypatch.setattr(cgroups, "_ROOT", str(found))
    (tmp_path / "own").write_text(LINES)
    return found


def coming(root: Path, path: str) -> set[str]:
    found = cgroups.to_come(path, "c1", str(root.parent / "own"))
    return {str(Path(one).relative_to(root)) for one in found}


def test_an_absolute_path(root: Path) -> None:
    for name in ("memory", "cpu,cpuacct", "unified"):
        (root / name / "pods").mkdir()
    (root / "unified/pods/c1").mkdir()  # there already: not the container's
    assert coming(root, "/pods/c1") == {"memory/pods/c1", "cpu,cpuacct/pods/c1"}


@pytest.mark.parametrize("path", ["", "c1"])
def test_below_our_own_or_at_the_top(root: Path, path: str) -> None:
    assert coming(root, path) == {
        "memory/pod/own/c1", "memory/c1", "cpu,cpuacct/c1", "systemd/c1", "unified/c1"
    }  # fmt: skip


@pytest.mark.parametrize("path", ["machine.slice:libpod:c1", "../up", "//odd", "/"])
def test_what_is_not_ours_to_make(root: Path, path: str) -> None:
    assert coming(root, path) == set()


def test_one_hierarchy_only(root: Path) -> None:
    (root / "unified").rmdir()
    (root.parent / "own").write_text("0::/user.slice\n")
    (root / "user.slice").mkdir()
    assert coming(root, "") == {"user.slice/c1", "c1"}


def test_no_cgroups_at_all(root: Path) -> None:
    assert cgroups.to_come("", "c1", str(root / "missing")) == []


def test_removal(root: Path) -> None:
    (root / "memory/c1/below").mkdir(parents=True)
    (root / "kept").mkdir()
    outside = root.parent / "outside"
    outside.mkdir()
    gone = [f"{root}/memory/c1", f"{root}/missing", str(outside)]
    assert cgroups.remove(gone) == []
    assert not (root / "memory/c1").exists()
    assert (root / "kept").exists() and outside.exists()


def test_a_process_is_in_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waited for, and then left to whoever it belongs to; any other failure is told."""
    code = errno.EBUSY

    def refuse(path: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "rmdir", refuse)
    monkeypatch.setattr(cgroups, "_SECONDS", 0.05)
    assert cgroups.remove([f"{root}/memory"]) == []
    code = errno.EPERM
    assert cgroups.remove([f"{root}/memory"]) == [f"{root}/memory: Operation not permitted"]
