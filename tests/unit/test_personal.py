"""Directories of an ordinary user, with and without an environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc import config, personal


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_base_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/conf")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/rt")
    found = personal.values()
    assert found["state_dir"] == "/data/clip-runc"
    assert found["credentials_dir"] == "/conf/clip-runc/credentials.d"
    assert found["run_dir"] == f"/rt/clip-runc/{personal.namespace()}"
    assert personal.config_file() == "/conf/clip-runc/config.toml"
    assert set(found) == set(personal.OF_ROOT)


def test_podmans_runtime_is_told_nothing(no_environment: None) -> None:
    """``delete`` has neither HOME nor XDG_DATA_HOME."""
    assert personal.home() == os.path.expanduser("~root")
    assert personal.values()["state_dir"] == "/root/.local/share/clip-runc"
    assert personal.run_base() == "/run/user/0/clip-runc"


def test_relative_directories_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ruth")
    monkeypatch.setenv("XDG_DATA_HOME", "data")
    assert personal.values()["state_dir"] == "/home/ruth/.local/share/clip-runc"


def test_a_namespace_has_a_name_of_its_own() -> None:
    name = personal.namespace()
    assert name == f"mnt-{os.stat('/proc/self/ns/mnt').st_ino}"
    with pytest.raises(FileNotFoundError):
        personal.namespace("0")


def test_who_is_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a container whose ``/`` is its own has the places of any root."""
    assert not config.is_personal()
    monkeypatch.setattr(config, "_rootless", [True])
    assert not config.is_personal()
    found = list(os.stat("/"))
    found[4] = 65534
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result(found))
    assert config.is_personal()
    monkeypatch.setattr(config, "_rootless", [False])
    assert not config.is_personal()


def test_what_is_set_for_root_is_not_for_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ``/etc`` everything counts but root's own directories; the user's file comes last."""
    monkeypatch.setattr(config, "is_personal", lambda: True)
    monkeypatch.setattr(config, "CONFIG_FILE", str(tmp_path / "etc.toml"))
    monkeypatch.setattr(config, "CONFIG_DIR", str(tmp_path / "etc.d"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    (tmp_path / "etc.toml").write_text('state_dir = "/big"\nread_timeout = 7\nruntime = "crun"')
    assert config.load().state_dir == "/data/clip-runc"
    own = tmp_path / "own/clip-runc/config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('run_dir = "/mine"\nruntime = "runc"')
    found = config.load()
    assert (found.read_timeout, found.runtime, found.run_dir) == (7, "runc", "/mine")
