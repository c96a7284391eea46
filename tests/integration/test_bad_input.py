"""Bad input: one clear message, a non-zero exit, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.registry.fake import FakeRegistry
from tests.integration.clip_machine import ClipMachine, Done, mounts_below
from tests.integration.daemons import free_port
from tests.integration.image_maker import Image


def complains(done: Done, *words: str) -> None:
    """The command failed with a message of one or two lines that has the words."""
    assert done.returncode not in (0, -11), done
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 3, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def shim_fails(clip: ClipMachine, annotations: dict[str, str], *words: str) -> None:
    """``create`` fails in runc's format, on stderr and in ``--log``, and undoes everything."""
    bundle = clip.directory / "bad"
    (bundle / "rootfs").mkdir(parents=True, exist_ok=True)
    clip.runc("spec", "--bundle", bundle)
    clip.edit(bundle, lambda spec: spec.update(annotations=annotations))
    before = (bundle / "config.json").read_bytes()
    log = clip.directory / "log.json"
    log.unlink(missing_ok=True)
    done = clip.runc(
        "--log", log, "--log-format", "json", "create", "--bundle", bundle, "bad", seconds=60
    )
    complains(done, *words)
    last = json.loads(log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    for word in words:
        assert word in last["msg"]
    assert (bundle / "config.json").read_bytes() == before
    assert sorted(path.name for path in bundle.iterdir()) == ["config.json", "rootfs"]
    assert clip.containers_left() == []
    assert not (clip.root / "bad").exists()


def indexing(clip: ClipMachine, reference: str) -> Done:
    """``clipctl index`` of something that has no index; no file may come of it."""
    output = clip.directory / "x.clip"
    done = clip.ctl("index", "--quiet", "-o", output, "--", reference, seconds=60)
    assert not output.exists()
    return done


WRONG = ["", "UPPER/case", "host/repo:tag:tag", "a b", "host/repo@sha256:short", "-x"]


@pytest.mark.parametrize("reference", WRONG)
def test_wrong_reference(clip: ClipMachine, reference: str) -> None:
    complains(indexing(clip, reference))


LOCAL = [
    "oci:/tmp/ubuntu:latest",
    "oci-archive:/tmp/x.tar",
    "docker-archive:x",
    "/tmp/ubuntu",
    "./x",
]


@pytest.mark.parametrize("reference", LOCAL)
def test_local_image_in_place_of_a_registry_reference(clip: ClipMachine, reference: str) -> None:
    complains(indexing(clip, reference), "registry reference")
    shim_fails(clip, {"dev.clip-runc.image": reference}, "registry reference")


def test_unreachable_registry(clip: ClipMachine) -> None:
    reference = f"127.0.0.1:{free_port()}/a/b:c"
    complains(indexing(clip, reference), "127.0.0.1")
    shim_fails(clip, {"dev.clip-runc.image": reference}, "127.0.0.1")


def test_no_such_image(clip: ClipMachine, busybox_ref: str) -> None:
    host = busybox_ref.partition("/")[0]
    complains(indexing(clip, f"{host}/no/such:image"), "no/such")
    shim_fails(clip, {"dev.clip-runc.image": f"{host}/no/such:image"}, "no/such")


@pytest.fixture
def private() -> Iterator[FakeRegistry]:
    """A registry that wants a password."""
    with FakeRegistry(auth="basic", password="secret") as registry:
        yield registry


def test_unauthorized(clip: ClipMachine, private: FakeRegistry) -> None:
    reference = f"{private.host}/private/image:1"
    complains(indexing(clip, reference), "401")
    shim_fails(clip, {"dev.clip-runc.image": reference}, "401")


def test_damaged_index(clip: ClipMachine, busybox_ref: str) -> None:
    index = clip.index(busybox_ref)
    data = bytearray(index.read_bytes())
    for name, change in {
        "short": lambda: data[: len(data) // 2],
        "flipped": lambda: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:],
        "empty": lambda: b"",
        "text": lambda: b"not an index\n" * 100,
    }.items():
        path = clip.directory / f"{name}.clip"
        path.write_bytes(change())
        for command in ("inspect", "ls", "verify"):
            done = clip.ctl(command, path)
            assert done.returncode == 1, (name, command, done)
            assert "Traceback" not in done.stderr
        shim_fails(clip, {"dev.clip-runc.index": str(path)}, name)


def test_bundle_without_config(clip: ClipMachine) -> None:
    """runc's own message and exit code: this is no matter of ours."""
    empty = clip.directory / "empty"
    empty.mkdir()
    done = clip.runc("run", "--bundle", empty, "x")
    theirs = clip.call(["/usr/sbin/runc", "--root", clip.root, "run", "--bundle", empty, "x"])
    assert done.returncode == theirs.returncode != 0
    assert "config.json" in done.stderr
    assert list(empty.iterdir()) == []


def test_failing_create_undoes_everything(clip: ClipMachine, busybox_ref: str) -> None:
    """runc itself fails after we have mounted."""
    bundle = clip.bundle(busybox_ref, "/no/such/program")
    before = (bundle / "config.json").read_bytes()
    done = clip.runc("run", "--bundle", bundle, "x")
    assert done.returncode != 0
    assert "/no/such/program" in done.stderr
    assert (bundle / "config.json").read_bytes() == before
    end = time.monotonic() + 30
    while clip.containers_left() and time.monotonic() < end:
        time.sleep(0.05)
    assert clip.containers_left() == [], "nobody calls delete for a container that never was"


@pytest.fixture
def small_disk(clip: ClipMachine) -> Iterator[Path]:
    """An ext4 of 8 MB, made in a file."""
    image, place = clip.directory / "disk.img", clip.directory / "disk"
    place.mkdir()
    image.write_bytes(b"")
    subprocess.run(["truncate", "--size=8M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    unmount_when_free(place)


def unmount_when_free(place: Path) -> None:
    """Unmount what a process that is just ending, or a mount it left, may hold a moment longer."""
    end = time.monotonic() + 20
    while subprocess.run(["umount", place], check=False, capture_output=True).returncode:
        assert time.monotonic() < end, f"{place} is busy"
        time.sleep(0.1)


def test_no_space_for_an_index(clip: ClipMachine, small_disk: Path, debian_ref: str) -> None:
    with (small_disk / "filler").open("wb") as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
                filler.flush()
        except OSError:
            filler.close()
    output = small_disk / "x.clip"
    complains(clip.ctl("index", "--no-store", "-q", "-o", output, debian_ref), "No space left")
    assert not output.exists()
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "lost+found"]


def test_no_space_for_the_store(
    clip_with: Callable[..., ClipMachine], clip: ClipMachine, small_disk: Path, debian_ref: str
) -> None:
    """A store that is full does not keep a container from reading."""
    machine = clip_with(state_dir=str(small_disk / "clip"))
    clip.index(debian_ref)  # making one needs room for a copy of a layer
    machine.index(debian_ref)
    command = ["python3", "-c", "import json, email, http.client, sqlite3; print(json.__name__)"]
    done = machine.ctl("run", "--rm", debian_ref, *command)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["json"]), done.stderr
    # room again, and the image's mount, which has files of the disk open, has to go
    shutil.rmtree(small_disk / "clip/store")
    machine.ctl("gc", check=True)
    machine.ctl("stop", check=True)
    shutil.rmtree(small_disk / "clip")


def test_no_space_when_a_container_ends(
    clip_with: Callable[..., ClipMachine], clip: ClipMachine, small_disk: Path, busybox_ref: str
) -> None:
    """A container that filled the disk is torn down like any other."""
    machine = clip_with(state_dir=str(small_disk / "clip"), image_linger=300)
    fill = "dd if=/dev/zero of=/tmp/full bs=4k; dd if=/dev/zero of=/tmp/more bs=512; echo full"
    bundle = machine.bundle(busybox_ref, "sh", "-c", fill)
    done = machine.runc("run", "--bundle", bundle, "full")
    assert (done.returncode, done.stdout) == (0, "full\n"), done.stderr
    assert machine.containers_left() == []
    machine.configure(image_linger=0)
    machine.ctl("gc", check=True)
    machine.ctl("stop", check=True)
    shutil.rmtree(small_disk / "clip")


def test_truncated_layer(clip: ClipMachine, busybox_image: Image, registry: Any) -> None:
    """A layer that ends too early is no index, and says which layer."""
    from tests.integration.image_maker import read_image, write_image, write_layer
    from tests.integration.pushing import push

    layout = clip.directory / "broken"
    stream = read_image(busybox_image.layout).layers[2].path.read_bytes()
    layers = [write_layer(layout, [stream[:3000]], "gzip")]
    reference = push(write_image(layout, layers, {}), registry.host, "broken/image", "1")
    complains(indexing(clip, reference), layers[0].digest)


def test_digest_that_differs(clip: ClipMachine, busybox_image: Image, registry: Any) -> None:
    """A config that promises another diff_id than the layer's."""
    from dataclasses import replace

    from tests.integration.image_maker import write_image, write_layer
    from tests.integration.pushing import push

    layout = clip.directory / "lying"
    layer = write_layer(layout, [busybox_image.layers[2].path.read_bytes()], "gzip")
    wrong = replace(layer, diff_id="sha256:" + "0" * 64)
    reference = push(write_image(layout, [wrong], {}), registry.host, "lying/image", "1")
    complains(indexing(clip, reference), "sha256:")
    assert not mounts_below(clip.directory)
