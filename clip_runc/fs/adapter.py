"""pyfuse3 asks, ``View`` answers: nothing here but the translation.

Stateless: a file handle is the inode number, so that a server knows the handles that
another one gave out.  Answers are good for ever, because an image never changes.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future

import pyfuse3
import trio

from clip_runc.errors import ClipError
from clip_runc.fs.view import Attributes, Piece, View, is_layer

log = logging.getLogger("clip_runc.fs")

FOREVER = 1e9  # seconds; the kernel caps what does not fit
_LOG_SECONDS = 1.0
_MEANT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EINVAL)


class Operations(pyfuse3.Operations):
    """The read-only half of FUSE.  What is missing here is answered with ENOSYS by pyfuse3."""

    supports_dot_lookup = False

    def __init__(self, view: View, on_init: Callable[[], None]) -> None:
        super().__init__()
        self._view = view
        self._on_init = on_init
        self._errors = RateLimit()
        self.layers_read: set[int] = set()  # inodes of files in layers/

    def init(self) -> None:
        """INIT has been read: the moment at which the real device takes its place."""
        self._on_init()

    # Names and attributes.

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A negative answer is kept by the kernel too (an entry with inode 0)."""
        try:
            found = self._view.lookup(parent_inode, name)
        except Exception as error:
            raise self._failure(error, parent_inode) from None
        return entry(found) if found else _nothing()

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """stat(2)."""
        try:
            return entry(self._view.attributes(inode))
        except Exception as error:
            raise self._failure(error, inode) from None

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """readlink(2)."""
        try:
            return self._view.readlink(inode)
        except Exception as error:
            raise self._failure(error, inode) from None

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """getxattr(2).  Never ENOSYS: that would end the questions for all inodes."""
        try:
            value = self._view.xattrs(inode).get(name)
        except Exception as error:
            raise self._failure(error, inode) from None
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        """listxattr(2)."""
        try:
            return list(self._view.xattrs(inode))
        except Exception as error:
            raise self._failure(error, inode) from None

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Full, as a read-only filesystem is.  Also how others see whether we live."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    # Directories.

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """The handle is the inode."""
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """READDIRPLUS: every entry comes with its attributes, so no lookups follow."""
        try:
            for cookie, name, attributes in self._view.entries(fh, start_id):
                if not pyfuse3.readdir_reply(token, name, entry(attributes), cookie):
                    return
        except Exception as error:
            raise self._failure(error, fh) from None

    async def releasedir(self, fh: int) -> None:
        """Nothing is held."""

    # Data.

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """The handle is the inode; pages stay cached from one open to the next."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise pyfuse3.FUSEError(errno.EROFS)
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def release(self, fh: int) -> None:
        """Nothing is held."""

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Bytes on disk at once; others when they are fetched and verified, else EIO."""
        if is_layer(fh):
            self.layers_read.add(fh)
        try:
            pieces = self._view.pieces(fh, off, size)
            if len(pieces) == 1:
                return await self._bytes(pieces[0])
            return b"".join(await self._all(pieces))
        except Exception as error:
            raise self._failure(error, fh, off) from None

    async def _all(self, pieces: list[Piece]) -> list[bytes]:
        """What is missing is asked for together, and then waited for."""
        found = [_at_hand(piece) for piece in pieces]
        return [data if isinstance(data, bytes) else await result(data) for data in found]

    async def _bytes(self, piece: Piece) -> bytes:
        data = _at_hand(piece)
        return data if isinstance(data, bytes) else await result(data)

    def _failure(self, error: Exception, inode: int, offset: int = 0) -> pyfuse3.FUSEError:
        """Every failure becomes an errno; those that nobody expects are logged.

        This is the boundary of a request: what leaves a handler would end the server, and with
        it a reply; the kernel would ask the next server the same.
        """
        if isinstance(error, pyfuse3.FUSEError):
            return error
        code = (isinstance(error, OSError) and error.errno) or errno.EIO
        if code not in _MEANT:
            known = isinstance(error, (ClipError, OSError))
            cause = str(error) if known else f"{type(error).__name__}: {error}"
            self._complain(inode, offset, cause)
        return pyfuse3.FUSEError(code)

    def _complain(self, inode: int, offset: int, cause: str) -> None:
        suppressed = self._errors.allow()
        if suppressed is not None:
            more = f" ({suppressed} more not logged)" if suppressed else ""
            log.error("%s: %s%s", self._view.describe(inode, offset), cause, more)


def _at_hand(piece: Piece) -> bytes | Future[bytes]:
    if piece.reader is None:
        return piece.data or bytes(piece.length)
    data = piece.reader.read_cached(piece.offset, piece.length)
    return piece.reader.request(piece.offset, piece.length) if data is None else data


async def result(future: Future[bytes]) -> bytes:
    """Wait for another thread's result without holding up the loop.

    Cancellation leaves the future alone: other readers may wait for the same bytes.
    """
    if not future.done():
        token = trio.lowlevel.current_trio_token()
        event = trio.Event()

        def done(_: Future[bytes]) -> None:
            try:
                token.run_sync_soon(event.set)
            except trio.RunFinishedError:
                return

        future.add_done_callback(done)
        await event.wait()
    return future.result()


def entry(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """In pyfuse3's words."""
    found = pyfuse3.EntryAttributes()
    found.st_ino = attributes.ino
    found.st_mode = attributes.mode
    found.st_nlink = attributes.nlink
    found.st_uid = attributes.uid
    found.st_gid = attributes.gid
    found.st_rdev = os.makedev(*attributes.rdev)
    found.st_size = attributes.size
    found.st_blocks = -(-attributes.size // 512)
    found.st_mtime_ns = found.st_ctime_ns = found.st_atime_ns = attributes.mtime_ns
    found.attr_timeout = FOREVER
    found.entry_timeout = FOREVER if attributes.lasting else 0
    return found


def _nothing() -> pyfuse3.EntryAttributes:
    found = pyfuse3.EntryAttributes()
    found.st_ino = 0
    found.entry_timeout = FOREVER
    return found


class RateLimit:
    """One line a second; ``allow()`` says how many were swallowed, None to be quiet."""

    def __init__(self, seconds: float = _LOG_SECONDS) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._suppressed = 0

    def allow(self) -> int | None:
        """May this line be written?"""
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        self._next = now + self._seconds
        return suppressed
