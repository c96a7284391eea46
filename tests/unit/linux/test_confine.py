"""What a confined process is refused, tried in processes of their own."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clip_runc.linux import confine, syscalls
from clip_runc.linux.unprivileged import run_unprivileged
from tests.integration.prerequisites import emulated, need

UID = 61217
NEW_USER = 0x10000000
# clone, unshare, keyctl, io_uring_setup
NUMBERS = {"x86_64": (56, 272, 250, 425), "aarch64": (220, 97, 219, 425)}


def _refused() -> dict[str, int]:
    """errno of calls that any process may make where nothing refuses them; a thread on top."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = {}
    clone, *others = NUMBERS[os.uname().machine]
    for name, number in zip(("unshare", "keyctl", "io_uring_setup"), others, strict=True):
        libc.syscall(ctypes.c_long(number), ctypes.c_long(NEW_USER), None)
        found[name] = ctypes.get_errno()
    libc.syscall(ctypes.c_long(clone), ctypes.c_long(NEW_USER | 17), None, None, None, None)
    found["clone"] = ctypes.get_errno()
    libc.syscall(ctypes.c_long(435), None, ctypes.c_long(0))
    found["clone3"] = ctypes.get_errno()
    thread = threading.Thread(target=lambda: found.update(thread=os.getpid() and 1))
    thread.start()
    thread.join()
    found["program"] = subprocess.run(["true"], check=False).returncode
    return found


def _has_seccomp() -> bool:
    """A program that emulates another machine's programs (qemu-user) has none to give."""
    return os.path.exists("/proc/sys/kernel/seccomp") and not emulated()


@pytest.mark.skipif(os.uname().machine not in NUMBERS, reason="prerequisite x86-64 or arm64")
@pytest.mark.skipif(not _has_seccomp(), reason="prerequisite seccomp: this kernel has none")
def test_calls_are_refused_and_threads_are_not() -> None:
    found = run_unprivileged(UID, _refused)
    assert isinstance(found, dict)
    assert found == {
        **dict.fromkeys(("unshare", "keyctl", "io_uring_setup", "clone"), errno.EPERM),
        "clone3": errno.ENOSYS, "thread": 1, "program": 0,
    }  # fmt: skip


def judge(code: bytes, machine: int, number: int, argument: int = 0) -> int:
    """What the filter returns, run by an interpreter of its few instructions."""
    data = struct.pack("=iIQ6Q", number, machine, 0, argument, 0, 0, 0, 0, 0)
    lines = list(struct.iter_unpack("=HBBI", code))
    place = value = 0
    while True:
        operation, true, false, operand = lines[place]
        place += 1
        if operation == 0x06:
            return int(operand)
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
            continue
        holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
        place += true if holds[operation] else false


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 1), ("aarch64", 2)])
def test_the_filter_of_each_machine(machine: str, column: int) -> None:
    code = confine.program(machine)
    own = confine._ARCHITECTURES[machine]
    refused, missing, allowed = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x7FFF0000
    denied = {call[column] for call in confine._DENIED if call[column]}
    for number in range(470):
        wanted = refused if number in denied else missing if number == 435 else allowed
        assert judge(code, own, number) == wanted, number
    clone = confine._CLONE[machine]
    assert judge(code, own, clone, 0x3D0F00) == allowed  # a thread
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert judge(code, own, clone, flag | 17) == refused
    assert judge(code, 0x40000003, 1) == refused  # another architecture: i386
    if machine == "x86_64":
        assert judge(code, own, 0x40000000 + 1) == refused  # x32


def test_numbers_are_those_that_others_use() -> None:
    known = {name: numbers for name, *numbers in confine._DENIED}
    for name in ("fsopen", "move_mount", "pidfd_getfd", "mount_setattr"):
        assert known[name] == [syscalls.number(name, "x86_64")] * 2


def test_landlock(tmp_path: Path) -> None:
    """In a fresh process, for a rule is there to stay."""
    if not confine.landlock_version():
        pytest.skip("prerequisite landlock: this kernel has none")
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    (other / "file").write_text("there")
    script = """
import os, sys
from clip_runc.linux import confine, syscalls
mine, other = sys.argv[1:]
syscalls.prctl(38, 1)
fd = os.open(mine, os.O_RDONLY)
kept = os.open(other + "/kept", os.O_WRONLY | os.O_CREAT)
assert confine.write_nowhere_but([fd]) > 0
open(mine + "/new", "w").write("x")
os.rename(mine + "/new", mine + "/old")
os.truncate(mine + "/old", 0)
os.mkdir("sub", dir_fd=fd)
os.write(kept, b"open before")
assert open(other + "/file").read() == "there"
for act in (
    lambda: open(other + "/file", "a"), lambda: open(other + "/new", "w"),
    lambda: os.unlink(other + "/file"), lambda: os.mkdir(other + "/sub"),
    lambda: os.execv("/bin/true", ["true"]),
):
    try:
        act()
    except PermissionError:
        continue
    raise SystemExit("not refused")
"""
    subprocess.run(
        [sys.executable, "-c", script, str(mine), str(other)],
        check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert (other / "kept").read_text() == "open before"


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize("machine", sorted({"aarch64", os.uname().machine} & HEADERS.keys()))
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    """Of both machines: arm64's are the generic ones, which every machine's headers have."""
    need("linux-libc-dev")
    text = Path(HEADERS[machine]).read_text()
    found = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n", text)
    }
    for name, *numbers in confine._DENIED:
        assert found.get(name, 0) == numbers[list(HEADERS).index(machine)], name
    assert found["clone"] == confine._CLONE[machine]
    for name in syscalls._NUMBERS:
        assert found[name] == syscalls.number(name, machine), name
