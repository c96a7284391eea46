"""The three steps of the seed for programs, in its words."""

from __future__ import annotations

from pathlib import Path

import pytest

import clip_runc
from clip_runc.errors import InvalidReference
from tests.integration.clip_machine import ClipMachine


def test_the_three_steps(
    clip: ClipMachine, busybox_ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index from the registry, verify, mount, hand the path to runc."""
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(clip.config))
    index = tmp_path / "test.clip"
    clip_runc.create_from_oci_image(image_ref=busybox_ref, output_path=str(index), checkpoint_mib=2)
    assert all(check.ok for check in clip_runc.verify(str(index)))
    mounter = clip_runc.OverlayMounter(mount_base=str(clip.state), rootfs_base=str(clip.run_dir))
    mount = mounter.mount(str(index))
    rootfs = Path(mount.rootfs_path)
    assert rootfs.is_relative_to(clip.run_dir)
    assert (rootfs / "bin").readlink() == Path("usr/bin")
    assert (rootfs / "proc").is_dir()
    (rootfs / "srv/written").write_text("by the container")
    mount.unmount()
    assert not rootfs.exists()
    mount.unmount()


def test_bundle_on_a_mount_of_ours(clip: ClipMachine, busybox_ref: str) -> None:
    """``rootfs_path`` in a config.json of one's own, run by the real runc."""
    bundle = clip.directory / "own"
    bundle.mkdir()
    clip.call(["runc", "spec", "--bundle", bundle], check=True)
    index = clip.index(busybox_ref)
    mounter = clip_runc.OverlayMounter(settings=clip.settings)
    with mounter.mount(str(index)) as mount:
        clip.edit(
            bundle,
            lambda spec: (
                spec["root"].update(path=mount.rootfs_path, readonly=False),
                spec["process"].update(args=["cat", "/srv/data/a"], terminal=False),
            ),
        )
        done = clip.call(["runc", "--root", clip.root, "run", "--bundle", bundle, "own"])
    assert (done.returncode, done.stdout) == (0, "one\n"), done.stderr


@pytest.mark.parametrize("reference", ["oci:/tmp/ubuntu", "/tmp/ubuntu", "dir:x"])
def test_local_directory_is_refused(reference: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidReference, match="registry reference"):
        clip_runc.create_from_oci_image(reference, str(tmp_path / "x.clip"))
