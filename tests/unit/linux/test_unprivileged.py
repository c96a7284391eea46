"""Work in a process of its own: its answers, its errors, its limits, and locks of its caller."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clip_runc.errors import ClipError, DigestMismatch
from clip_runc.linux.unprivileged import run_unprivileged
from tests.integration.prerequisites import native

UID = 61217


def _mismatch() -> None:
    raise DigestMismatch("wrong bytes", "fetch again")


def test_our_errors_keep_their_class() -> None:
    with pytest.raises(DigestMismatch, match="wrong bytes") as caught:
        run_unprivileged(UID, _mismatch)
    assert caught.value.hint == "fetch again"


def _suicide() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _bomb() -> int:
    return len(bytearray(1 << 30))


def test_a_dead_child_is_an_error() -> None:
    with pytest.raises(ClipError, match="killed by signal 9"):
        run_unprivileged(UID, _suicide)


@native("RLIMIT_AS")
def test_memory_is_limited() -> None:
    with pytest.raises(ClipError, match="MemoryError"):
        run_unprivileged(UID, _bomb, memory=512 << 20)


def _fine() -> None:
    return None


def test_only_functions_of_modules_can_be_sent() -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        run_unprivileged(UID, lambda: 1)
    assert run_unprivileged(UID, _fine) is None


def _stdin() -> str:
    return os.readlink("/proc/self/fd/0") if os.access("/proc/self/fd", os.R_OK) else ""


def test_it_has_no_input_of_ours() -> None:
    assert run_unprivileged(UID, _stdin) in ("/dev/null", "")  # not dumpable: no /proc/self/fd


LOCK = threading.Lock()


def _take_lock() -> bool:
    return LOCK.acquire(timeout=20)


def test_a_lock_that_another_thread_holds_is_not_inherited() -> None:
    with LOCK:
        assert run_unprivileged(UID, _take_lock) is True


WAITS = """
import sys
sys.path[:] = {paths!r}
import time
from clip_runc.linux.unprivileged import run_unprivileged
print("started", flush=True)
run_unprivileged({uid}, time.sleep, 1000)
"""


def test_it_dies_with_its_caller() -> None:
    program = WAITS.format(paths=sys.path, uid=UID)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as caller:
        try:
            assert caller.stdout is not None and caller.stdout.readline() == b"started\n"
            children = Path(f"/proc/{caller.pid}/task/{caller.pid}/children")
            while not (found := children.read_text().split()):
                assert caller.poll() is None
            while b"unprivileged" in _command(found[0]) and "State:\tS" not in _status(found[0]):
                pass
        finally:
            caller.kill()
    for _ in range(1000):
        if not Path(f"/proc/{found[0]}").exists() or "State:\tZ" in _status(found[0]):
            return
        threading.Event().wait(0.01)
    os.kill(int(found[0]), signal.SIGKILL)
    pytest.fail("the process outlived its caller")


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _status(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "State:\tZ"
