"""Names in tree mode: what a walk costs the server, and what of it the kernel remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc import OverlayMounter
from tests.integration.busybox_images import directory, entry, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.image_maker import write_image, write_layer
from tests.integration.prerequisites import need
from tests.integration.pushing import push

DIRECTORIES, FILES = 100, 99
NAMES = DIRECTORIES * (FILES + 1)
SECONDS_A_NAME = 1 / 20_000
BEATS = 20
"""Replies that are none of ours: the watchdog's, the status that tells the server's pid."""


class Walked:
    """A tree of ``NAMES`` names, and its server."""

    def __init__(self, machine: ClipMachine) -> None:
        self.root = next(Path(machine.settings.fuse_dir, "images").iterdir())
        self.pid = machine.status()["server"]["pid"]

    def replies(self) -> int:
        """How often the server has written: each reply to the kernel is one write."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("syscw")).split()[1])

    def cpu(self) -> float:
        """Seconds that its threads ran."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def walk(self) -> int:
        """readdir and lstat of everything, by a program that is not slower than the server."""
        command = ["find", str(self.root), "-size", "-1000k", "-printf", "."]
        return len(subprocess.run(command, check=True, capture_output=True).stdout)

    def sizes(self) -> int:
        """lstat of each file, from the root as overlay has it: its own name is asked for anew."""
        root = os.open(self.root, os.O_RDONLY)
        names = (f"d{d}/file-{n}.py" for d in range(DIRECTORIES) for n in range(FILES))
        try:
            return sum(os.lstat(name, dir_fd=root).st_size for name in names)
        finally:
            os.close(root)


@pytest.fixture
def walked(
    clip_with: Callable[..., ClipMachine], registry: DockerRegistry, scratch: Path
) -> Iterator[Walked]:
    names = [directory(f"d{number}") for number in range(DIRECTORIES)]
    files = [entry(f"d{d}/file-{n}.py", b"x\n") for d in range(DIRECTORIES) for n in range(FILES)]
    layout = scratch / "walk"
    image = write_image(layout, [write_layer(layout, [tar([*names, *files])])], {"Cmd": ["/x"]})
    machine = clip_with(layer_mode="tree", image_linger=300)
    index = machine.index(push(image, registry.host, "walk/tree", "1"))
    with OverlayMounter(settings=machine.settings).mount(str(index)):
        yield Walked(machine)


def test_a_walk_asks_for_directories_and_not_for_names(walked: Walked) -> None:
    replies, cpu = walked.replies(), walked.cpu()
    assert walked.walk() == NAMES + 1
    # attributes come with the names, in pieces of a page
    assert walked.replies() - replies < 5 * DIRECTORIES + BEATS
    assert walked.cpu() - cpu < NAMES * SECONDS_A_NAME


def test_names_that_are_looked_up_one_by_one(walked: Walked) -> None:
    """No listing comes before them: a request for each, and one more for each directory."""
    replies = walked.replies()
    assert walked.sizes() == 2 * DIRECTORIES * FILES
    assert NAMES <= walked.replies() - replies < NAMES + BEATS
    replies = walked.replies()
    assert walked.sizes() == 2 * DIRECTORIES * FILES
    assert walked.replies() - replies < BEATS


def test_requests_that_wait_are_read_without_turns_of_the_loop(
    walked: Walked, tmp_path: Path
) -> None:
    """Behind a server that stands still: trio alone looks at its descriptors for each of them."""
    need("strace")
    asking = [
        threading.Thread(target=os.lstat, args=(walked.root / f"d{n}",)) for n in range(DIRECTORIES)
    ]
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=epoll_wait,epoll_pwait", "-o", trace, "-p"]
    with subprocess.Popen([*command, str(walked.pid)], stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None and b"attached" in strace.stderr.readline()
        os.kill(walked.pid, signal.SIGSTOP)
        for thread in asking:
            thread.start()
        time.sleep(0.5)
        os.kill(walked.pid, signal.SIGCONT)
        for thread in asking:
            thread.join()
        strace.terminate()
    assert trace.read_text().count("epoll_") < DIRECTORIES / 2


def test_what_was_seen_is_the_kernels(walked: Walked) -> None:
    walked.walk()
    replies = walked.replies()
    assert walked.sizes() == 2 * DIRECTORIES * FILES
    assert walked.replies() - replies < BEATS
    # a directory that is listed again is opened, read and closed again: see docs/design
    replies = walked.replies()
    walked.walk()
    assert walked.replies() - replies < 5 * DIRECTORIES + BEATS
