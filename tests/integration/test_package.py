"""What ``scripts/package`` makes: twice the same bytes; the Debian package through install,
upgrade, remove and purge in a fresh Debian root, alone and by the DaemonSet's own script.

The root is the test's Debian image, mounted writable by clip-runc itself, entered by chroot(1).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_runc import OverlayMounter, __version__
from clip_runc.cli.setup import kubernetes
from tests.integration.clip_machine import REPOSITORY, ClipMachine
from tests.integration.prerequisites import need

OURS = ("usr/bin/clip*", "usr/lib/clip-runc", "usr/lib/systemd/system/clip*", "etc/clip-runc",
        "usr/share/man/man8/clip*", "usr/share/doc/clip-runc", "var/lib/clip", "run/clip",
        "usr/share/*/*/*clipctl*")  # fmt: skip


def package(directory: Path) -> dict[str, Path]:
    """By suffix: what the script makes."""
    program = [sys.executable, REPOSITORY / "scripts/package.py", directory]
    # a commit between two calls must make no difference
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), **epoch}
    subprocess.run(program, check=True, env=environ, stdout=subprocess.DEVNULL)
    return {path.suffix: path for path in directory.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    need("dpkg-deb")
    return package(tmp_path_factory.mktemp("made"))


def test_made_twice_it_is_the_same(made: dict[str, Path], tmp_path: Path) -> None:
    again = package(tmp_path)
    assert sorted(made) == sorted(again) == [".deb", ".gz", ".json", ".whl"]
    for suffix, path in made.items():
        assert again[suffix].name == path.name
        assert again[suffix].read_bytes() == path.read_bytes(), path.name


def test_bill_of_materials(made: dict[str, Path]) -> None:
    found = json.loads(made[".json"].read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.5")
    assert found["metadata"]["component"]["version"] == __version__
    names = {one["name"]: one for one in found["components"]}
    # what we name ourselves, and what only those need
    assert {"click", "oras", "pyfuse3", "trio", "idna", "certifi", "cffi"} <= set(names)
    assert not {"pytest", "mypy", "hatchling", "pip"} & set(names)
    references = {one["purl"] for one in names.values()}
    for edge in found["dependencies"]:
        assert set(edge["dependsOn"]) <= references


class Root:
    """A Debian that one can install into."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        (self.path / "packages").mkdir()

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run it, with /dev and /proc, on the machine's side; ``$ROOT`` is the root."""
        mounts = 'mount --bind /dev "$ROOT/dev" && mount -t proc proc "$ROOT/proc" && '
        return subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", mounts + script],
            env={
                "ROOT": str(self.path),
                "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def inside(self, command: str) -> str:
        """What a command in it says, on both its outputs."""
        done = self.shell(f"exec chroot \"$ROOT\" sh -c '{command}' 2>&1")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ours(self) -> list[str]:
        """Paths of ours."""
        return sorted(str(p.relative_to(self.path)) for one in OURS for p in self.path.glob(one))


@pytest.fixture
def root(clip: ClipMachine, debian_ref: str) -> Iterator[Root]:
    with OverlayMounter(settings=clip.settings).mount(str(clip.index(debian_ref))) as mount:
        yield Root(mount.rootfs_path)


def newer(deb: Path, work: Path) -> Path:
    """The same package with a later version."""
    subprocess.run(["dpkg-deb", "--raw-extract", deb, work / "tree"], check=True)
    control = work / "tree/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {__version__}", "Version: 99"))
    target = work / "newer.deb"
    build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", work / "tree", target]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return target


def test_install_upgrade_purge(made: dict[str, Path], root: Root, tmp_path: Path) -> None:
    assert root.ours() == []
    shutil.copy(made[".deb"], root.path / "packages/old.deb")
    shutil.copy(newer(made[".deb"], tmp_path), root.path / "packages/new.deb")
    # the image lacks the runtime and a library, and this test has no network
    install = "dpkg --force-depends --install /packages"
    root.inside(f"{install}/old.deb")
    assert root.inside("clipctl --version") == f"clipctl, version {__version__}\n"
    assert "usr/lib/clip-runc" in root.ours()
    assert root.inside("dpkg --verify clip-runc") == ""
    assert "state_dir = " in root.inside("clipctl config show")
    root.inside("clipctl config check")
    assert "nothing" not in root.inside("clipctl doctor --no-self-test || [ $? -le 2 ]")
    units = root.path / "usr/lib/systemd/system"
    assert "ExecStart=/usr/bin/clipd\n" in (units / "clipd.service").read_text()

    config = root.path / "etc/clip-runc/config.toml"
    config.write_text("image_linger = 7\n")
    said = root.inside("clipctl install --podman --systemd --docs")
    assert "wrote /etc/containers" in said and "/etc/systemd" not in said
    assert "/usr/bin/clip-runc" in root.inside("cat /etc/containers/containers.conf.d/*clip-runc*")

    root.inside(f"{install}/new.deb")
    assert "Version: 99" in root.inside("dpkg --status clip-runc")
    assert config.read_text() == "image_linger = 7\n"
    (root.path / "var/lib/clip/indexes").mkdir(parents=True)

    root.inside("dpkg --force-depends --remove clip-runc")
    assert root.ours() == ["etc/clip-runc", "run/clip", "var/lib/clip"] or root.ours() == [
        "etc/clip-runc",
        "var/lib/clip",
    ]
    assert not list(root.path.glob("etc/containers/containers.conf.d/*clip-runc*"))
    root.inside("dpkg --purge clip-runc")
    assert root.ours() == []


def test_the_daemonset_installs_it(made: dict[str, Path], root: Root) -> None:
    text = kubernetes.manifest("x")
    found = re.search(r"^( +)- \|\n((?:\1  .*\n|\n)+)", text, re.MULTILINE)
    assert found is not None
    script = textwrap.dedent(found[2])
    packages = root.path / "packages"
    shutil.copy(made[".deb"], packages)
    for name, line in (("systemctl", "echo $* >> /restarted"), ("apt-get", "exit 0")):
        program = root.path / "usr/local/bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    containerd = root.path / "etc/containerd"
    containerd.mkdir()
    before = 'version = 2\nroot = "/srv/containerd"\n'
    (containerd / "config.toml").write_text(before)
    script = script.replace("/packages", str(packages)).replace("/host", str(root.path))
    script = script.replace("dpkg --install", "dpkg --force-depends --install")
    # what the self-test of doctor mounts is for other tests
    script = script.replace("clipctl doctor ||", "clipctl doctor --no-self-test || [ $? = 2 ] ||")
    for _ in range(2):
        done = root.shell(f"\n{script}")
        assert done.returncode == 0, done.stdout + done.stderr
    config = (containerd / "config.toml").read_text()
    assert 'BinaryName = "/usr/bin/clip-runc"' in config
    assert (root.path / "restarted").read_text() == "restart containerd\n"
    root.inside("dpkg --force-depends --purge clip-runc")
    assert (containerd / "config.toml").read_text() == before
