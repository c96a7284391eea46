"""Stub images: containerd pulls them as any other, clip-runc starts what they stand for."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.busybox_images import SETTINGS
from tests.integration.clip_machine import ClipMachine
from tests.integration.cri import Cri
from tests.integration.daemons import Containerd, DockerRegistry
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need


def published(clip: ClipMachine, registry: DockerRegistry, source: str) -> str:
    """A stub of the image, made from scratch on that machine; its reference."""
    reference = f"{registry.host}/stubs/{secrets.token_hex(6)}:1"
    done = json.loads(clip.ctl("publish", "--json", source, reference, check=True).stdout)
    assert (done["source"], done["destination"]) == (source, reference)
    return reference


def timed_pull(containerd: Containerd, reference: str) -> float:
    start = time.monotonic()
    containerd.ctr("image", "pull", "--plain-http", reference, check=True)
    return time.monotonic() - start


def test_ctr_starts_a_stub_lazily(
    containerd: Containerd,
    clip: ClipMachine,
    registry: DockerRegistry,
    debian_ref: str,
    debian_image: Image,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing on the node but the runtime: no index, no snapshotter, no annotation."""
    reference = published(clip, registry, debian_ref)
    stub_seconds = timed_pull(containerd, reference)
    image_seconds = timed_pull(containerd, debian_ref)
    size = next(
        line.split()[3:5]
        for line in containerd.ctr("image", "ls").stdout.splitlines()
        if line.startswith(reference)
    )
    whole = sum(layer.size for layer in debian_image.layers) / 1e6
    with capsys.disabled():
        print(
            f"\nstub {' '.join(size)}, pulled in {stub_seconds:.2f} s;"
            f" image {whole:.1f} MB, pulled in {image_seconds:.2f} s"
        )
    # the times are for reading: containerd may wait for the disk in either
    for name in ("first", "second"):
        done = containerd.ctr(
            "run", "--rm", "--runc-binary", str(clip.runtime),
            reference, name, "python3", "-c", "import sys; print(sys.version_info[:2])",
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "(3, 11)\n"), done.stderr + containerd.tail()
    status = clip.status()
    assert 0 < status["fetched"] < whole * 1e6 / 2
    assert clip.containers_left() == []
    images = json.loads(clip.ctl("images", "--json", check=True).stdout)
    assert len(images) == 1 and debian_image.digest in images[0]["references"][0]
    found = clip.ctl("ls", debian_ref)
    assert found.returncode == 1, "the index of a stub answers to no image's name"


def test_the_plain_runtime_is_told_why(
    containerd: Containerd, clip: ClipMachine, registry: DockerRegistry, busybox_ref: str
) -> None:
    reference = published(clip, registry, busybox_ref)
    timed_pull(containerd, reference)
    done = containerd.ctr("run", "--rm", reference, "plain")
    assert done.returncode == 126
    assert f"a stub of {busybox_ref.rpartition(':')[0]}@sha256:" in done.stderr
    assert "clip-runc" in done.stderr


@pytest.fixture
def kubelet(clip: ClipMachine, plain_ref: str) -> Iterator[Cri]:
    """A containerd with CRI and our binary, as a kubelet sees it."""
    need("containerd", "curl")
    daemon = Containerd(
        clip.directory / "node", pause=plain_ref, binary=str(clip.runtime), environ=clip.environ
    )
    yield Cri(daemon.socket, clip.directory / "pods")
    daemon.stop()


def test_pod_of_a_stub(
    kubelet: Cri, clip: ClipMachine, registry: DockerRegistry, plain_ref: str, busybox_ref: str
) -> None:
    """USER by name, entrypoint, environment and working directory are the image's own."""
    reference = published(clip, registry, busybox_ref)
    kubelet.pull(plain_ref)
    kubelet.pull(reference)
    sandbox = kubelet.run_sandbox("stub")
    script = "echo $GREETING; id -u; id -g; pwd; cat /srv/data/a"
    container = kubelet.create(sandbox, "stub", reference, ["/bin/sh", "-c", script])
    kubelet.start(container)
    end = time.monotonic() + 60
    while kubelet.exited(container) is None:
        assert time.monotonic() < end
        time.sleep(0.1)
    log = (kubelet.logs / "stub.log").read_text()
    lines = [line.split(" ", 3)[3] for line in log.splitlines()]
    assert lines == ["hello from the image", "1234", "50", SETTINGS["WorkingDir"], "one"]
    kubelet.remove(container)
    kubelet.remove_sandbox(sandbox)
    assert clip.containers_left() == []


def test_a_stub_of_a_stub_and_in_the_images_place(
    clip: ClipMachine, registry: DockerRegistry, busybox_ref: str, tmp_path: Path
) -> None:
    reference = published(clip, registry, busybox_ref)
    done = clip.ctl("publish", reference, f"{reference}b")
    assert (done.returncode, "is itself a stub" in done.stderr) == (1, True)
    done = clip.ctl("publish", busybox_ref, busybox_ref)
    assert (done.returncode, "take the place" in done.stderr) == (1, True)
