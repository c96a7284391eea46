"""``clipctl install`` and ``uninstall`` below a root of the test's."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from clip_runc.cli import install, uninstall
from clip_runc.errors import ConfigError
from clip_runc.runtime.launcher import is_launcher

ALL = (
    "--systemd", "--containerd", "--podman", "--docker", "--docs", "--as-runc",
    "--runtime", "/usr/sbin/runc",
)  # fmt: skip
SHARE = "usr/local/share"


def run(root: Path, *arguments: str) -> Result:
    command = uninstall.command if "--un" in arguments else install.command
    given = [one for one in arguments if one != "--un"]
    return CliRunner().invoke(command, ["--root", str(root), *given], standalone_mode=False)


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_everything_and_back(tmp_path: Path) -> None:
    config = tmp_path / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('version = 2\nroot = "/x"')
    config.chmod(0o640)
    before = files(tmp_path)
    done = run(tmp_path, *ALL)
    assert done.exception is None, done.output
    assert sorted(files(tmp_path)) == [
        "etc/containerd/config.toml",
        "etc/containers/containers.conf.d/50-clip-runc.conf",
        "etc/docker/daemon.json",
        "etc/systemd/system/clip-runc-gc.service",
        "etc/systemd/system/clip-runc-gc.timer",
        "etc/systemd/system/clip-runc-metrics.service",
        "etc/systemd/system/clipd.service",
        "etc/systemd/system/clipd.socket",
        "usr/local/bin/clip-runc",
        "usr/local/bin/clip-runc-poststop",
        "usr/local/bin/runc",
        f"{SHARE}/bash-completion/completions/clipctl",
        f"{SHARE}/fish/vendor_completions.d/clipctl.fish",
        f"{SHARE}/man/man8/clip-runc.8",
        f"{SHARE}/man/man8/clipctl.8",
        f"{SHARE}/zsh/site-functions/_clipctl",
    ]
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    after = files(tmp_path)
    again = run(tmp_path, *ALL)
    assert "wrote" not in again.output
    assert "@@" not in again.output
    assert files(tmp_path) == after
    undone = run(tmp_path, "--un")
    assert undone.exception is None
    assert files(tmp_path) == before
    assert "nothing of ours" in run(tmp_path, "--un").output


def test_a_dry_run_shows_the_diff_and_writes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--dry-run", *ALL)
    assert "+clip-runc = " in done.output
    assert f"would write {tmp_path}/usr/local/bin/clip-runc\n" in done.output
    assert files(tmp_path) == {}
    run(tmp_path, *ALL)
    before = files(tmp_path)
    assert "would remove" in run(tmp_path, "--un", "--dry-run").output
    assert files(tmp_path) == before


def test_launchers(tmp_path: Path) -> None:
    run(tmp_path, "--as-runc", "--runtime", "/opt/real/runc")
    for name in ("clip-runc", "clip-runc-poststop", "runc"):
        path = tmp_path / "usr/local/bin" / name
        assert is_launcher(str(path))
        assert os.access(path, os.X_OK)
    assert "/opt/real/runc" in (tmp_path / "usr/local/bin/runc").read_text()


def test_as_runc_remembers_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real/runc"
    real.parent.mkdir()
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/root/usr/local/bin:{real.parent}")
    monkeypatch.delenv("CLIP_RUNC_RUNTIME", raising=False)
    monkeypatch.setenv("CLIP_RUNC_CONFIG", os.devnull)
    for _ in range(2):
        assert run(tmp_path / "root", "--as-runc").exception is None
        assert str(real) in (tmp_path / "root/usr/local/bin/runc").read_text()


@pytest.mark.parametrize("name", ["usr/local/bin/runc", "etc/systemd/system/clipd.service"])
def test_files_of_others_are_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    assert isinstance(run(tmp_path, *ALL).exception, ConfigError)
    run(tmp_path, "--un")
    assert files(tmp_path) == {name: b"mine\n"}


def test_all_takes_the_engines_that_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "_is_here", lambda name: name == "podman")
    run(tmp_path, "--all")
    found = files(tmp_path)
    assert "etc/containers/containers.conf.d/50-clip-runc.conf" in found
    assert "etc/systemd/system/clipd.service" in found
    assert not [name for name in found if name.startswith(("etc/docker", "etc/containerd"))]


def test_kubernetes_prints_and_writes_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "--kubernetes", "--image", "registry.example:5000/node:7")
    assert "handler: clip-runc\n" in done.output
    assert done.output.count("image: registry.example:5000/node:7\n") == 2
    assert files(tmp_path) == {}
    assert isinstance(run(tmp_path, "--kubernetes", "--image", "a b").exception, ConfigError)


def test_what_a_package_brought_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (install.packaged, uninstall.packaged):
        monkeypatch.setattr(module, "bin_dir", lambda: "/usr/bin")
    run(tmp_path, "--bin-dir", "/usr/bin", "--systemd", "--docs", "--podman")
    assert list(files(tmp_path)) == ["etc/containers/containers.conf.d/50-clip-runc.conf"]
    run(tmp_path, "--bin-dir", "/opt/bin")
    assert "opt/bin/clip-runc" in files(tmp_path)
    refused = run(tmp_path, "--bin-dir", "/usr/bin", "--as-runc", "--runtime", "/usr/sbin/runc")
    assert isinstance(refused.exception, ConfigError)
    packaged = tmp_path / "usr/bin/clip-runc"
    packaged.parent.mkdir(parents=True)
    packaged.write_bytes((tmp_path / "opt/bin/clip-runc").read_bytes())
    run(tmp_path, "--un", "--bin-dir", "/usr/bin")
    assert packaged.exists()
    assert "etc/containers/containers.conf.d/50-clip-runc.conf" not in files(tmp_path)


def test_without_options_only_the_executables(tmp_path: Path) -> None:
    run(tmp_path)
    assert sorted(files(tmp_path)) == [
        "usr/local/bin/clip-runc",
        "usr/local/bin/clip-runc-poststop",
    ]


def test_podman_is_told_the_binary(tmp_path: Path) -> None:
    run(tmp_path, "--podman", "--bin-dir", "/opt/bin")
    text = (tmp_path / "etc/containers/containers.conf.d/50-clip-runc.conf").read_text()
    assert tomllib.loads(text) == {"engine": {"runtimes": {"clip-runc": ["/opt/bin/clip-runc"]}}}
