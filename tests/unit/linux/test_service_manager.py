"""What systemd hands over and is told, as its manual pages have it."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.linux.service_manager import (
    ServiceManager,
    address,
    assignments,
    descriptors,
    take,
    watchdog_seconds,
)

ME = 4711


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, {}),
        ({"LISTEN_PID": "4711"}, {}),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "0"}, {}),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "1"}, {"unknown": [3]}),
        ({"LISTEN_PID": "4712", "LISTEN_FDS": "1"}, {}),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}, {}),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "-1"}, {}),
        ({"LISTEN_PID": "4711", "LISTEN_FDS": "999999999"}, {}),
        (
            {"LISTEN_PID": "4711", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "control:fuse:fuse"},
            {"control": [3], "fuse": [4, 5]},
        ),
        (
            {"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "control"},
            {"unknown": [3, 4]},
        ),
        (
            {"LISTEN_PID": "4711", "LISTEN_FDS": "2", "LISTEN_FDNAMES": ":fuse"},
            {"unknown": [3], "fuse": [4]},
        ),
    ],
)
def test_descriptors(variables: dict[str, str], wanted: dict[str, list[int]]) -> None:
    assert descriptors(variables, ME) == wanted


@given(st.text(), st.text(), st.text())
def test_any_text_is_taken(pid: str, count: str, names: str) -> None:
    found = descriptors({"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": names}, ME)
    fds = sorted(fd for some in found.values() for fd in some)
    assert fds == list(range(3, 3 + len(fds)))
    assert watchdog_seconds({"WATCHDOG_PID": pid, "WATCHDOG_USEC": count}, ME) >= 0


def test_what_was_taken_goes_to_no_child() -> None:
    script = """
import os, sys
from clip_runc.linux.service_manager import take
os.environ["LISTEN_PID"] = str(os.getpid())
found = take(os.environ, os.getpid())
print(found, os.get_inheritable(found["one"][0]), sorted(n for n in os.environ if "LISTEN" in n))
"""
    argv = [sys.executable, "-c", script]
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "one"}
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 3</dev/null', "sh", *argv],
        env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "{'one': [3]} False []\n"
    assert take({}, os.getpid()) == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/run/systemd/notify", "/run/systemd/notify"),
        ("@/org/freedesktop", "\0/org/freedesktop"),
        ("", ""),
        ("@", ""),
        ("relative", ""),
        ("vsock:2:1234", ""),
    ],
)
def test_addresses(text: str, wanted: str) -> None:
    assert address(text) == wanted


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "4711"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "4712"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 0),
        ({"WATCHDOG_USEC": "9" * 5000}, 0),
    ],
)
def test_watchdog(variables: dict[str, str], wanted: float) -> None:
    assert watchdog_seconds(variables, ME) == wanted


def test_messages() -> None:
    assert assignments({"READY": 1, "STATUS": "all is\nwell"}) == b"READY=1\nSTATUS=all is well"


@given(st.dictionaries(st.sampled_from(["STATUS", "FDNAME", "ERRNO"]), st.text()))
def test_a_value_is_one_line(values: dict[str, str]) -> None:
    lines = assignments(values).decode("utf-8", "surrogateescape").split("\n") if values else []
    assert [line.partition("=")[0] for line in lines] == list(values)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A manager's socket, and what ``$NOTIFY_SOCKET`` says."""
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else f"\0{name}")
        sock.settimeout(5)
        yield sock, name if request.param == "path" else f"@{name}"


def received(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(16))
    fds = array.array("i")
    for _, _, packed in ancillary:
        fds.frombytes(packed)
    return data, list(fds)


def test_a_manager_is_told(manager: tuple[socket.socket, str]) -> None:
    sock, text = manager
    told = ServiceManager({"NOTIFY_SOCKET": text, "WATCHDOG_USEC": "2000000"}, ME)
    assert (told.present, told.keeps, told.watchdog) == (True, False, 2.0)
    assert told.tell(READY=1, STATUS="here")
    assert received(sock) == (b"READY=1\nSTATUS=here", [])
    assert not told.keep("fuse", 0), "it keeps nothing"
    before = time.monotonic_ns() // 1000
    told.reloading(MAINPID=7)
    lines = dict(line.split(b"=") for line in received(sock)[0].split(b"\n"))
    assert (lines[b"RELOADING"], lines[b"MAINPID"]) == (b"1", b"7")
    assert before <= int(lines[b"MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_a_manager_keeps_descriptors(manager: tuple[socket.socket, str]) -> None:
    sock, text = manager
    environ = {"NOTIFY_SOCKET": text, "FDSTORE": "4", "LISTEN_FDS": "1", "HOME": "/root"}
    keeper = ServiceManager(environ, ME)
    assert keeper.environment() == {"NOTIFY_SOCKET": text, "FDSTORE": "4"}
    receive, send = os.pipe()
    assert keeper.keep("fuse", send)
    data, (kept,) = received(sock)
    assert data == b"FDSTORE=1\nFDNAME=fuse"
    os.close(send)
    os.write(kept, b"alive")
    assert os.read(receive, 5) == b"alive"
    os.close(kept)
    os.close(receive)
    assert keeper.forget("fuse")
    assert received(sock) == (b"FDSTOREREMOVE=1\nFDNAME=fuse", [])


def test_a_barrier_waits_until_all_was_read(manager: tuple[socket.socket, str]) -> None:
    sock, text = manager
    told = ServiceManager({"NOTIFY_SOCKET": text}, ME)
    assert not told.barrier(0.05), "nobody has read it"
    data, (fd,) = received(sock)
    assert data == b"BARRIER=1"
    os.close(fd)
    reader = threading.Timer(0.1, lambda: os.close(received(sock)[1][0]))
    reader.start()
    assert told.barrier(5)
    reader.join()


@pytest.mark.parametrize("environ", [{}, {"FDSTORE": "4"}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_nobody_is_there(environ: dict[str, str]) -> None:
    nobody = ServiceManager(environ, ME)
    assert not nobody.tell(READY=1)
    assert not nobody.keep("fuse", 0)
    assert not nobody.forget("fuse")
    assert not nobody.barrier(0.01)
