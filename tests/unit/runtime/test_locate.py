from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc import config
from clip_runc.runtime import locate
from clip_runc.runtime.launcher import write_launcher
from clip_runc.runtime.locate import RuntimeNotFound, find_runtime


def program(path: Path, text: str = "#!/bin/sh\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no configuration and a PATH of our own."""
    for module in ("clip_runc.config", "clip_runc.runtime.locate"):
        monkeypatch.setattr(f"{module}.CONFIG_FILE", str(tmp_path / "none"))
        monkeypatch.setattr(f"{module}.CONFIG_DIR", str(tmp_path / "none.d"))
    monkeypatch.setattr(locate, "_DIRECTORIES", (str(tmp_path / "sbin"),))
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    for name in ("CLIP_RUNC_CONFIG", "CLIP_RUNC_RUNTIME"):
        monkeypatch.delenv(name, raising=False)


def test_runc_of_path_before_that_of_sbin(tmp_path: Path) -> None:
    sbin = program(tmp_path / "sbin/runc")
    assert find_runtime() == sbin
    b = program(tmp_path / "b/runc")
    assert find_runtime() == b


def test_without_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    sbin = program(tmp_path / "sbin/runc")
    assert find_runtime() == sbin


def test_relative_entries_of_path_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "runc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ":.")
    with pytest.raises(RuntimeNotFound):
        find_runtime()


def test_a_launcher_under_the_name_runc_is_skipped(tmp_path: Path) -> None:
    write_launcher(str(tmp_path / "a/runc"))
    real = program(tmp_path / "b/runc")
    assert find_runtime() == real


def test_this_program_is_skipped_under_every_name(tmp_path: Path) -> None:
    """A script of pip's has no marker; it is known by its inode."""
    script = program(tmp_path / "pip/clip-runc")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/runc").symlink_to(script)
    (tmp_path / "b").mkdir()
    os.link(script, tmp_path / "b/runc")
    real = program(tmp_path / "sbin/runc")
    assert find_runtime(ourselves=[script]) == real


def test_what_is_no_program_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a/runc").mkdir(parents=True)
    program(tmp_path / "b/runc")
    (tmp_path / "b/runc").chmod(0o644)
    real = program(tmp_path / "sbin/runc")
    assert find_runtime() == real


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeNotFound, match="no runc in PATH nor in"):
        find_runtime()


def test_order_of_the_four_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["runc", "baked", "configured", "environment"]
    paths = {name: program(tmp_path / "a" / name) for name in names}
    assert find_runtime() == paths["runc"]
    assert find_runtime("baked") == paths["baked"]
    config = tmp_path / "config.toml"
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(config))
    config.write_text('log_level = "info"\nruntime = "runc"\n')
    assert find_runtime("baked") == paths["baked"]
    for text in ('runtime = "configured"\n', "runtime = 'configured'\n"):
        config.write_text(text)
        assert find_runtime("baked") == paths["configured"]
    monkeypatch.setenv("CLIP_RUNC_RUNTIME", paths["environment"])
    assert find_runtime("baked") == paths["environment"]


def test_a_broken_configuration_does_not_stop_runc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = program(tmp_path / "a/runc")
    config = tmp_path / "config.toml"
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(config))
    assert find_runtime() == real
    config.write_text("runtime = [[[")
    assert find_runtime() == real


def test_a_path_that_is_ourselves_is_refused(tmp_path: Path) -> None:
    launcher = str(tmp_path / "clip-runc")
    write_launcher(launcher)
    with pytest.raises(RuntimeNotFound, match="is clip-runc itself"):
        find_runtime(launcher)
    with pytest.raises(RuntimeNotFound, match="cannot be executed"):
        find_runtime(str(tmp_path / "nothing"))


def test_the_files_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names are written down twice: importing the settings costs a millisecond."""
    monkeypatch.undo()
    assert (locate.CONFIG_FILE, locate.CONFIG_DIR) == (config.CONFIG_FILE, config.CONFIG_DIR)


@pytest.mark.parametrize("where", ["none", "none.d/10-runtime.toml"])
def test_the_files_of_the_machine_are_read(tmp_path: Path, where: str) -> None:
    program(tmp_path / "a/runc")
    other = program(tmp_path / "a/other")
    (tmp_path / "none.d").mkdir()
    (tmp_path / where).write_text('runtime = "other"\n')
    assert find_runtime() == other
