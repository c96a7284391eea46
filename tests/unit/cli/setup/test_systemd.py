"""The units, as systemd reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clip_runc.cli.setup import systemd


def test_paths_with_specifiers(tmp_path: Path) -> None:
    clipd = systemd.install("/srv/100%", str(tmp_path))[0]
    assert "RequiresMountsFor=/srv/100%%\n" in (clipd.text or "")


def test_systemd_takes_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("prerequisite systemd-analyze: it is not installed")
    changes = systemd.install("/var/lib/clip", str(tmp_path))
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
