"""A container that mounts an overlay over its own root: what each layer mode lets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.clip_machine import ClipMachine

OVER_ITSELF = (
    "mount -t overlay overlay -o lowerdir=/,upperdir=/scratch/upper,workdir=/scratch/work /mnt"
    " && cat /mnt/srv/data/a && echo above > /mnt/srv/data/a && cat /srv/data/a"
)


def may_mount(spec: dict[str, Any]) -> None:
    for kind in ("bounding", "effective", "permitted"):
        spec["process"]["capabilities"][kind].append("CAP_SYS_ADMIN")
    spec["process"]["user"] = {"uid": 0, "gid": 0}
    spec["mounts"].append({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"})


def run(clip: ClipMachine, reference: str) -> tuple[str, str]:
    """What such a container printed and what it complained of."""
    script = f"mkdir /scratch/upper /scratch/work /mnt && {OVER_ITSELF}"
    bundle = clip.bundle(reference, "/bin/sh", "-c", script)
    clip.edit(bundle, may_mount)
    done = clip.runc("run", "--bundle", bundle, "c1")
    assert clip.containers_left() == []
    return done.stdout, done.stderr


@pytest.mark.parametrize("mode", ["loop", "tree"])
def test_an_overlay_over_the_containers_own_root(
    clip_with: Callable[..., ClipMachine], busybox_ref: str, mode: str
) -> None:
    """The kernel stacks two deep; a block device and FUSE are none of them."""
    assert run(clip_with(layer_mode=mode), busybox_ref) == ("one\none\n", "")


def test_erofs_on_files_is_what_doctor_says(
    clip_with: Callable[..., ClipMachine], busybox_ref: str
) -> None:
    """Some kernels count it as one: then mount(2) is refused in the container, which goes on."""
    clip = clip_with(layer_mode="erofs")
    out, errors = run(clip, busybox_ref)
    found = {one["subject"]: one["text"] for one in json.loads(clip.ctl("doctor", "--json").stdout)}
    assert "a container may mount an overlay" in found["mode loop"]
    assert "a container may mount an overlay" in found["mode tree"]
    if "a container may mount an overlay" in found["mode erofs"]:
        assert (out, errors) == ("one\none\n", "")
    else:
        assert "no container can mount an overlay" in found["mode erofs"]
        assert out == "" and "Invalid argument" in errors
