"""What clipd must not forget when its supervisor dies, in ``<run_dir>/clipd.json``.

The INIT request of the mount, the images with their slots (they are part of inode numbers
that the kernel keeps), and which processes there are.  It means nothing without the mount.
"""

from __future__ import annotations

import json
import os

from clip_runc.errors import ServerError
from clip_runc.linux.files import write_atomic
from clip_runc.linux.processes import start_time

_MAX_SLOT = (1 << 22) - 1  # as in view.py, which the supervisor does not import


class Process:
    """A process of ours, known again after a restart; ``device`` is its /dev/fuse descriptor."""

    def __init__(self, pid: int, started: int | None = None, device: int = -1) -> None:
        self.pid = pid
        self.started = start_time(pid) if started is None else started
        self.device = device

    @property
    def alive(self) -> bool:
        """Is it there still (and no zombie)?"""
        return self.started != 0 and start_time(self.pid) == self.started

    def to_json(self) -> list[int]:
        """For the file."""
        return [self.pid, self.started, self.device]


class Attached:
    """An image: its index and the slot that belongs to exactly this index."""

    def __init__(self, index: str, slot: int) -> None:
        self.index = index
        self.slot = slot


class State:
    """The file, and what is in it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.init = b""
        self.images: dict[str, Attached] = {}
        self.slots: dict[str, int] = {}
        self.processes: dict[str, Process] = {}

    @classmethod
    def load(cls, path: str) -> State:
        """Read the file; empty where there is none, or one that is damaged."""
        state = cls(path)
        try:
            with open(path, "rb") as file:
                values = json.loads(file.read())
            state.init = bytes.fromhex(values["init"])
            state.slots = {str(k): int(v) for k, v in values["slots"].items()}
            state.images = {k: Attached(*v) for k, v in values["images"].items()}
            state.processes = {k: Process(*v) for k, v in values["processes"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path)
        return state

    def save(self) -> None:
        """Write the file."""
        values = {
            "init": self.init.hex(),
            "slots": self.slots,
            "images": {k: [v.index, v.slot] for k, v in self.images.items()},
            "processes": {k: v.to_json() for k, v in self.processes.items()},
        }
        write_atomic(self._path, json.dumps(values).encode())

    def remove(self) -> None:
        """Forget everything."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return

    def slot_for(self, manifest_hex: str, index: int) -> int:
        """The slot of this very file (open as ``index``), the same one whenever it is attached.

        Another index of the same manifest may number inodes otherwise: it gets another slot.
        """
        found = os.fstat(index)
        key = f"{manifest_hex}:{found.st_dev}:{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
        if key not in self.slots:
            if len(self.slots) >= _MAX_SLOT:
                raise ServerError("clipd has given out all its slots", "restart it: clipctl stop")
            self.slots[key] = len(self.slots) + 1
        return self.slots[key]
