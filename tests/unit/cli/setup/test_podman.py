"""podman finds the runtime by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from clip_runc.cli.setup import podman


def test_podman_takes_it(tmp_path: Path) -> None:
    if os.geteuid() or shutil.which("podman") is None:
        pytest.skip("prerequisite podman: root and podman are needed")
    runtime = shutil.which("runc") or "/usr/sbin/runc"
    change = podman.install(runtime, str(tmp_path))
    change.make()
    # podman takes no more than 50 characters for a run root
    with tempfile.TemporaryDirectory(prefix="clip-") as short:
        done = _info(short, change.place)
    assert done.stdout.strip() == f"clip-runc {runtime}", done.stderr
    assert podman.uninstall(str(tmp_path))[0].text is None


def _info(directory: str, conf: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", f"--root={directory}/root", f"--runroot={directory}/run",
         f"--tmpdir={directory}/tmp", "--storage-driver=vfs", "--runtime=clip-runc",
         "info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"],
        env={**os.environ, "CONTAINERS_CONF": conf},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
