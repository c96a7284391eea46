"""What is promised of the project's shape."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from clip_runc import __version__
from tests.integration.clip_machine import REPOSITORY

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def run(command: list[str], cwd: Path) -> str:
    """What a command prints, without our PYTHONPATH."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a source distribution by the hatchling that is here: no network."""
    directory = tmp_path_factory.mktemp("dist")
    backend = [sys.executable, "-m", "hatchling", "build"]
    run([*backend, "-t", "sdist", "-d", str(directory)], REPOSITORY)
    (sdist,) = directory.glob("*.tar.gz")
    run(
        [
            *PIP,
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            f"--wheel-dir={directory}",
            str(sdist),
        ],
        directory,
    )
    (found,) = directory.glob("*.whl")
    return found


def test_wheel_carries_the_package_and_its_hook(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    for name in ("py.typed", "runtime/main.py", "fs/supervisor.py", "hooks/clip-runc-poststop"):
        assert f"clip_runc/{name}" in names
    for name in ("clip-runc", "clipctl", "clipd"):
        assert f"{name} = " in commands
    assert any(name.endswith("share/man/man8/clip-runc.8") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "bench/"))]


def test_an_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own; what it needs comes from the one that runs the tests."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin/python"
    run([*PIP, "--python", str(python), "install", "--no-deps", str(wheel)], tmp_path)
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shown = run([str(environment / "bin/clipctl"), "--version"], tmp_path)
    assert shown == f"clipctl, version {__version__}\n"
    place = run([str(python), "-c", "import clip_runc; print(clip_runc.__file__)"], tmp_path)
    assert place.startswith(str(site))
    root = tmp_path / "root"
    run([str(environment / "bin/clipctl"), "install", "--root", str(root), "--systemd"], tmp_path)
    launcher = root / "usr/local/bin/clip-runc"
    assert str(site) in launcher.read_text()
    unit = (root / "etc/systemd/system/clipd.service").read_text()
    assert f"ExecStart={environment}/bin/clipd\n" in unit
    # without arguments there is nothing to do, which is no error
    run([sys.executable, str(site / "clip_runc/hooks/clip-runc-poststop")], tmp_path)


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "clip_runc/__init__.py"
    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()


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
