"""Whoever started us as a service, systemd as a rule: what it hands over, keeps, and is told.

sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3) and
https://systemd.io/FILE_DESCRIPTOR_STORE/, without libsystemd.
"""

from __future__ import annotations

import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

_FIRST = 3  # SD_LISTEN_FDS_START
_UNNAMED = "unknown"
_MOST = 4096
_HANDED = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_TOLD = ("NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_USEC")
# The manager reads at once; one that does not is stuck, and our loop must not be.
_SEND_SECONDS = 1.0


def descriptors(environ: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """The descriptors handed to process ``pid``, by name, in the order of their numbers.

    Empty where they are for another process, or where the variables make no sense.
    """
    count = _number(environ.get("LISTEN_FDS"))
    if _number(environ.get("LISTEN_PID")) != pid or not 0 < count <= _MOST:
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[int]] = {}
    for place in range(count):
        name = names[place] if len(names) == count and names[place] else _UNNAMED
        found.setdefault(name, []).append(_FIRST + place)
    return found


def take(environ: MutableMapping[str, str], pid: int) -> dict[str, list[int]]:
    """``descriptors``, close-on-exec now; the variables are gone, as no child is meant by them."""
    found = descriptors(environ, pid)
    for fds in found.values():
        for fd in fds:
            os.set_inheritable(fd, False)
    for name in _HANDED:
        environ.pop(name, None)
    return found


def address(text: str) -> str:
    """Of ``$NOTIFY_SOCKET``: a path, or an abstract name after NUL; "" for what is neither."""
    if text.startswith("@") and len(text) > 1:
        return f"\0{text[1:]}"
    return text if text.startswith("/") else ""


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float:
    """The silence after which we are killed; 0 where nobody watches process ``pid``."""
    if _number(environ.get("WATCHDOG_PID", str(pid))) != pid:
        return 0.0
    return _number(environ.get("WATCHDOG_USEC")) / 1e6


def assignments(values: Mapping[str, object]) -> bytes:
    """A message: ``NAME=value`` lines.  A line break in a value becomes a space."""
    lines = (f"{name}={' '.join(str(value).splitlines())}" for name, value in values.items())
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _number(text: str | None) -> int:
    """A number of up to 20 decimal digits; 0 for all else."""
    return int(text) if text and len(text) <= 20 and text.isascii() and text.isdigit() else 0


class ServiceManager:
    """The manager behind ``$NOTIFY_SOCKET``.  Where there is none, nothing is told or kept."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        """``pid`` is the process that the variables have to be meant for: ourselves."""
        self._address = address(environ.get("NOTIFY_SOCKET", ""))
        self._variables = {name: environ[name] for name in _TOLD if name in environ}
        self.present = bool(self._address)
        self.keeps = self.present and _number(environ.get("FDSTORE")) > 0
        self.watchdog = watchdog_seconds(environ, pid) if self.present else 0.0

    def environment(self) -> dict[str, str]:
        """What a process needs that takes our place."""
        return dict(self._variables)

    def tell(self, **values: object) -> bool:
        """Send ``NAME=value``, all in one message; False where it could not be sent."""
        return self._send(values)

    def keep(self, name: str, fd: int) -> bool:
        """Have a duplicate of ``fd`` kept under ``name``, and handed to us when we start again.

        One that hangs up is dropped.  Nobody says whether it was: see ``keeps``.
        """
        return self.keeps and self._send({"FDSTORE": 1, "FDNAME": name}, fd)

    def forget(self, name: str) -> bool:
        """Have all that is kept under ``name`` closed."""
        return self.keeps and self._send({"FDSTOREREMOVE": 1, "FDNAME": name})

    def reloading(self, **values: object) -> bool:
        """Say that we reload; ``READY=1`` ends it."""
        return self.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000, **values)

    def barrier(self, seconds: float) -> bool:
        """Wait until all that was sent has been read (sd_notify_barrier)."""
        receive, send = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                sent = self._send({"BARRIER": 1}, send)
            finally:
                os.close(send)
            poll = select.poll()
            poll.register(receive, 0)  # the last writer closes: POLLHUP
            return sent and bool(poll.poll(seconds * 1000))
        finally:
            os.close(receive)

    def _send(self, values: Mapping[str, object], fd: int = -1) -> bool:
        if not self.present:
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_SEND_SECONDS)
            try:
                sock.connect(self._address)
                socket.send_fds(sock, [assignments(values)], [fd] if fd >= 0 else [])
            except OSError:
                return False
        return True
