"""A blob on its way from the registry: hashed as it comes, and held while its readers are near.

One thread receives and others decode; between them lie some MiB of memory, so that a layer of
any size takes neither disk space nor the time to write it.  A reader may go back a little, as a
decoder does that looks at a block again; whoever needs the beginning once more fetches it anew.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator

from clip_runc.errors import ClipError, DigestMismatch, LayerFormatError, StoreError
from clip_runc.linux.threads import give_way

_PIECE = 1 << 20
BEHIND = 8 << 20
"""Bytes before the furthest read that can be read again, if nobody wants more."""

AHEAD = 4 << 20
"""Bytes that are received before a reader wants them."""


class Spool:
    """Use as a context manager: leaving it stops the download."""

    def __init__(
        self,
        pieces: Iterator[bytes],
        digest: str,
        size: int,
        progress: Callable[[int], None] = lambda received: None,
    ) -> None:
        """``pieces`` must be the blob from its start; ``progress`` gets the bytes so far."""
        self.digest = digest
        self.size = size
        self.received = 0
        self.behind = BEHIND
        self._pieces = pieces
        self._progress = progress
        self._held: deque[bytes] = deque()
        self._starts: deque[int] = deque()
        self._wanted = 0
        self._error: ClipError | None = None
        self._hash = hashlib.sha256()
        self._done = self._stopped = self._drained = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._download, name="clip-spool", daemon=True)

    def __enter__(self) -> Spool:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def read_at(self, offset: int, length: int) -> bytes:
        """Some bytes at ``offset``, at most ``length``; ``b""`` at the end or after a failure.

        Also for what lies more than ``behind`` before an earlier read's end, which is gone.
        """
        with self._changed:
            if offset < self._wanted - self.behind:
                return b""
            if offset + length > self._wanted:
                self._wanted = offset + min(length, _PIECE)
                self._changed.notify_all()
            self._changed.wait_for(lambda: self.received > offset or self._done)
            if offset >= self.received or not self._held:
                return b""
            number = bisect_right(self._starts, offset) - 1
            piece, start = self._held[number], self._starts[number]
        return piece[offset - start : offset - start + length]

    def pieces(self) -> Iterator[bytes]:
        """The blob from its start, in pieces; raises what ``check`` raises if it breaks off."""
        position = 0
        while piece := self.read_at(position, _PIECE):
            yield piece
            position += len(piece)
        self.check()

    def bytes_at(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``, or those up to the end; else as ``read_at``."""
        found: list[bytes] = []
        while length and (data := self.read_at(offset, length)):
            found.append(data)
            offset += len(data)
            length -= len(data)
        return found[0] if len(found) == 1 else b"".join(found)

    def rewind(self) -> bool:
        """Whether all that was received is still there, to be read from the start again."""
        with self._changed:
            if self._drained or not self._held or self._starts[0]:
                return False
            self._wanted = 0
        return True

    def check(self, *, wait: bool = True) -> None:
        """Wait for the last byte and raise what the download failed with.

        ``DigestMismatch`` for a wrong blob, ``LayerFormatError`` for one of another length.
        Without ``wait`` only what is known already is raised; with it nothing can be read any more.
        """
        with self._changed:
            if wait:
                self._drained = True
                self._drop(self.received)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._done)
            elif not self._done:
                return
        if self._error is not None:
            raise self._error
        if self.received != self.size:
            raise LayerFormatError(
                f"layer {self.digest}: {self.received} bytes instead of {self.size}",
                "the registry does not have what the manifest says",
            )
        if f"sha256:{self._hash.hexdigest()}" != self.digest:
            raise DigestMismatch(
                f"layer {self.digest}: the blob's digest is sha256:{self._hash.hexdigest()}",
                "the registry or a proxy served damaged bytes",
            )

    def _download(self) -> None:
        give_way()
        error: ClipError | None = None
        try:
            self._receive()
        except ClipError as problem:
            error = problem
        except Exception as problem:  # the end of a thread: nobody else would report it
            error = StoreError(f"layer {self.digest}: {type(problem).__name__}: {problem}")
        with self._changed:
            self._error = error
            self._done = True
            self._changed.notify_all()

    def _receive(self) -> None:
        for piece in self._pieces:
            if self._stopped or self.received + len(piece) > self.size:
                self.received += len(piece)  # longer than declared: "check" says so
                return
            self._hash.update(piece)
            if not self._hold(piece):
                return
            self._progress(self.received)

    def _hold(self, piece: bytes) -> bool:
        """Take a piece in when there is room for it; whether anybody wants more."""
        with self._changed:
            self._changed.wait_for(self._room)
            if self._stopped:
                return False
            if not self._drained:
                self._drop(self._wanted - self.behind)
                self._held.append(piece)
                self._starts.append(self.received)
            self.received += len(piece)
            self._changed.notify_all()
        return True

    def _room(self) -> bool:
        return self._stopped or self._drained or self.received < self._wanted + AHEAD

    def _drop(self, end: int) -> None:
        """Forget the pieces that lie before ``end``."""
        while self._held and self._starts[0] + len(self._held[0]) <= end:
            self._held.popleft()
            self._starts.popleft()
