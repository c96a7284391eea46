"""An image that nobody has indexed: fetched once, and its container asks the registry nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.integration.clip_machine import ClipMachine


def test_what_indexing_decodes_is_what_the_container_reads(
    clip: ClipMachine, busybox_ref: str
) -> None:
    clip.configure(image_linger=60)
    path = {"PATH": f"{clip.bin}:{os.environ['PATH']}"}
    walk = "cat /usr/bin/* /bin/* /etc/* 2>/dev/null | wc -c"  # for the entry point, a shell
    done = clip.ctl("run", "--rm", "-u", "0", busybox_ref, walk, check=True, environ=path)
    assert int(done.stdout) > 100_000
    status = clip.status()
    assert status["fetched"] == 0 and status["store"]["chunks"] == 0
    (image,) = status["images"]
    assert len(image["layers"]) > 1


def test_its_first_container_reads_from_the_disk_and_not_through_clipd(
    clip: ClipMachine, busybox_ref: str
) -> None:
    bundle, log = clip.bundle(busybox_ref, "/bin/true"), clip.directory / "log"
    for known in (clip.settings.index_dir, clip.settings.layer_index_dir):
        shutil.rmtree(known, ignore_errors=True)
    options = ["--log", log, "--log-format", "json"]
    clip.runc(*options, "run", "--bundle", bundle, "c1", check=True)
    complete, lazy = json.loads(log.read_text())["layers"].split(", ")
    assert int(complete.removesuffix(" complete")) > 1 and lazy == "0 lazy"


def test_a_state_directory_in_memory_is_refused_before_anything_is_fetched(
    clip: ClipMachine, busybox_ref: str
) -> None:
    state = Path("/dev/shm") / clip.directory.name
    clip.configure(state_dir=str(state))
    done = clip.ctl("run", "--rm", busybox_ref, "true")
    assert done.returncode == 1 and "is on tmpfs" in done.stderr
    assert "indexed" not in done.stderr and not state.exists()
