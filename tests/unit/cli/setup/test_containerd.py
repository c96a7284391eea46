"""The block in containerd's configuration."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from clip_runc.cli.checks.engines import CRI, runtimes
from clip_runc.cli.setup import containerd
from clip_runc.errors import ConfigError

OWN = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "own/pause:1"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
    BinaryName = "/opt/runc"
"""


def place(root: Path, text: str) -> Path:
    path = root / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end"])
def test_in_and_out(tmp_path: Path, end: str) -> None:
    text = OWN.rstrip("\n") + end
    path = place(tmp_path, text)
    change = containerd.install("/bin/clip-runc", str(tmp_path))
    assert change.text is not None
    found = runtimes(tomllib.loads(change.text))["clip-runc"]
    assert found["options"] == {"SystemdCgroup": True, "BinaryName": "/bin/clip-runc"}
    assert tomllib.loads(change.text)["plugins"][CRI[2]]["sandbox_image"] == "own/pause:1"
    change.make()
    assert not containerd.install("/bin/clip-runc", str(tmp_path)).needed()
    assert "/new/clip-runc" in (containerd.install("/new/clip-runc", str(tmp_path)).text or "")
    for undo in containerd.uninstall(str(tmp_path)):
        undo.make()
    assert path.read_text() == text
    assert containerd.uninstall(str(tmp_path)) == []


def test_lines_added_below_ours_stay(tmp_path: Path) -> None:
    path = place(tmp_path, OWN)
    containerd.install("/bin/clip-runc", str(tmp_path)).make()
    path.write_text(path.read_text() + "[debug]\n")
    for undo in containerd.uninstall(str(tmp_path)):
        undo.make()
    assert path.read_text() == f"{OWN}[debug]\n"


@pytest.mark.parametrize("text", ["", "\n", "version = 2\n", "version = 3\n"])
def test_a_file_of_somebody_else_stays_however_little_it_has(tmp_path: Path, text: str) -> None:
    path = place(tmp_path, text)
    containerd.install("/bin/clip-runc", str(tmp_path)).make()
    assert not containerd.install("/bin/clip-runc", str(tmp_path)).needed()
    for undo in containerd.uninstall(str(tmp_path)):
        undo.make()
    assert path.read_text() == text


def test_what_was_added_to_our_file_stays_and_so_does_its_version(tmp_path: Path) -> None:
    change = containerd.install("/bin/clip-runc", str(tmp_path))
    change.make()
    path = Path(change.place)
    version = tomllib.loads(path.read_text())["version"]
    path.write_text(path.read_text() + "[debug]\n")
    for undo in containerd.uninstall(str(tmp_path)):
        undo.make()
    assert tomllib.loads(path.read_text()) == {"version": version, "debug": {}}


def test_version_3(tmp_path: Path) -> None:
    place(tmp_path, "version = 3\n")
    text = containerd.install("/bin/clip-runc", str(tmp_path)).text or ""
    assert list(tomllib.loads(text)["plugins"]) == ["io.containerd.cri.v1.runtime"]


@pytest.mark.parametrize(
    "text",
    [
        "[plugins]\n",
        "version = 1\n",
        "version = 2\n=",
        f'version = 2\n[plugins."{CRI[2]}".containerd.runtimes.clip-runc]\n',
        f'version = 2\n[plugins."{CRI[2]}".containerd]\nruntimes = {{}}\n',
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    place(tmp_path, text)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        containerd.install("/bin/clip-runc", str(tmp_path))


@pytest.mark.parametrize(
    ("said", "version"),
    [("containerd github.com/x/y 1.6.20~ds1 1.6", 2), ("containerd x/v2 v2.1.0 abc", 3)],
)
def test_a_new_file_is_of_the_version_of_containerd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, version: int
) -> None:
    program = tmp_path / "containerd"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    change = containerd.install("/bin/clip-runc", str(tmp_path))
    assert tomllib.loads(change.text or "")["version"] == version
    change.make()
    assert not containerd.install("/bin/clip-runc", str(tmp_path)).needed()
    (undo,) = containerd.uninstall(str(tmp_path))
    assert undo.text is None


# as Debian's package has it: nothing about runtimes
DEBIANS = f"""\
version = 2
[plugins."{CRI[2]}".cni]
  bin_dir = "/usr/lib/cni"
"""


@pytest.mark.parametrize("text", ["", OWN, DEBIANS])
def test_containerd_takes_it(tmp_path: Path, text: str) -> None:
    program = shutil.which("containerd")
    if program is None:
        pytest.skip("prerequisite containerd: it is not installed")
    path = place(tmp_path, text)
    containerd.install("/bin/clip-runc", str(tmp_path)).make()
    dump = subprocess.run(
        [program, "--config", str(path), "config", "dump"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = runtimes(tomllib.loads(dump))
    assert found["runc"]["runtime_type"] == "io.containerd.runc.v2", "containerd 1.x forgets it"
    handler = found["clip-runc"]
    assert handler["options"]["BinaryName"] == "/bin/clip-runc"
    assert handler["container_annotations"] == ["dev.clip-runc.*"]
    if text == OWN:
        assert 'sandbox_image = "own/pause:1"' in dump
