"""Linux before 6.9, which repeats no request: nobody waits for a dead server, in any layer mode.

``resend = false`` does on any kernel what clipd does there: each server has a device of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.fs import client
from clip_runc.images import local, mount
from tests.integration.busybox_images import entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import Image, write_image, write_layer
from tests.integration.pushing import push

FILES = 4
SIZE = 4 << 20
LONGEST = 10.0  # seconds that a read may take while servers die
READER = """
import hashlib, json, os, sys, time
end = time.monotonic() + float(sys.argv[1])
path, wanted, rounds, errors, longest = sys.argv[2], sys.argv[3], 0, [], 0.0
while time.monotonic() < end:
    begun = time.monotonic()
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            digest = hashlib.sha256()
            while data := os.read(fd, 65536):
                digest.update(data)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    except OSError as error:
        errors.append(error.errno)
    else:
        assert digest.hexdigest() == wanted, digest.hexdigest()
        rounds += 1
    longest = max(longest, time.monotonic() - begun)
print(json.dumps([rounds, errors, longest]))
"""


def contents() -> dict[str, bytes]:
    """Files that compress by half, so that chunks are cut in them."""
    source = random.Random(21)
    return {f"file{n}": source.randbytes(SIZE // 2).hex().encode() for n in range(FILES)}


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    """One gzip layer of 16 MiB."""
    archive = tar([entry(name, data) for name, data in contents().items()])
    layout = scratch / "no-resend"
    return write_image(layout, [write_layer(layout, [archive])], {"Cmd": ["/x"]})


class Old:
    """A machine whose kernel repeats nothing, and the image mounted on it."""

    def __init__(self, machine: ClipMachine, reference: str) -> None:
        self.machine = machine
        machine.index(reference)
        found = local.find(machine.settings, reference)
        assert found is not None
        self.image = found
        self.lower = Path(mount.mount_image(machine.settings, found).lower)
        self.running: list[subprocess.Popen[str]] = []

    def pid(self, role: str) -> int:
        with client.ensure_clipd(self.machine.settings) as clipd:
            status: Any = clipd.status()
        found: int = status[role]["pid"]
        return found

    def readers(self, seconds: float) -> None:
        for name, data in contents().items():
            wanted = hashlib.sha256(data).hexdigest()
            argv = [sys.executable, "-c", READER, str(seconds), str(self.lower / name), wanted]
            self.running.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))

    def finish(self, seconds: float) -> list[tuple[int, list[int], float]]:
        """Of each reader: whole reads with the right hash, errnos of others, the longest time."""
        end = time.monotonic() + seconds
        found = []
        for process in self.running:
            output, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
            assert process.returncode == 0
            found.append(tuple(json.loads(output)))
        return found


@pytest.fixture(params=["erofs", "loop", "tree"])
def old(
    request: pytest.FixtureRequest,
    clip_with: Callable[..., ClipMachine],
    registry: DockerRegistry,
    image: Image,
) -> Iterator[Old]:
    reference = push(image, registry.host, "fs/no-resend", "latest")
    machine = clip_with(image_linger=300, resend=False, layer_mode=request.param)
    found = Old(machine, reference)
    yield found
    for process in found.running:
        process.kill()
        process.communicate()
    mount.unmount_image(machine.settings, found.image.manifest_hex)


def test_servers_killed_under_readers_hang_nobody(old: Old) -> None:
    old.readers(4)
    for _ in range(2):
        time.sleep(random.uniform(0.8, 1.8))
        if pid := old.pid("server"):
            os.kill(pid, signal.SIGKILL)
    found = old.finish(60)
    assert sum(rounds for rounds, _, _ in found) >= FILES
    assert max(longest for _, _, longest in found) < LONGEST, found


def test_requests_taken_by_a_server_that_dies_with_its_supervisor(old: Old) -> None:
    """Their device may be all that the next supervisor finds: it does not keep them alive."""
    old.readers(2)
    time.sleep(0.5)
    pids = [old.pid(role) for role in ("supervisor", "keeper")]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    found = old.finish(60)
    assert max(longest for _, _, longest in found) < LONGEST, found
    old.readers(0.1)
    old.running = old.running[FILES:]
    assert [errors for _, errors, _ in old.finish(30)] == [[]] * FILES
