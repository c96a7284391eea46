"""The units, as systemd reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clip_runc.cli.setup import systemd
from clip_runc.config import Settings
from clip_runc.errors import ConfigError
from clip_runc.fs import managed


def test_paths_with_specifiers(tmp_path: Path) -> None:
    settings = Settings(state_dir="/srv/100%", run_dir="/run/a b%")
    found = systemd.texts(settings, "x", "clipd", "clipctl")
    assert "RequiresMountsFor=/srv/100%%\n" in found["clipd.service"]
    assert "ListenSequentialPacket=/run/a b%%/control/clipd.sock\n" in found["clipd.socket"]


def test_names_and_signals_are_those_that_clipd_knows() -> None:
    found = systemd.texts(Settings(), "x", "clipd", "clipctl")
    assert f"FileDescriptorName={managed.SOCKET}\n" in found["clipd.socket"]
    assert f"RestartKillSignal={managed.LEAVE.name}\n" in found["clipd.service"]
    assert f"RestartPreventExitStatus={managed.HOPELESS}\n" in found["clipd.service"]


def test_what_goes_is_stopped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for change in systemd.install(Settings(), str(tmp_path)):
        change.make()
    log = tmp_path / "log"
    fake = tmp_path / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != fail ]\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(systemd, "is_running", lambda: True)
    all_of_them = systemd.uninstall(str(tmp_path))
    assert systemd.stop(all_of_them) == list(systemd.UNITS)
    some = systemd.stop(systemd.uninstall(str(tmp_path), serving=True))
    assert set(systemd.UNITS) - set(some) == {"clipd.socket", "clipd.service"}
    assert systemd.stop([]) == []
    systemd.forget()
    assert log.read_text().splitlines() == [
        f"disable --now {' '.join(systemd.UNITS)}", f"disable --now {' '.join(some)}",
        "daemon-reload",
    ]  # fmt: skip
    fake.write_text("#!/bin/sh\necho no such unit >&2\nexit 1\n")
    with pytest.raises(ConfigError, match="no such unit"):
        systemd.stop(all_of_them)


def test_systemd_takes_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("prerequisite systemd-analyze: it is not installed")
    changes = systemd.install(Settings(), str(tmp_path))
    for change in changes:
        change.make()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(change.place for change in changes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert not ours, done.stderr
    assert done.returncode == 0, done.stderr
