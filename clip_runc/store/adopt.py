"""A layer's bytes that somebody has anyway, taken into the store whole.

Indexing decodes every layer once.  It writes what it decodes to a file without a name in the
store's directory; when the last byte has come and all hashes are known, the file becomes the
layer's data and its chunks are recorded as verified.  Killed before that, nothing is left.
Where the disk has the bytes by then the layer is complete at once, so that the first mount of the
image reads it from there; else clipd says so later, when it has been written.
"""

from __future__ import annotations

import logging
import os
import threading

from clip_runc.errors import ClipError
from clip_runc.index.model import Layer
from clip_runc.linux.direct_io import PIECE, SequentialFile
from clip_runc.store.chunk_states import PRESENT
from clip_runc.store.eviction import Quota, remove
from clip_runc.store.geometry import Geometry
from clip_runc.store.layer_files import LayerFiles

log = logging.getLogger(__name__)

_PIECE = 32 << 20


class Adoption:
    """Layers on their way into the store below ``store_fd`` (``images.layer_pipeline.Keep``).

    For a thread a layer; two layers of one diff_id must come one after the other.
    A store that is full, at its ``limit``, or in use by others costs the copy, never the work
    that it comes from.  ``kept``: bytes that were taken in.
    """

    def __init__(self, store_fd: int, boot_id: str, limit: int = 0) -> None:
        self._store = store_fd
        self._boot = boot_id
        self._quota = Quota(store_fd, limit)
        self._lock = threading.Lock()
        self._files: dict[str, _Copy] = {}
        self.kept = 0

    def write(self, diff_id: str, offset: int, data: bytes | memoryview) -> None:
        """Bytes of a layer, in order; offset 0 begins it anew."""
        with self._lock:
            copy = self._files.get(diff_id)
            if copy is None or offset == 0:
                if copy is not None:
                    copy.close()
                copy = self._files[diff_id] = _Copy(self._store, self._quota)
        copy.append(data)

    def done(self, layer: Layer) -> None:
        """The bytes written for the layer's diff_id are what it says."""
        with self._lock:
            copy = self._files.pop(layer.diff_id, None)
        if copy is None:
            return
        try:
            fd = copy.finish()
            if fd >= 0 and self._take(fd, layer, on_disk=copy.on_disk):
                with self._lock:
                    self.kept += layer.raw_size
        except (OSError, ClipError) as error:
            log.warning("layer %s is not kept: %s", layer.diff_id, error)
        finally:
            copy.close()

    def _take(self, fd: int, layer: Layer, *, on_disk: bool) -> bool:
        geometry, name = Geometry(layer), layer.diff_hex
        os.ftruncate(fd, geometry.file_size)
        remove(self._store, name)
        try:
            os.mkdir(name, 0o700, dir_fd=self._store)
        except FileExistsError:
            return False  # somebody reads it: what he fetches is as good
        os.link(f"/proc/self/fd/{fd}", f"{name}/data", dst_dir_fd=self._store, follow_symlinks=True)
        files = LayerFiles(self._store, name, geometry, self._boot)
        try:
            if files.name != name:
                return False
            with files.marking:
                marks = [files.mark(chunk, files.epoch) for chunk in range(len(geometry.starts))]
            whole = all(state == PRESENT for state in marks)
            if whole and on_disk:
                files.finish(files.epoch)
            return whole
        finally:
            files.release()

    def close(self) -> None:
        """Drop what was not finished."""
        with self._lock:
            for copy in self._files.values():
                copy.close()
            self._files.clear()


class _Copy:
    """A file without a name; ``_file`` is None once it cannot be had or written."""

    def __init__(self, store_fd: int, quota: Quota) -> None:
        self._quota = quota
        self._end = self._granted = 0
        self._file: SequentialFile | None = None
        try:
            self._file = SequentialFile(store_fd)
        except OSError as error:
            log.warning("no layer can be kept: %s", error)

    def append(self, data: bytes | memoryview) -> None:
        """Write, or give up."""
        if self._file is None:
            return
        self._end += len(data)
        if self._end > self._granted:
            if not self._quota.take(_PIECE + len(data)):
                self.close()
                return
            self._granted = self._end + _PIECE
        try:
            self._file.append(data)
        except OSError as error:
            log.warning("a layer is not kept: %s", error)
            self.close()

    @property
    def on_disk(self) -> bool:
        """Was all but the end written past the page cache?"""
        return self._file is not None and self._file.cached <= PIECE

    def finish(self) -> int:
        """The descriptor of the whole file, or -1."""
        if self._file is None:
            return -1
        self._file.finish()
        return self._file.fd

    def close(self) -> None:
        """Let go of the file; without a name it is gone."""
        if self._file is not None:
            self._file.close()
            self._file = None
