"""The directory of one layer in the store: ``<diff hex>/data`` and ``<diff hex>/record``.

Whoever holds the directory open holds a shared ``flock`` on the record, and every holder has
the same geometry.  A layer with the same diff_id and another geometry (indexed with other
checkpoints, compressed differently, or an index that lies) gets the directory when it is
alone, and then every byte there is suspect to it; otherwise a directory of its own.

Every method survives a store that is full, read-only or broken: the error is logged once a
layer and reason, and the caller hears that the chunk was not stored.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading

from clip_runc.store.chunk_states import HELD, MISSING, PRESENT, SUSPECT
from clip_runc.store.data_file import DataFile
from clip_runc.store.eviction import Quota, touch
from clip_runc.store.geometry import Geometry
from clip_runc.store.record import Record

log = logging.getLogger(__name__)

_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
CHANGED = -1
"""Beside the error numbers: the reason "somebody else wrote the file"."""
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class LayerFiles:
    """What of a layer is on disk.

    ``epoch`` grows each time everything on disk becomes suspect; ``marking`` is held while an
    entry of the record changes together with the state in memory.  Lock order: ``marking``
    before the pool's lock.
    """

    def __init__(
        self,
        store_fd: int,
        name: str,
        geometry: Geometry,
        boot_id: str,
        quota: Quota | None = None,
    ) -> None:
        self.name = name
        self.geometry = geometry
        self._quota = quota
        self.epoch = 0
        self.marking = threading.Lock()
        self._reset()
        self._reported: set[int] = set()
        try:
            self._open(store_fd, boot_id)
        except OSError as error:
            self._reset()
            self.report(error, "cannot be used")

    def _reset(self) -> None:
        self.initial = bytes((MISSING,)) * len(self.geometry.starts)
        self.complete = False
        self.release()

    def release(self) -> None:
        """Let go of the files; whoever is using them now closes them."""
        self.data: DataFile | None = None
        self._record: Record | None = None

    def _open(self, store_fd: int, boot_id: str) -> None:
        touch(store_fd, self.name)
        if not self._claim(store_fd, boot_id):
            self.name = f"{self.name}-{self.geometry.digest.hex()[:16]}"
            if not self._claim(store_fd, boot_id):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _claim(self, store_fd: int, boot_id: str) -> bool:
        """Open the two files; False when they are in use with another geometry."""
        directory = _make_directory(store_fd, self.name)
        try:
            record_fd, record_writable = _open_file(directory, "record")
            record = Record(record_fd, self.geometry.digest, len(self.geometry.starts))
            alone = _lock_alone(record_fd)
            if not os.fstat(record_fd).st_nlink:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # evicted meanwhile
            if not alone and not record.matches():
                return False
            data_fd, writable = _open_file(directory, "data")
        finally:
            os.close(directory)
        data = DataFile(data_fd, self.geometry.file_size, writable=writable and record_writable)
        self._load(record, data, boot_id)
        # turning one lock into the other is not atomic: look who else came in
        fcntl.flock(record_fd, fcntl.LOCK_SH)
        return record.matches()

    def _load(self, record: Record, data: DataFile, boot_id: str) -> None:
        found = os.fstat(data.fd)
        if not record.matches():
            if not data.writable:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            record.reset(suspect=found.st_size > 0)
        self.initial, self.complete = record.load(boot_id, found.st_ino)
        # an entry is written after its bytes, so data that is younger than the record was
        # written by a process that was killed before it said so, or by a stranger
        strange = found.st_ctime_ns > os.fstat(record.fd).st_ctime_ns
        if strange or found.st_size != data.size:
            self.complete = False
            self.initial = self.initial.replace(bytes((PRESENT,)), bytes((SUSPECT,)))
            if data.writable:
                record.doubt_all()
        data.accept()
        self.data, self._record = data, record

    def read_suspect(self, chunk: int) -> bytes | None:
        """The bytes of ``chunk`` as they are on disk; None when they are not there."""
        data, geometry = self.data, self.geometry
        if data is None:
            return None
        try:
            found = data.read(geometry.starts[chunk], geometry.length(chunk))
        except OSError as error:
            self.report(error, "cannot be read")
            return None
        return found if len(found) == geometry.length(chunk) else None

    def write(self, chunk: int, content: bytes) -> bool:
        """Store the verified bytes of ``chunk``; False when that is not possible."""
        data = self.data
        if data is None or not data.writable:
            return False
        try:
            if self._quota is not None and not self._quota.take(len(content)):
                raise OSError(errno.EDQUOT, "the store's limit is reached by layers in use")
            data.write(self.geometry.starts[chunk], content)
        except OSError as error:
            self.report(error, "cannot be written")
            return False
        return True

    def mark(self, chunk: int, epoch: int) -> int:
        """Record that ``chunk`` is there; ``marking`` is held.

        Returns the state that it has now: PRESENT; SUSPECT when the file changed since
        ``epoch``; HELD when the record cannot be written.
        """
        if epoch != self.epoch:
            return SUSPECT
        record = self._record
        if record is None:
            return HELD
        try:
            record.mark(chunk)
        except OSError as error:
            self.report(error, "cannot be recorded")
            return HELD
        return PRESENT

    def clear(self, chunk: int) -> None:
        """Record that ``chunk`` is not there; ``marking`` is held."""
        record, data = self._record, self.data
        try:
            if record is not None and data is not None and data.writable:
                record.clear(chunk)
        except OSError as error:
            self.report(error, "cannot be recorded")

    def doubt_all(self) -> None:
        """The files' part of making everything suspect; ``marking`` is held.

        The states in memory were moved before: who sees the new epoch sees them too.
        """
        self.epoch += 1
        self.complete = False
        if CHANGED not in self._reported:
            self._reported.add(CHANGED)
            log.warning("layer %s: its data file changed under us; verified again", self.name)
        record, data = self._record, self.data
        try:
            if record is not None and data is not None and data.writable:
                record.doubt_all()
        except OSError as error:
            self.report(error, "cannot be recorded")

    def accept(self) -> None:
        """After ``doubt_all``, when no reader trusts the file any more: take it as it is."""
        data = self.data
        try:
            if data is not None:
                data.accept()
        except OSError as error:
            self.report(error, "cannot be written")

    def finish(self, epoch: int) -> bool:
        """Sync the data and record that all of it is there; False when it is not (any more)."""
        data, record = self.data, self._record
        if data is None or record is None:
            return False
        try:
            data.sync()
            with self.marking:
                if epoch == self.epoch and not data.changed():
                    record.mark_complete()
                    self.complete = True
        except OSError as error:
            self.report(error, "cannot be synced")
        return self.complete

    def broken(self, error: OSError) -> None:
        """Log that the data file cannot be read."""
        self.report(error, "cannot be read")

    def report(self, error: OSError, what: str) -> None:
        """Log ``error``, once for each reason."""
        reason = error.errno or 0
        if reason not in self._reported:
            self._reported.add(reason)
            log.warning("store of layer %s %s: %s", self.name, what, os.strerror(reason))


def _make_directory(store_fd: int, name: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=store_fd)
    except OSError as error:
        if error.errno not in (errno.EEXIST, *_READ_ONLY):
            raise
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=store_fd)


def _lock_alone(fd: int) -> bool:
    """Lock the record; True when nobody else has it open, False when the lock is shared."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # waits while another process decides what the record is about: milliseconds
        fcntl.flock(fd, fcntl.LOCK_SH)
        return False
    return True


def _open_file(directory: int, name: str) -> tuple[int, bool]:
    """A descriptor of ``name`` and whether it can be written."""
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=directory), True
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return os.open(name, os.O_RDONLY | _OPEN, dir_fd=directory), False
