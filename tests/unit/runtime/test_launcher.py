from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.errors import ConfigError
from clip_runc.runtime import launcher


def test_text_names_everything() -> None:
    text = launcher.launcher_text(
        interpreter="/usr/bin/python3.11",
        package_dir="/p",
        site_dirs=["/p", "/s/site-packages"],
        real_runtime="/usr/sbin/runc",
    ).decode()
    lines = text.splitlines()
    assert lines[0] == "#!/usr/bin/python3.11 -IS"
    assert "clip-runc launcher" in lines[1]
    assert "paths = ['/p', '/s/site-packages']" in lines
    assert lines[-1] == "main('/usr/sbin/runc', __file__, load)"


def test_other_programs_of_a_package_load_what_they_import() -> None:
    """clipctl and clipd: nothing comes out of the shim's file."""
    text = launcher.launcher_text("clip_runc.cli.main", package_dir="/p", site_dirs=[]).decode()
    assert text.splitlines()[2:] == [
        "import sys",
        "paths = ['/p']",
        "sys.path.insert(0, paths[0])",
        "from clip_runc.cli.main import main",
        "sys.path[:] = sys.path[1:] + paths",
        "main()",
    ]


@pytest.mark.parametrize("path", ["/with space/python3", f"/{'x' * 130}/python3"])
def test_an_interpreter_that_no_line_can_name(path: str) -> None:
    with pytest.raises(ConfigError, match="interpreter line"):
        launcher.launcher_text(interpreter=path)


def test_the_interpreter_is_no_link_of_a_virtual_environment() -> None:
    path = launcher.real_interpreter()
    assert path == os.path.realpath(path)
    assert not Path(path).parents[1].joinpath("pyvenv.cfg").exists()


def test_install_writes_both_and_replaces_them(tmp_path: Path) -> None:
    for _ in range(2):
        paths = launcher.install(str(tmp_path / "bin"))
        assert [Path(path).name for path in paths] == ["clip-runc", "clip-runc-poststop"]
        for path in paths:
            assert Path(path).stat().st_mode & 0o7777 == 0o755
            assert launcher.is_launcher(path)
    assert sorted(p.name for p in (tmp_path / "bin").iterdir()) == [
        "clip-runc",
        "clip-runc-poststop",
    ]
    assert not launcher.is_launcher("/bin/sh")
    assert not launcher.is_launcher(str(tmp_path / "none"))


def test_nothing_beside_the_package_replaces_the_standard_library(tmp_path: Path) -> None:
    """A site-packages directory may hold backports with names of the standard library."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "clip_runc").symlink_to(Path(launcher.__file__).parents[1])
    (site / "json").mkdir()
    (site / "json/__init__.py").write_text("raise SystemExit('the wrong json')")
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\nexit 7\n")
    fake.chmod(0o755)
    path = tmp_path / "clip-runc"
    launcher.write_launcher(str(path), package_dir=str(site), site_dirs=[], real_runtime=str(fake))
    path.write_text(path.read_text().replace("\nmain(", "\nimport json\nmain("))
    environ = {"CLIP_RUNC_CONFIG": "", "PATH": "/usr/bin:/bin"}
    assert subprocess.run([path, "list"], env=environ, check=False).returncode == 7


def test_a_deleted_working_directory(tmp_path: Path) -> None:
    path = tmp_path / "clip-runc"
    launcher.write_launcher(str(path), real_runtime="/bin/echo")
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["/bin/sh", "-c", f"cd {gone} && rmdir {gone} && exec {path} state x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "state x\n", "")


def test_site_directories_are_those_of_this_process() -> None:
    found = launcher.site_directories()
    assert found
    assert set(found) <= set(sys.path)
