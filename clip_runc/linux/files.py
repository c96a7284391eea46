"""Files that survive a crash, locks, private directories.  On the shim's hot path."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from clip_runc.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def write_atomic(
    path: str,
    data: bytes,
    mode: int = 0o600,
    dir_fd: int | None = None,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace ``path`` by ``data``: a reader, or a power cut, sees the old bytes or the new.

    Written beside, synced, renamed, directory synced.  ``mode`` is exact whatever the umask;
    ``owner`` is (uid, gid).  ``path`` is relative to ``dir_fd`` where that is given.
    Raises ``OSError``; nothing is left behind then.
    """
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        try:
            _write_all(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=dir_fd)
        raise
    _sync_directory(os.path.dirname(path) or ".", dir_fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(path: str, dir_fd: int | None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class lock:
    """An exclusive flock(2) on ``path`` for the length of a ``with`` block.

    The file is made (0600) and stays; its directory has to exist.  A process that dies lets
    go.  ``wait=False`` raises ``BlockingIOError`` where another holds it.  The descriptor
    is close-on-exec; a forked child must not use the lock.
    """

    def __init__(self, path: str, *, wait: bool = True) -> None:
        self.path = path
        self.wait = wait
        self.fd = -1

    def __enter__(self) -> lock:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            fd = os.open(self.path, flags, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
            except BaseException:
                os.close(fd)
                raise
            if _same_file(fd, self.path):
                self.fd = fd
                return self
            os.close(fd)  # removed while we waited: the lock that counts is on a new file

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)
        self.fd = -1


def _same_file(fd: int, path: str) -> bool:
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def make_private_dir(path: str, mode: int = 0o700, owner: tuple[int, int] | None = None) -> None:
    """Make ``path`` (and its ancestors, 0755) a directory with exactly ``mode``.

    One that is there must be a real directory and belong to ``owner`` (default: us); else
    ``StoreError``, because somebody else could have put it there.
    """
    parent = os.path.dirname(path)
    try:
        if parent and not os.path.isdir(parent):
            os.makedirs(parent, 0o755, exist_ok=True)
        os.mkdir(path, mode)
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as error:
        message = f"{path}: cannot make the directory: {error.strerror}"
        hint = "check its file system, state_dir and run_dir, for ordinary users XDG_RUNTIME_DIR"
        raise StoreError(message, hint) from None
    found = os.lstat(path)
    expected = os.geteuid() if owner is None else owner[0]
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected:
        raise StoreError(
            f"{path}: not a directory that belongs to uid {expected}",
            "remove it, or set state_dir and run_dir to directories of your own",
        )
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)


def boot_id() -> str:
    """A string that changes when the machine boots (36 characters)."""
    try:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 64).decode().strip()
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
    with open("/proc/stat", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("btime"))
