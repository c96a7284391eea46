"""An image that a clipd serves, mounted as EROFS, and processes that read all of it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip_runc.fs import client
from clip_runc.images import local
from clip_runc.linux.loop import attach
from clip_runc.linux.mount import mount_erofs, mount_overlay, mounts, unmount
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine, processes_of
from tests.integration.daemons import wait_for
from tests.integration.image_maker import Image, write_image, write_layer

FILES = 6
SIZE = 4 << 20
_ROLES = ("supervisor", "keeper", "server")
READER = """
import hashlib, os, sys, time
end = time.monotonic() + float(sys.argv[1])
path, wanted, rounds = sys.argv[2], sys.argv[3], 0
while time.monotonic() < end:
    fd = os.open(path, os.O_RDONLY)
    digest = hashlib.sha256()
    while data := os.read(fd, 65536):
        digest.update(data)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert digest.hexdigest() == wanted, digest.hexdigest()
    rounds += 1
print(rounds)
"""


def contents() -> dict[str, bytes]:
    """Files that compress by half, so that chunks are cut in them."""
    source = random.Random(20)
    return {f"file{n}": source.randbytes(SIZE // 2).hex().encode() for n in range(FILES)}


def survival_image(layout: Path) -> Image:
    """One gzip layer of 24 MiB."""
    archive = tar([entry(name, data) for name, data in contents().items()])
    return write_image(layout, [write_layer(layout, [archive])], {"Cmd": ["/x"]})


class Served:
    """The image, attached to a clipd of its own; an overlay of it is ``target``.

    Below the overlay is EROFS over FUSE, on files or on loop devices, or the tree that FUSE shows,
    by ``mode``.
    """

    def __init__(
        self, machine: ClipMachine, reference: str, image: Image, mode: str = "erofs"
    ) -> None:
        self.machine = machine
        self.settings = machine.settings
        machine.index(reference)
        found = local.find(self.settings, reference)
        assert found is not None
        self.local = found
        self.layer_hex = image.layers[0].diff_id.removeprefix("sha256:")
        self.running: list[subprocess.Popen[str]] = []
        self.erofs, self.target, upper, work = (
            machine.directory / name for name in ("erofs", "merged", "upper", "work")
        )
        for directory in (self.erofs, self.target, upper, work):
            directory.mkdir()
        with client.ensure_clipd(self.settings) as clipd:
            answer: Any = clipd.attach(found.manifest_hex, found.index_path)
        self.layer = f"{self.settings.fuse_dir}/layers/{answer['layers'][0]['file']}"
        lower = f"{self.settings.fuse_dir}/images/{found.manifest_hex}"
        if mode == "erofs":
            lower = str(self.erofs)
            mount_erofs(found.erofs_path, [self.layer], lower)
        elif mode == "loop":
            lower = str(self.erofs)
            with attach(found.erofs_path) as meta, attach(self.layer) as layer:
                mount_erofs(meta.path, [layer.path], lower)
        mount_overlay(lower, str(upper), str(work), str(self.target), nosuid=True)

    def status(self) -> dict[str, Any]:
        with client.ensure_clipd(self.settings) as clipd:
            return clipd.status()

    def pid(self, role: str) -> int:
        found: int = self.status()[role]["pid"]
        return found

    def kill(self, *roles: str) -> None:
        """SIGKILL, all of them together."""
        status = self.status()
        for role in roles:
            os.kill(status[role]["pid"], signal.SIGKILL)

    def wait_for(self, good: Callable[[dict[str, Any]], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while True:
            status = self.status()
            if good(status):
                return
            assert time.monotonic() < end, status
            time.sleep(0.05)

    def end(self) -> None:
        """Readers and mounts gone, whatever became of the test."""
        for process in self.running:  # those that a failed test did not wait for
            process.kill()
            process.communicate()
        for target in (self.target, self.erofs):
            while unmount(str(target)):
                continue


def readers(served: Served, seconds: float) -> list[subprocess.Popen[str]]:
    """One a file: reads it again and again, past the page cache, and compares its hash."""
    for name, data in contents().items():
        wanted = hashlib.sha256(data).hexdigest()
        argv = [sys.executable, "-c", READER, str(seconds), str(served.target / name), wanted]
        served.running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
    return served.running


def finish(processes: list[subprocess.Popen[str]], seconds: float) -> int:
    """All ended well, and soon; how often they read their files."""
    end = time.monotonic() + seconds
    rounds = 0
    for process in processes:
        output, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
        assert process.returncode == 0
        rounds += int(output)
    return rounds


def mounts_of(served: Served) -> list[str]:
    return [m.target for m in mounts() if m.target == served.settings.fuse_dir]


def wait_for_processes(served: Served, count: int) -> None:
    """So many of supervisor, keeper and server; a child of the supervisor looks like it, and ends.

    What collects garbage for them does not count.
    """
    marks = ("supervisor import main", *(f"start.py {role} " for role in _ROLES))

    def found() -> int:
        lines = processes_of([str(served.machine.directory)]).values()
        return sum(any(mark in line for mark in marks) for line in lines)

    wait_for(lambda: found() == count, f"{count} processes")
