"""containerd's and podman's configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clip_runc.cli.checks import engines
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings

HANDLER = """
version = {version}
[plugins."{plugin}".containerd.runtimes.clip-runc]
  runtime_type = "io.containerd.runc.v2"
  container_annotations = ["dev.clip-runc.*"]
  [plugins."{plugin}".containerd.runtimes.clip-runc.options]
    BinaryName = "/bin/clip-runc"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a clip-runc; both engines are there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    for name in ("etc/containerd/conf.d", "etc/containers/containers.conf.d", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin/clip-runc").write_text("#!/bin/sh\n")
    (tmp_path / "bin/clip-runc").chmod(0o755)
    return tmp_path


def levels(root: Path) -> dict[str, int]:
    return {one.subject: one.level for one in engines.check(Settings(), str(root))}


def test_nothing_configured(root: Path) -> None:
    assert levels(root) == {"containerd": WARN, "podman": WARN}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("imported", [False, True])
def test_a_handler(root: Path, version: int, imported: bool) -> None:
    text = HANDLER.format(version=version, plugin=engines.CRI[version])
    main, part = root / "etc/containerd/config.toml", root / "etc/containerd/conf.d/clip.toml"
    if imported:
        main.write_text(f'version = {version}\nimports = ["{root}/etc/containerd/conf.d/*.toml"]\n')
        part.write_text(text)
    else:
        main.write_text(text)
    assert levels(root)["containerd"] == OK
    (part if imported else main).write_text(text.replace("container_annotations", "other"))
    assert levels(root)["containerd"] == WARN
    (root / "bin/clip-runc").unlink()
    assert levels(root)["containerd"] == FAIL


def test_podman(root: Path) -> None:
    conf = root / "etc/containers/containers.conf.d/clip.conf"
    conf.write_text('[engine.runtimes]\nclip-runc = ["/bin/clip-runc"]\n')
    assert levels(root)["podman"] == OK
    conf.write_text('[engine.runtimes]\nclip-runc = ["/bin/none"]\n')
    assert levels(root)["podman"] == FAIL


def test_files_that_are_no_toml(root: Path) -> None:
    (root / "etc/containerd/config.toml").write_text("=")
    (root / "etc/containers/containers.conf.d/x.conf").write_text("=")
    assert levels(root) == {"containerd": FAIL, "podman": FAIL}


def test_tables_of_the_wrong_kind(root: Path) -> None:
    (root / "etc/containerd/config.toml").write_text('plugins = 5\nimports = "x"\n')
    assert levels(root)["containerd"] == WARN


def test_engines_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert engines.check(Settings(), str(tmp_path)) == []
