"""The calls that Beta9's workers make through go-runc, in their order, with their pipes.

``run`` stays for as long as the container does, its output comes through pipes whose end the
caller waits for, and ``state`` is polled with stderr merged into what is read as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.clip_machine import ClipMachine
from tests.integration.test_runtime_exec import RUNC, without_time

POLL_SECONDS = 0.025
SCRIPT = "echo out; echo err >&2; trap 'exit 143' TERM; while :; do sleep 0.05; done"


class Worker:
    """go-runc, as Beta9 uses it: argv and pipes, never a shell."""

    def __init__(self, clip: ClipMachine, bundle: Path, program: str = "") -> None:
        self.clip = clip
        self.bundle = bundle
        self.base = [program or str(clip.runtime), "--root", str(clip.root)]
        self.environ = {**os.environ, **clip.environ}

    def call(self, *arguments: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Exit code and combined output, read to its end."""
        done = subprocess.run(
            [*self.base, *arguments], env=self.environ, check=False, timeout=60,
            input=data, stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    @contextmanager
    def run(self, name: str) -> Iterator[Run]:
        """``run --bundle B ID`` in the background; its container is up inside the block."""
        running = Run(self, name)
        try:
            self.wait_until_running(name)
            yield running
        finally:
            self.call("delete", "--force", name)
            running.end()

    def wait_until_running(self, name: str, seconds: float = 30) -> None:
        """Poll ``state``: before the container is there it says only that it does not exist."""
        end = time.monotonic() + seconds
        while True:
            code, text = self.call("state", name)
            if code:
                assert b"does not exist" in text, text
            elif json.loads(text)["status"] == "running":
                return
            assert time.monotonic() < end, text
            time.sleep(POLL_SECONDS)


class Run:
    """A ``run`` with stdin from /dev/null and both outputs piped, drained by threads."""

    def __init__(self, worker: Worker, name: str) -> None:
        command = [*worker.base, "run", "--bundle", str(worker.bundle), name]
        self.process = subprocess.Popen(
            command, env=worker.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.output: dict[str, bytes] = {}
        self.readers = [
            threading.Thread(target=self._drain, args=(one,)) for one in ("stdout", "stderr")
        ]
        for reader in self.readers:
            reader.start()

    def _drain(self, which: str) -> None:
        with getattr(self.process, which) as pipe:
            self.output[which] = pipe.read()

    def end(self) -> int:
        """Wait for the process and then for the end of both pipes; the exit code."""
        code = self.process.wait(30)
        for reader in self.readers:
            reader.join(30)
            assert not reader.is_alive(), "somebody holds a pipe of the caller open"
        return code


@pytest.fixture
def worker(clip: ClipMachine, busybox_ref: str) -> Worker:
    """An image of which nothing is local: its data comes when the container reads it."""
    return Worker(clip, clip.bundle(busybox_ref, "/bin/sh", "-c", SCRIPT))


def process_file(worker: Worker, *command: str) -> str:
    """What go-runc writes for ``exec --process``: a whole process of the OCI specification."""
    process = json.loads((worker.bundle / "config.json").read_text())["process"]
    path = worker.clip.directory / "process.json"
    path.write_text(json.dumps({**process, "args": list(command), "terminal": False}))
    return str(path)


def files(worker: Worker) -> list[Path]:
    """Everything but the image's mount and what belongs to it: clipd removes an idle one."""
    clip = worker.clip
    places = [clip.state, clip.root, worker.bundle, clip.run_dir / "containers"]
    return sorted(path for place in places for path in place.rglob("*"))


def test_a_life(worker: Worker) -> None:
    """run, state, exec, update, kill, delete: one container from its start to its end."""
    before = (worker.bundle / "config.json").read_bytes()
    with worker.run("task") as run:
        code, text = worker.call("exec", "--process", process_file(worker, "/bin/cat", "a"), "task")
        assert code == 1  # WorkingDir of the image is elsewhere: the exit code of the program
        path = process_file(worker, "/bin/sh", "-c", "cat /srv/data/a; exit 7")
        assert worker.call("exec", "--process", path, "task") == (7, b"one\n")
        limit = json.dumps({"pids": {"limit": 50}}).encode()
        code, text = worker.call("update", "--resources=-", "task", data=limit)
        assert (code, text) == (0, b"")
        assert worker.call("kill", "task", "15") == (0, b"")
        assert run.end() == 143
    assert run.output == {"stdout": b"out\n", "stderr": b"err\n"}
    assert worker.clip.containers_left() == []
    assert (worker.bundle / "config.json").read_bytes() == before
    code, text = worker.call("state", "task")
    assert code == 1
    assert b"does not exist" in text
    assert worker.clip.status()["fetched"] > 0


def test_delete_after_a_run_that_cleaned_up(worker: Worker) -> None:
    """Exit 0, not a word, and nothing changes; without ``--force`` runc's own error."""
    with worker.run("task") as run:
        assert worker.call("kill", "--all", "task", "9") == (0, b"")
        assert run.end() == 137
    before = files(worker)
    assert worker.call("delete", "--force", "task") == (0, b"")
    assert worker.call("delete", "--force", "task") == (0, b"")
    assert files(worker) == before
    assert worker.clip.containers_left() == []
    code, text = worker.call("delete", "task")
    assert code == 1
    assert b"does not exist" in text


def test_a_container_that_is_deleted_under_its_run(worker: Worker) -> None:
    """What a worker does that lost patience: the run ends, and so do its pipes."""
    with worker.run("task") as run:
        assert worker.call("delete", "--force", "task") == (0, b"")
        assert run.end() == 137
    assert worker.clip.containers_left() == []


def test_kill_of_what_is_gone_says_so(worker: Worker) -> None:
    path = process_file(worker, "/bin/true")
    for expected, *arguments in (
        (1, "kill", "gone", "15"),
        (255, "exec", "--process", path, "gone"),
    ):
        code, text = worker.call(*(str(word) for word in arguments))
        assert code == expected
        assert b"does not exist" in text


def test_restore_says_what_runc_says(worker: Worker) -> None:
    """With criu or without: the same code and words, and nothing of ours stays."""
    images = worker.clip.directory / "checkpoint"
    images.mkdir()
    options = ["--detach", "--image-path", str(images), "--link-remap", "--work-path", str(images)]
    said = []
    for program in (str(worker.clip.runtime), RUNC):
        caller = Worker(worker.clip, worker.bundle, program)
        code, text = caller.call("restore", *options, "--bundle", str(worker.bundle), "task")
        said.append((code, without_time(text.decode())))
    assert said[0] == said[1]
    assert said[0][0] != 0
    end = time.monotonic() + 30
    while worker.clip.containers_left() and time.monotonic() < end:
        time.sleep(0.05)
    assert worker.clip.containers_left() == []


def test_tasks_in_a_row(worker: Worker) -> None:
    """Runs that end by themselves under the poll of ``state``: each error is the known one."""
    config = worker.bundle / "config.json"
    spec = json.loads(config.read_text())
    spec["process"]["args"] = ["/bin/sh", "-c", "sleep 0.1; exit 3"]
    config.write_text(json.dumps(spec))
    for number in range(8):
        run = Run(worker, f"task-{number}")
        while run.process.poll() is None:
            code, text = worker.call("state", f"task-{number}")
            # runc's own race: the state may be removed while it is read
            assert (code == 0 and json.loads(text)) or code == 1, text
            time.sleep(POLL_SECONDS)
        assert run.end() == 3
        assert worker.call("delete", "--force", f"task-{number}") == (0, b"")
    assert worker.clip.containers_left() == []
