"""What is promised of the project's shape."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.integration.clip_machine import REPOSITORY


def test_wheel_carries_the_package_and_its_hook(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
         "--disable-pip-version-check", f"--wheel-dir={tmp_path}", str(REPOSITORY)],
        check=True,
    )  # fmt: skip
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        commands = wheel.read(entry_points).decode()
    for name in ("py.typed", "runtime/main.py", "fs/supervisor.py", "hooks/clip-runc-poststop"):
        assert f"clip_runc/{name}" in names
    for name in ("clip-runc", "clipctl", "clipd"):
        assert f"{name} = " in commands


def test_ci_and_readme_share_one_command() -> None:
    assert "scripts/check" in (REPOSITORY / ".ci/run").read_text()
    readme = (REPOSITORY / "README.md").read_text()
    for command in ("scripts/quickstart", "scripts/check"):
        assert command in readme
        assert os.access(REPOSITORY / command, os.X_OK)


def test_the_layout_is_the_one_promised() -> None:
    for name in ("clip_runc", "hooks", "tests/unit", "tests/integration", "bench", "docs"):
        assert (REPOSITORY / name).is_dir()
    for name in ("Vagrantfile", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        assert (REPOSITORY / name).is_file()
