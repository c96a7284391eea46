"""What loop devices lack is told with what to do; no device is made here."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from clip_runc.errors import MountFailed
from clip_runc.linux import loop


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "in use"),
        (errno.ENODEV, "modprobe loop"),
        (errno.EPERM, "need root"),
        (errno.EINVAL, "Linux 5.8"),
    ],
)
def test_no_device_is_a_reason_and_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, hint: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    file = tmp_path / "layer"
    file.write_bytes(bytes(512))
    opened = os.open
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os, "open", lambda path, flags: opened(str(file), os.O_RDONLY))
    with pytest.raises(MountFailed, match="loop device over") as caught:
        loop.attach(str(file))
    assert hint in caught.value.hint


def test_a_machine_without_sysfs_gets_new_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = loop.LoopDevice("/dev/loop9", -1)
    monkeypatch.setattr(loop, "_DEVICES", str(tmp_path / "nothing"))
    monkeypatch.setattr(loop, "attach", lambda path: made)
    assert loop.share("/etc/hostname") is made


def test_a_file_is_no_loop_device(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    found = file.stat()
    assert stat.S_ISREG(found.st_mode)
    assert loop._is_over(str(file), found) is None
    assert loop._is_over(str(tmp_path / "none"), found) is None
