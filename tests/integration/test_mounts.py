"""How container root filesystems are mounted, and where they are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from clip_runc.errors import StorageRefused
from clip_runc.linux.mount import mounts
from tests.integration.clip_machine import ClipMachine


def mount_options(target: str) -> str:
    """Mount point and filesystem options of ``target``, as /proc/self/mountinfo has them."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == target:
            return f"{fields[5]} {fields[-1]} {fields[fields.index('-') + 1]}"
    raise AssertionError(f"{target} is not mounted")


def test_overlay_has_the_flags_that_the_seed_asks_for(clip: ClipMachine, busybox_ref: str) -> None:
    mounter = OverlayMounter(settings=clip.settings)
    with mounter.mount(str(clip.index(busybox_ref))) as mount:
        found = mount_options(mount.rootfs_path)
        assert found.endswith(" overlay")
        assert {"nosuid", "nodev"} <= set(found.split()[0].split(","))
        # the kernel shows only what differs from its own default
        defaults = Path("/sys/module/overlay/parameters")
        for name in ("index", "metacopy"):
            if (defaults / name).read_text().strip() == "Y":
                assert f"{name}=off" in found
        assert f"upperdir={clip.state}/" in found
        lower = next(x for x in found.split()[1].split(",") if x.startswith("lowerdir="))
        assert "nosuid" in mount_options(lower.removeprefix("lowerdir=")) or "/fs/images/" in lower
        (Path(mount.rootfs_path) / "srv/written").write_text("above, not below")
    assert not [one for one in mounts() if one.target == mount.rootfs_path]


def test_two_containers_share_an_image_and_not_their_writes(
    clip: ClipMachine, busybox_ref: str
) -> None:
    mounter = OverlayMounter(settings=clip.settings)
    index = str(clip.index(busybox_ref))
    with mounter.mount(index) as one, mounter.mount(index) as two:
        assert one.rootfs_path != two.rootfs_path
        Path(one.rootfs_path, "srv/data/a").write_text("changed\n")
        assert Path(two.rootfs_path, "srv/data/a").read_text() == "one\n"
        images = [x for x in mounts() if x.target.startswith(f"{clip.run_dir}/images/")]
        assert len(images) <= 1, "one mount an image"


@pytest.fixture
def unsuitable(clip: ClipMachine, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on a file system where overlay layers must not be put."""
    place = clip.directory / "place"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "none", str(place)]
    else:
        for name in ("lower", "upper", "work"):
            (clip.directory / name).mkdir()
        options = ",".join(
            f"{name}={clip.directory / name[:5]}" for name in ("lowerdir", "upperdir")
        )
        command = ["mount", "-t", "overlay", "none", str(place)]
        command += ["-o", f"{options},workdir={clip.directory / 'work'}"]
    subprocess.run(command, check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("unsuitable", ["tmpfs", "overlay"], indirect=True)
def test_layers_on_tmpfs_and_overlay_are_refused(clip: ClipMachine, unsuitable: Path) -> None:
    with pytest.raises(StorageRefused) as caught:
        OverlayMounter(mount_base=str(unsuitable / "clip"), settings=clip.settings)
    assert "/var/lib/clip" in str(caught.value)


def test_shm_is_refused_by_the_shim(
    clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    machine = clip_with(state_dir="/dev/shm/clip-it-refused")
    done = machine.ctl("run", "--rm", busybox_ref)
    assert done.returncode != 0
    assert "tmpfs" in done.stderr
    assert "/var/lib/clip" in done.stderr
    assert not Path("/dev/shm/clip-it-refused/containers").exists()
    subprocess.run(["rm", "-rf", "/dev/shm/clip-it-refused"], check=True)
