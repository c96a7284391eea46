"""The journal's native protocol, read back by a receiver that follows its description."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc import journald, log
from clip_runc.config import Settings


def parse(data: bytes) -> dict[str, bytes]:
    """What journald makes of a datagram."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, end = data[8 : 8 + length], data[8 + length : 9 + length]
            assert end == b"\n"
            data = data[9 + length :]
        found[name.decode()] = value
    return found


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(10)
        yield sock


def receive(sock: socket.socket) -> dict[str, bytes]:
    data, ancillary, _, _ = sock.recvmsg(1 << 20, socket.CMSG_SPACE(4))
    if data:
        return parse(data)
    ((_, _, packed),) = ancillary
    (fd,) = array.array("i", packed)
    with open(fd, "rb") as file:
        file.seek(0)
        with pytest.raises(PermissionError):  # sealed: nobody changes it any more
            os.write(fd, b"x")
        return parse(file.read())


def logger(path: str) -> logging.Logger:
    found = logging.getLogger("journald-test")
    found.handlers[:] = [journald.Journal(path)]
    found.propagate = False
    return found


def test_a_record_becomes_fields(receiver: socket.socket) -> None:
    fields = {"event": "server-ended", "pid": 7, "how": "signal 9"}
    logger(receiver.getsockname()).warning("ended: %s\nat once", "x", extra={"fields": fields})
    found = receive(receiver)
    assert found["MESSAGE"] == b"ended: x\nat once"
    assert found["PRIORITY"] == b"4"
    assert found["SYSLOG_IDENTIFIER"] == b"clipd"
    assert found["CLIP_RUNC_EVENT"] == b"server-ended"
    assert found["CLIP_RUNC_PID"] == b"7"
    assert found["CODE_FILE"].endswith(b"test_journald.py")
    assert found["CODE_FUNC"] == b"test_a_record_becomes_fields"


def test_what_is_too_long_for_a_datagram(receiver: socket.socket) -> None:
    text = "long " * 200_000
    logger(receiver.getsockname()).error(text)
    assert receive(receiver)["MESSAGE"] == text.encode()


def test_without_a_journal_it_is_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger(str(tmp_path / "nobody")).error("not lost")
    assert "not lost" in capsys.readouterr().err


@given(st.text(), st.binary())
def test_any_name_and_value_travel(name: str, value: bytes) -> None:
    ((key, got),) = parse(journald.field(name, value.decode("utf-8", "surrogateescape"))).items()
    assert got == value
    assert key[0].isalpha() and len(key) <= 64
    assert key.replace("_", "A").isalnum() and key == key.upper()


def test_whose_stderr_is_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "stream", "w") as file:
        status = os.fstat(file.fileno())
        monkeypatch.setattr(sys, "stderr", file)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert journald.stderr_is_the_journal()
        log.configure()
        assert isinstance(logging.getLogger("clip_runc").handlers[0], journald.Journal)
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        assert not journald.stderr_is_the_journal()
        monkeypatch.delenv("JOURNAL_STREAM")
        log.configure(as_json=True)
        log.note_events(Settings(run_dir=str(tmp_path)))
        found = logging.getLogger("clip_runc")
        found.info("plain")
        found.info("an event", extra={"fields": {"event": "tick", "n": 1}})
    assert (tmp_path / "events").read_text().count("\n") == 1
    assert '"event": "tick", "n": 1, "text": "an event"' in (tmp_path / "events").read_text()
    assert (tmp_path / "stream").read_text().count("\n") == 2
    found.handlers.clear()
    found.propagate = True
    found.setLevel(logging.NOTSET)
