"""The presence record of a layer: which chunks of its data file were verified, and when.

The file is a header and one eight-byte entry a chunk, and one more for "complete"::

    0   8   magic and version, "CLIPREC" 0x01
    8   32  geometry digest: which tiling the entries are about
    40  8   entry of chunk 0
    …
    40 + 8 * chunks    entry "complete"

An entry is zero (missing) or a *tag*: bits of SHAKE-256 over the geometry, the boot id and
the inode of the data file.  A tag that is right says "verified in this boot, for this tiling,
in this file"; anything else that is not zero says "there were bytes once": suspect.  So an
entry of an earlier boot, of another layer, of another file, or a damaged one needs no case
of its own, and needs no rewriting at boot.

An entry is written with one aligned ``pwrite`` after the data: neighbours cannot be lost
among threads, nor among an old and a new server.  Nothing here is synced: after a power cut
the boot is another one and every entry is suspect.
"""

from __future__ import annotations

import hashlib
import os

from clip_runc.store.chunk_states import MISSING, PRESENT, SUSPECT

MAGIC = b"CLIPREC\x01"
HEADER = 40
ENTRY = 8
DOUBT = b"suspect\0"


class Record:
    """The record behind descriptor ``fd``, which it owns.  Methods raise ``OSError``."""

    def __init__(self, fd: int, geometry: bytes, chunks: int) -> None:
        self.fd = fd
        self._geometry = geometry
        self._chunks = chunks
        self._tags = b""

    def __del__(self) -> None:
        os.close(self.fd)

    def matches(self) -> bool:
        """Whether the header is about this geometry."""
        return os.pread(self.fd, HEADER, 0) == MAGIC + self._geometry

    def load(self, boot_id: str, inode: int) -> tuple[bytes, bool]:
        """The state of each chunk (MISSING, SUSPECT or PRESENT), and whether it is complete.

        ``inode`` is the data file's.  From now on entries are made for it and ``boot_id``.
        """
        seed = b"%s\0%s\0%d" % (self._geometry, boot_id.encode(), inode)
        self._tags = hashlib.shake_256(seed).digest(ENTRY * (self._chunks + 1))
        size = ENTRY * (self._chunks + 1)
        found = os.pread(self.fd, size, HEADER).ljust(size, b"\0")
        states = bytes(
            PRESENT
            if found[at : at + ENTRY] == self._tags[at : at + ENTRY]
            else SUSPECT
            if any(found[at : at + ENTRY])
            else MISSING
            for at in range(0, ENTRY * self._chunks, ENTRY)
        )
        complete = found[-ENTRY:] == self._tags[-ENTRY:] and states.count(PRESENT) == len(states)
        return states, complete

    def reset(self, *, suspect: bool) -> None:
        """A new record for this geometry: every chunk suspect, or none there.

        Every byte is written, so that later entries need no space of a full file system.
        The header comes last: what a kill leaves has no header and is reset again.
        """
        os.ftruncate(self.fd, 0)
        body = (DOUBT if suspect else bytes(ENTRY)) * self._chunks + bytes(ENTRY)
        _write_all(self.fd, body, HEADER)
        _write_all(self.fd, MAGIC + self._geometry, 0)

    def mark(self, chunk: int) -> None:
        """``chunk`` was verified and its bytes are in the data file."""
        self._set(chunk, self._tags[ENTRY * chunk : ENTRY * (chunk + 1)])

    def clear(self, chunk: int) -> None:
        """``chunk`` is not there."""
        self._set(chunk, bytes(ENTRY))

    def doubt_all(self) -> None:
        """Nothing that is there can be trusted any more."""
        size = ENTRY * self._chunks
        found = os.pread(self.fd, size, HEADER).ljust(size, b"\0")
        kept = b"".join(
            DOUBT if any(found[at : at + ENTRY]) else bytes(ENTRY) for at in range(0, size, ENTRY)
        )
        _write_all(self.fd, kept + bytes(ENTRY), HEADER)

    def mark_complete(self) -> None:
        """All chunks are there and the data file is synced: this lasts, so it is synced too."""
        self.mark(self._chunks)
        os.fsync(self.fd)

    def _set(self, chunk: int, entry: bytes) -> None:
        _write_all(self.fd, entry, HEADER + ENTRY * chunk)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
