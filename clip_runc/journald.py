"""Log records as fields of systemd's journal, by its native protocol.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: a datagram of ``NAME=value`` lines; a value with a
newline goes as ``NAME``, newline, its length (64 bit, little endian), the bytes, newline.  What is
too long for a datagram goes as a sealed memfd.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import struct
import sys

SOCKET = "/run/systemd/journal/socket"
# linux/fcntl.h; the fcntl module names them only where libc's header did
_F_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8  # seal, shrink, grow, write
_MFD_ALLOW_SEALING, _MFD_CLOEXEC = 2, 1
_PRIORITIES = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))  # syslog(3)


def stderr_is_the_journal() -> bool:
    """Does ``$JOURNAL_STREAM`` name what our stderr is (systemd.exec(5))?"""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def field(name: str, value: str) -> bytes:
    """One field as it travels.  ``name`` becomes what the journal allows."""
    key = re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:64].encode() or b"FIELD"
    data = value.encode("utf-8", "surrogateescape")
    if b"\n" not in data:
        return key + b"=" + data + b"\n"
    return key + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


class Journal(logging.Handler):
    """Sends each record as a message; its ``fields`` become ``CLIP_RUNC_<NAME>``."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """To the journal, or to stderr where there is none."""
        try:
            self._send(self._message(record))
        except OSError:
            print(self.format(record), file=sys.stderr)

    def _message(self, record: logging.LogRecord) -> bytes:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": priority,
            "SYSLOG_IDENTIFIER": "clipd",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
        }
        for name, value in getattr(record, "fields", {}).items():
            fields[f"CLIP_RUNC_{name}"] = value
        return b"".join(field(name, str(value)) for name, value in fields.items())

    def _send(self, message: bytes) -> None:
        # A socket a message: our processes close what they do not know when they begin.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(message, self._path)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_file(sock, message)

    def _send_file(self, sock: socket.socket, message: bytes) -> None:
        fd = os.memfd_create("clipd-log", _MFD_ALLOW_SEALING | _MFD_CLOEXEC)
        try:
            os.write(fd, message)
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            sock.sendmsg([b""], rights, 0, self._path)
        finally:
            os.close(fd)
