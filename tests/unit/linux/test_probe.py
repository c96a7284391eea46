"""This machine runs the tests, so it has what the project needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.linux import probe, syscalls
from tests.integration.prerequisites import native


@native("openat2")
def test_calls_of_this_kernel() -> None:
    assert probe.has_pidfd()
    assert probe.has_openat2()


def test_a_kernel_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(syscalls, "syscall", missing)
    assert not probe.has_pidfd()
    assert not probe.has_openat2()


def test_directories_tell_types(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert probe.tells_types(str(tmp_path))


def test_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe.tells_types(f"{tmp_path}/none")
