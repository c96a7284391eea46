"""What a container reads: every byte and every attribute, in each mode, whatever dies."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from tests.integration.busybox_images import EXPECTED, HIDDEN
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import alive
from tests.integration.image_maker import Image
from tests.integration.prerequisites import need
from tests.integration.trees import difference, look, snapshot, unpack

MODES = ("erofs", "loop", "tree")
KILLS = int(os.environ.get("CLIP_RUNC_KILLS", "8"))  # bench/survival: 50


def drop_caches() -> None:
    """Have the kernel ask for file data again."""
    Path("/proc/sys/vm/drop_caches").write_text("1")


def mounter(machine: ClipMachine) -> OverlayMounter:
    return OverlayMounter(settings=machine.settings)


@pytest.fixture(params=MODES)
def in_mode(request: pytest.FixtureRequest, clip_with: Callable[..., ClipMachine]) -> ClipMachine:
    """A machine whose layer mode is forced."""
    if request.param != "tree":
        need("erofs")
    return clip_with(layer_mode=request.param)


def test_debian_is_what_umoci_unpacks(
    in_mode: ClipMachine, debian_ref: str, debian_image: Image, scratch: Path
) -> None:
    wanted = snapshot(unpack(debian_image, scratch))
    with mounter(in_mode).mount(str(in_mode.index(debian_ref))) as mount:
        assert difference(snapshot(Path(mount.rootfs_path)), wanted) == []


def test_mixed_compressions_are_what_umoci_unpacks(
    in_mode: ClipMachine, debian_mixed_ref: str, debian_image: Image, scratch: Path
) -> None:
    wanted = snapshot(unpack(debian_image, scratch))
    with mounter(in_mode).mount(str(in_mode.index(debian_mixed_ref))) as mount:
        assert difference(snapshot(Path(mount.rootfs_path)), wanted) == []


def test_awkward_files_are_as_the_layers_say(in_mode: ClipMachine, busybox_ref: str) -> None:
    with mounter(in_mode).mount(str(in_mode.index(busybox_ref))) as mount:
        root = Path(mount.rootfs_path)
        for path, wanted in EXPECTED.items():
            seen = look(root / path)
            assert (seen.mode, seen.uid, seen.gid) == wanted, path
        assert not [path for path in HIDDEN if os.path.lexists(root / path)]
        assert os.getxattr(root / "srv/attributed", "user.origin") == b"layer three"
        assert (root / "srv/data/a").stat().st_ino == (root / "srv/data/hard").stat().st_ino
        assert os.stat(root / "srv/null").st_rdev == os.makedev(1, 3)
        assert (root / "bin").readlink() == Path("usr/bin")


def test_only_what_is_read_is_fetched(
    in_mode: ClipMachine, debian_ref: str, debian_image: Image
) -> None:
    with mounter(in_mode).mount(str(in_mode.index(debian_ref))) as mount:
        assert Path(mount.rootfs_path, "etc/debian_version").read_text().startswith("12")
        fetched = in_mode.status()["fetched"]
    assert 0 < fetched < debian_image.compressed_size / 4


def test_server_has_no_privileges(clip: ClipMachine, busybox_ref: str) -> None:
    with mounter(clip).mount(str(clip.index(busybox_ref))):
        pid = clip.status()["server"]["pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    uid = str(clip.settings.server_uid)
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [uid] * 4
    assert status["Groups"].strip() == ""
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_readers_survive_the_death_of_the_server(
    in_mode: ClipMachine, debian_ref: str, debian_image: Image, scratch: Path
) -> None:
    """SIGKILL again and again under readers of the whole image: right bytes, no error."""
    wanted = unpack(debian_image, scratch)
    files = sorted(
        str(path.relative_to(wanted))
        for path in (wanted / "usr").rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    errors: list[str] = []

    ended = threading.Event()

    def read(names: list[str], root: str) -> None:
        for turn, name in enumerate(itertools.cycle(names)):
            if turn >= len(names) and ended.is_set():
                return
            try:
                data = Path(root, name).read_bytes()
            except OSError as error:
                errors.append(f"{name}: {error}")
                continue
            if data != (wanted / name).read_bytes():
                errors.append(f"{name}: wrong bytes")

    with mounter(in_mode).mount(str(in_mode.index(debian_ref))) as mount:
        readers = [
            threading.Thread(target=read, args=(files[start::4], mount.rootfs_path), daemon=True)
            for start in range(4)
        ]
        for reader in readers:
            reader.start()
        kills = 0
        while any(reader.is_alive() for reader in readers) and kills < KILLS:
            time.sleep(random.uniform(0.1, 0.5))
            drop_caches()
            victim = in_mode.status()["server"]["pid"]
            if victim and alive(victim):
                os.kill(victim, signal.SIGKILL)
                kills += 1
        ended.set()
        for reader in readers:
            reader.join(120)
        assert not any(reader.is_alive() for reader in readers), "a reader hangs"
        restarts = in_mode.status()["server"]["restarts"]
    assert errors == []
    assert kills == KILLS
    assert restarts >= KILLS
