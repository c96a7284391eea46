"""What is mounted in this mount namespace, from ``/proc/self/mountinfo``."""

from __future__ import annotations

import os


class Mount:
    """One line of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5))."""

    __slots__ = (
        "dev",
        "fstype",
        "id",
        "options",
        "parent",
        "root",
        "source",
        "super_options",
        "target",
    )

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.id = int(fields[0])
        self.parent = int(fields[1])
        major, _, minor = fields[2].partition(":")
        self.dev = (int(major), int(minor))
        self.root = _unescape(fields[3])
        self.target = _unescape(fields[4])
        self.options = fields[5]
        tail = right.split(" ")
        self.fstype = tail[0]
        self.source = _unescape(tail[1])
        self.super_options = _unescape(tail[2]) if len(tail) > 2 else ""


def _unescape(text: str) -> str:
    """Undo the ``\\ooo`` octal escapes of seq_path(), byte by byte."""
    if "\\" not in text:
        return text
    raw = os.fsencode(text)
    pieces = raw.split(b"\\")
    out = pieces[0] + b"".join(bytes([int(p[:3], 8) & 255]) + p[3:] for p in pieces[1:])
    return os.fsdecode(out)


def mounts() -> list[Mount]:
    """What is mounted in this mount namespace, in the order of mounting."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [Mount(line) for line in os.fsdecode(file.read()).split("\n") if line]


def is_mountpoint(path: str) -> bool:
    """Is something mounted exactly at ``path``?  Never touches the file system there."""
    parent, name = os.path.split(path.rstrip("/"))
    wanted = os.path.join(os.path.realpath(parent or "."), name)
    return any(mount.target == wanted for mount in mounts())
