"""Files of the Go library: refused everywhere with what to do, and that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clip_runc.index.clipfile import ClipFile
from tests.integration.busybox_images import CONTENT
from tests.integration.clip_machine import ClipMachine
from tests.integration.image_maker import Image
from tests.unit.images.go_clips import go_clip, oci_info, wrapped


@pytest.fixture
def old_clip(busybox_ref: str, busybox_image: Image, tmp_path: Path) -> Path:
    """The busybox image as the Go library would index it."""
    host, _, rest = busybox_ref.partition("/")
    layers = [layer.digest for layer in busybox_image.layers]
    about = {"Digest": busybox_image.digest, "Architecture": "amd64", "Os": "linux"}
    path = tmp_path / "old.clip"
    info = oci_info(host, rest.partition(":")[0], "latest", layers, about)
    path.write_bytes(go_clip(wrapped("oci", info)))
    return path


def test_refused_everywhere_with_what_to_do(
    clip: ClipMachine, old_clip: Path, busybox_ref: str
) -> None:
    commands: list[list[str | Path]] = [[x, old_clip] for x in ("inspect", "verify", "ls", "run")]
    commands += [["mount", old_clip, old_clip.parent], ["push", "--index", old_clip, busybox_ref]]
    for command in commands:
        done = clip.ctl(*command)
        words = ("of the Go library (Beta9)" in done.stderr, "clipctl import" in done.stderr)
        assert (done.returncode, *words) == (1, True, True), f"{command}: {done.stderr}"
    bundle = clip.bundle(busybox_ref, "/bin/true")
    annotation = {"dev.clip-runc.index": str(old_clip)}
    clip.edit(bundle, lambda spec: spec.update(annotations=annotation))
    done = clip.runc("run", "-b", bundle, "old")
    assert done.returncode == 1
    assert "of the Go library (Beta9)" in done.stderr and "clipctl import" in done.stderr


def test_import_makes_the_real_index(
    clip: ClipMachine, old_clip: Path, busybox_image: Image, tmp_path: Path
) -> None:
    new = tmp_path / "new.clip"
    done = clip.ctl("import", "--json", "-o", new, old_clip, check=True)
    said = json.loads(done.stdout)
    assert (said["digest"], said["platform"]) == (busybox_image.digest, "linux/amd64")
    assert said["warnings"] == []
    with ClipFile.open(str(new)) as made:
        assert made.manifest_digest == busybox_image.digest
    assert (
        clip.ctl("cat", said["reference"], "/srv/data/a", check=True).stdout.encode()
        == (CONTENT["a"])
    )
    again = clip.ctl("import", new)
    assert (again.returncode, "an index already" in again.stderr) == (1, True)
