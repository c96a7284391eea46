"""Reading the file of events (``clip_runc.events``) as it grows and is rotated."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from typing import Any

Event = dict[str, Any]


class Tail:
    """``new()`` gives what was written since it was asked last; at first, all there is."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""
        self._first = True

    def new(self) -> list[Event]:
        """Events in the order in which they were written; lines that are none are skipped."""
        found: list[Event] = []
        if self._first:
            self._first = False
            if self._open(f"{self._path}.1"):
                found += self._read()
                self.close()
        while True:
            if self._fd >= 0:
                found += self._read()
                if not self._replaced():
                    return found
                self.close()
            if not self._open(self._path):
                return found

    def close(self) -> None:
        """Forget the file; the next ``new`` begins with the one that is there then."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._rest = -1, b""

    def _open(self, path: str) -> bool:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        return True

    def _replaced(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._fd)
        return (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino)

    def _read(self) -> list[Event]:
        while data := os.read(self._fd, 1 << 20):
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [event for line in lines if (event := parse(line)) is not None]


def parse(line: bytes) -> Event | None:
    """The event of a line; None for a line that is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    return value


def moment(stamp: object) -> float:
    """The time of an event, in seconds since the epoch; now for what is no time."""
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except ValueError:
        return time.time()
