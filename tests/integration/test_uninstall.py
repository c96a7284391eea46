"""``clipctl uninstall``: nothing of ours runs afterwards, and no container loses its files."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.integration.clip_machine import ClipMachine, mounts_below, processes_of


def test_clipd_goes_when_nobody_reads(clip: ClipMachine, busybox_ref: str) -> None:
    bundle = clip.bundle(busybox_ref, "/bin/sleep", "1000")
    subprocess.run(
        [clip.runtime, "--root", clip.root, "run", "--detach", "--bundle", bundle, "one"],
        env={**os.environ, **clip.environ}, check=True, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    runc = shutil.which("runc")
    assert runc is not None
    real = [runc, "--root", str(clip.root)]
    uninstall = ("uninstall", "--bin-dir", str(clip.bin))
    dry = clip.ctl(*uninstall, "--dry-run", check=True).stdout
    assert "clipd stays" in dry
    assert clip.runtime.exists()
    said = clip.ctl(*uninstall, check=True).stdout
    assert "clipd stays: 1 containers" in said
    assert not clip.runtime.exists()
    assert clip.call([*real, "exec", "one", "cat", "/srv/data/a"], check=True).stdout == "one\n"
    clip.call([*real, "delete", "--force", "one"])
    clip.ctl("gc", check=True)
    assert "stopped clipd" in clip.ctl(*uninstall, check=True).stdout
    assert not mounts_below(clip.directory)
    assert not processes_of([str(clip.run_dir)])
    assert "nothing of ours" in clip.ctl(*uninstall, check=True).stdout
