"""Pages of layer files that the kernel need not keep: EROFS on top of them has its own.

The server says which layers have been quiet; it may not open a file of the mount, and whoever
does may have to wait for it.  So a child does, which holds nothing of ours.
"""

from __future__ import annotations

import os
import re

from clip_runc.linux.processes import in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.fs import protocol
    from clip_runc.fs.loop import Loop

_NAME = re.compile(r"[0-9a-f]{64}")
_MOST = 1024


class Forgetting:
    """One child at a time; what is said meanwhile is said again, or never mattered."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        self._loop = loop
        self._settings = settings
        self._busy = False

    def quiet(self, message: protocol.Message) -> None:
        """The server's word: the names of files in ``layers/``."""
        names = message.get("layers")
        good = [str(name) for name in names[:_MOST]] if isinstance(names, list) else []
        good = [name for name in good if _NAME.fullmatch(name)]
        if self._busy or not good:
            return
        self._busy = True
        directory = f"{self._settings.fuse_dir}/layers"

        def work() -> bytes:
            for name in good:
                forget(f"{directory}/{name}")
            return b""

        self._loop.output(*in_child(work), self._done)

    def _done(self, code: int, data: bytes) -> None:
        self._busy = False


def forget(path: str) -> None:
    """Give back the clean pages of a file; never waits for those that are being read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # detached meanwhile
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
