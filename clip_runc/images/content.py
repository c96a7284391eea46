"""Files of an image without a mount: what ``clipctl cat``, ``bundle`` and ``ls`` look at.

Parsing, fetching and inflating happen in a process without privileges when we are root; what
is fetched goes to a temporary store that ends with the call, so that nothing of a store that
clipd owns is touched.
"""

from __future__ import annotations

import base64
import contextlib
import encodings.idna  # noqa: F401  # for host names; without privileges it may not be found
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence

from clip_runc.errors import ClipError, IndexFormatError
from clip_runc.images.source import Access
from clip_runc.index.clipfile import ClipFile
from clip_runc.index.erofs_read import ErofsImage, Inode
from clip_runc.linux.files import boot_id
from clip_runc.linux.privileges import attainable
from clip_runc.linux.unprivileged import run_unprivileged
from clip_runc.store import ChunkStore, Fetcher, LayerReader

_PIECE = 4 << 20
SMALL = 1 << 20
"""Files read whole into memory (passwd, group) are refused above this size."""


class ImageContent:
    """An index opened as a tree of files whose data comes from ``fetcher``."""

    def __init__(self, clip: ClipFile, fetcher: Fetcher, directory_fd: int) -> None:
        self._erofs = clip.erofs()
        self.image = ErofsImage(self._erofs)
        self._clip = clip
        self._fetcher = fetcher
        self._store = ChunkStore(directory_fd, boot_id=boot_id())
        self._readers: dict[int, LayerReader] = {}

    def close(self) -> None:
        """Stop fetching."""
        self._store.close()

    def inode(self, path: bytes, *, follow: bool = True) -> Inode:
        """The inode at ``path``, symlinks followed inside the image.  Raises ``ClipError``."""
        try:
            return self.image.inode(self.image.resolve(path, follow=follow))
        except KeyError:
            raise ClipError(f"{os.fsdecode(path)}: no such file in the image") from None

    def read(self, path: bytes) -> Iterator[bytes]:
        """The data of the regular file at ``path``, in pieces, each verified."""
        inode = self.inode(path)
        if not stat.S_ISREG(inode.mode):
            raise ClipError(f"{os.fsdecode(path)}: not a regular file")
        for offset in range(0, inode.size, _PIECE):
            length = min(_PIECE, inode.size - offset)
            for device, start, count in self.image.extents(inode.nid, offset, length):
                yield self._extent(device, start, count)

    def _extent(self, device: int, start: int, count: int) -> bytes:
        if device < 0:
            return bytes(count)
        if device == 0:
            return self._erofs[start : start + count]
        if device not in self._readers:
            layer = device - 1
            self._readers[device] = self._store.open_layer(
                self._clip.layers[layer],
                lambda chunk, layer=layer: self._clip.window(layer, chunk),  # type: ignore[misc]  # the default binds the loop's value
                self._fetcher,
            )
        return self._readers[device].request(start, count).result()


def stream_file(clip: ClipFile, access: Access, path: bytes, out_fd: int, *, uid: int) -> None:
    """Write the file at ``path`` to the descriptor ``out_fd``.  Raises ``ClipError``."""
    _in_child(_stream, clip, access, path, out_fd, uid=uid, keep_fds=[out_fd])


def _stream(index_fd: int, directory_fd: int, access: Access, path: bytes, out_fd: int) -> None:
    with _opened(index_fd, directory_fd, access) as content:
        for piece in content.read(path):
            view = memoryview(piece)
            while view:
                view = view[os.write(out_fd, view) :]


def read_small(
    clip: ClipFile, access: Access, paths: Sequence[bytes], *, uid: int
) -> dict[bytes, bytes]:
    """The contents of small files; those that do not exist are left out."""
    answers = _in_child(_read_small, clip, access, list(paths), uid=uid)
    if not isinstance(answers, list) or len(answers) != len(paths):
        raise IndexFormatError("the unprivileged reader gave no answer")
    return {
        path: base64.b64decode(answer)
        for path, answer in zip(paths, answers, strict=True)
        if answer is not None
    }


def _read_small(
    index_fd: int, directory_fd: int, access: Access, paths: list[bytes]
) -> list[str | None]:
    with _opened(index_fd, directory_fd, access) as content:
        return [_small(content, path) for path in paths]


@contextlib.contextmanager
def _opened(index_fd: int, directory_fd: int, access: Access) -> Iterator[ImageContent]:
    with ClipFile.open(index_fd) as clip, access.connect() as registry:
        content = ImageContent(clip, registry, directory_fd)
        try:
            yield content
        finally:
            content.close()


def _small(content: ImageContent, path: bytes) -> str | None:
    try:
        inode = content.image.inode(content.image.resolve(path, follow=True))
    except KeyError:
        return None
    if not stat.S_ISREG(inode.mode):
        return None
    if inode.size > SMALL:
        raise ClipError(f"{os.fsdecode(path)} in the image: {inode.size} bytes, above {SMALL}")
    return base64.b64encode(b"".join(content.read(path))).decode()


def _in_child(
    work: Callable[..., object],
    clip: ClipFile,
    *arguments: object,
    uid: int,
    keep_fds: Sequence[int] = (),
) -> object:
    """``work(index descriptor, temporary directory, *arguments)`` without privileges."""
    with tempfile.TemporaryDirectory(prefix="clip-content-", dir="/var/tmp") as directory:
        owner = attainable(uid)
        if owner != os.geteuid():
            os.chown(directory, owner, owner)
        directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fds = (clip.fileno(), directory_fd)
        try:
            return run_unprivileged(
                uid, work, *fds, *arguments, keep_fds=[*fds, *keep_fds], seconds=3600
            )
        finally:
            os.close(directory_fd)
