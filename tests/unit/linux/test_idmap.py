"""User namespaces for idmapped mounts; tests/integration/test_runtime_spec.py mounts them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clip_runc.errors import MountFailed
from clip_runc.linux import idmap, syscalls
from clip_runc.linux.idmap import UserNamespace


def test_our_own_namespace_has_nothing_to_translate(tmp_path: Path) -> None:
    assert UserNamespace(path="/proc/self/ns/user").is_ours()
    assert not UserNamespace(path="/proc/self/ns/net").is_ours()
    assert not UserNamespace(path=str(tmp_path / "missing")).is_ours()
    assert not UserNamespace("0 0 1\n", "0 0 1\n").is_ours()


def test_a_namespace_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of the child is told, and no child is left."""

    def refuse(flags: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    children = []

    def fork() -> int:
        children.append(made := real())
        return made

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(syscalls, "unshare", refuse)
    with pytest.raises(MountFailed, match="cannot be made: No space left") as caught:
        idmap.mount_idmapped(str(tmp_path), str(tmp_path), UserNamespace("0 1 1\n", "0 1 1\n"))
    assert caught.value.errno == errno.ENOSPC
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    missing = UserNamespace(path=str(tmp_path / "missing"))
    with pytest.raises(MountFailed, match="No such file") as caught:
        idmap.mount_idmapped(str(tmp_path), str(tmp_path), missing)
    assert "config.json" in caught.value.hint


def test_a_kernel_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(syscalls, "syscall", refuse)
    with pytest.raises(MountFailed, match=r"not implemented \[ENOSYS\]") as caught:
        idmap.mount_idmapped(str(tmp_path), str(tmp_path), UserNamespace(path="/proc/self/ns/user"))
    assert "5.19" in caught.value.hint
