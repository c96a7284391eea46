"""A blob on its way from the registry: hashed and written to an unlinked file as it comes.

What decodes it reads the file while it grows: reads block until the bytes are there.  The
file is on the caller's disk and has no name, so nothing is left behind, whatever happens.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator

from clip_runc.errors import ClipError, DigestMismatch, LayerFormatError, StoreError

_PIECE = 1 << 20


class Spool:
    """Use as a context manager: leaving it stops the download and frees the disk space."""

    def __init__(
        self,
        pieces: Iterator[bytes],
        digest: str,
        size: int,
        directory_fd: int,
        progress: Callable[[int], None] = lambda received: None,
    ) -> None:
        """``pieces`` must be the blob from its start; ``progress`` gets the bytes so far."""
        self.digest = digest
        self.size = size
        self.received = 0
        self._pieces = pieces
        self._progress = progress
        self._descriptor = _unlinked_file(directory_fd)
        self._error: ClipError | None = None
        self._hash = hashlib.sha256()
        self._done = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._download, name="clip-spool", daemon=True)

    def __enter__(self) -> Spool:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped = True
        self._thread.join()
        os.close(self._descriptor)

    def read_at(self, offset: int, length: int) -> bytes:
        """Some bytes at ``offset``, at most ``length``; ``b""`` at the end or after a failure."""
        with self._changed:
            self._changed.wait_for(lambda: self.received > offset or self._done)
            length = min(length, self.received - offset)
        return os.pread(self._descriptor, length, offset) if length > 0 else b""

    def pieces(self) -> Iterator[bytes]:
        """The blob from its start, in pieces; raises what ``check`` raises if it breaks off."""
        position = 0
        while piece := self.read_at(position, _PIECE):
            yield piece
            position += len(piece)
        self.check()

    def file(self) -> io.RawIOBase:
        """The blob as a seekable file that is as long as it will be."""
        return _GrowingFile(self)

    def check(self) -> None:
        """Wait for the last byte and raise what the download failed with.

        ``DigestMismatch`` for a wrong blob, ``LayerFormatError`` for one of another length.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._done)
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
        error: ClipError | None = None
        try:
            self._receive()
        except ClipError as problem:
            error = problem
        except OSError as problem:
            error = StoreError(
                f"layer {self.digest}: no temporary copy can be written: {problem.strerror}",
                f"{self.size} bytes are needed while a layer is indexed",
            )
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
            _write_all(self._descriptor, piece, self.received)
            with self._changed:
                self.received += len(piece)
                self._changed.notify_all()
            self._progress(self.received)


class _GrowingFile(io.RawIOBase):
    """What rapidgzip needs of a file object; no descriptor, which it would read ahead of us."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        base = (0, self._position, self._spool.size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        wanted = self._spool.size - self._position if size < 0 else size
        pieces: list[bytes] = []
        while wanted > 0 and (piece := self._spool.read_at(self._position, wanted)):
            pieces.append(piece)
            self._position += len(piece)
            wanted -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _unlinked_file(directory_fd: int) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=directory_fd)
    except OSError:  # a filesystem without O_TMPFILE (NFS, some FUSE)
        name = f".spool-{os.getpid()}-{threading.get_ident()}"
        try:
            descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory_fd)
            os.unlink(name, dir_fd=directory_fd)
        except OSError as error:
            raise StoreError(f"no temporary file can be made: {error.strerror}") from None
        return descriptor


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
