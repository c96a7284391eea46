"""A reader of a container's file, for whatever is done below it."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernels.guest.commands import DATA
from tests.kernels.guest.installed import BIG

LONGEST = 60.0


class Reader(threading.Thread):
    """Reads a file again and again, past the cache; a wrong byte is fatal, an error is counted."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(daemon=True)
        self._path, self._wanted = path, wanted
        self.rounds, self.errors, self.wrong, self.longest = 0, 0, 0, 0.0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                found = read_hash(self._path)
            except OSError:
                self.errors += 1
            else:
                self.rounds += 1
                self.wrong += found != self._wanted
            self.longest = max(self.longest, time.monotonic() - begun)

    def finish(self) -> None:
        """Raises ``AssertionError`` where it does not end."""
        self._end.set()
        self.join(LONGEST)
        assert not self.is_alive(), "a read hangs"


def read_hash(path: str) -> str:
    """The SHA-256 of a file; the pages that it left in the cache are dropped."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    try:
        while data := os.read(fd, 1 << 16):
            digest.update(data)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return digest.hexdigest()


def expected(repository: str) -> dict[str, str]:
    """The SHA-256 of files of an image, by their paths."""
    found: dict[str, str] = json.loads(Path(DATA, "expected.json").read_text())
    names = {key: key.partition(":")[::2] for key in found}
    return {path: found[key] for key, (name, path) in names.items() if name == repository}


@contextmanager
def reader() -> Iterator[Reader]:
    """A reader of the big file of the only container; no byte may be wrong."""
    (rootfs,) = glob.glob("/run/clip/containers/*/rootfs")
    thread = Reader(f"{rootfs}/{BIG}", expected("team/lazy")[BIG])
    thread.start()
    try:
        yield thread
    finally:
        thread.finish()
    assert not thread.wrong, f"{thread.wrong} reads of wrong bytes"
    assert thread.rounds, f"no read came to its end, {thread.errors} failed"
