"""Creates whose end clipd waits for, so that no process has to be forked for each.

The shim becomes runc, so somebody else has to notice that runc failed before its container
existed.  Whoever is told has a pidfd of it; what there is to take down, and whether, is judged in a
process of a room above this one (``runtime/cleanup.py``), which a create that went well, or whose
poststop hook did all, never starts.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clip_runc.config import Settings
    from clip_runc.fs.loop import Loop
    from clip_runc.fs.protocol import Message

# what runc, youki and crun write when they know of a container; another runtime costs a process
_KNOWN = ("state.json", "status")
_FIRST_LOOK = 0.02
_LAST_LOOK = 1.0


def offer_file(settings: Settings) -> str:
    """Is there while a clipd runs that takes watches: one of an older version knows none.

    It says in which mount namespace: in another a runtime's state may not be seen.
    """
    return f"{settings.control_dir}/watches"


def tell(settings: Settings, message: bytes, pidfd: int) -> bool:
    """Have clipd watch the process; False where it does not run, or is too busy to listen.

    ``message`` is JSON: ``op`` is ``watch``, and what ``Watches.begin`` reads.  No answer is waited
    for; a clipd that dies before it reads is followed by one that sweeps.  On the shim's way.
    """
    try:
        fd = os.open(offer_file(settings), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.read(fd, 32) != _mount_namespace():
            return False
    finally:
        os.close(fd)
    import _socket

    kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    sock = _socket.socket(_socket.AF_UNIX, kind)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pidfd.to_bytes(4, sys.byteorder))
    try:
        sock.connect(settings.socket)
        sock.sendmsg([message], [rights])
    except OSError:
        return False
    finally:
        sock.close()
    return True


def _mount_namespace() -> bytes:
    return b"%d\n" % os.stat("/proc/self/ns/mnt").st_ino


class Watches:
    """Of clipd's supervisor: what it was told to watch.

    ``judge`` starts the process that takes down what ``message`` speaks of.
    """

    def __init__(self, settings: Settings, loop: Loop, judge: Callable[[Message], None]) -> None:
        self._settings = settings
        self._loop = loop
        self._judge = judge
        self._pending: dict[int, Message] = {}

    def offer(self) -> None:
        """Let creates come to us."""
        path = offer_file(self._settings)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _mount_namespace())
        finally:
            os.close(fd)

    def withdraw(self) -> None:
        """Let them care for themselves."""
        try:
            os.unlink(offer_file(self._settings))
        except FileNotFoundError:
            return

    def begin(self, message: Message, pidfd: int) -> None:
        """Watch a process (the descriptor is ours from here on).

        ``message`` has ``key``, ``root`` and ``container`` of what it makes, its ``creator``, and
        ``follow``: one that lives on as ``runc run`` is watched only until its container exists.
        """
        self._pending[pidfd] = message
        self._loop.watch(pidfd, lambda: self._ended(pidfd))
        if message.get("follow"):
            self._look(pidfd, message, _FIRST_LOOK)

    def hand_over(self, encode: Callable[[Message], bytes]) -> None:
        """Tell our successor, who has the same listening socket, of what we still watch."""
        for pidfd, message in self._pending.items():
            tell(self._settings, encode(message), pidfd)

    def _look(self, pidfd: int, message: Message, pause: float) -> None:
        def look() -> None:
            if self._pending.get(pidfd) is not message:
                return
            if self._known(message):
                self._forget(pidfd)
            else:
                self._look(pidfd, message, min(pause * 1.5, _LAST_LOOK))

        self._loop.later(pause, look)

    def _ended(self, pidfd: int) -> None:
        message = self._forget(pidfd)
        if self._is_there(message) and not self._known(message):
            self._judge(message)

    def _forget(self, pidfd: int) -> Message:
        self._loop.unwatch(pidfd)
        os.close(pidfd)
        return self._pending.pop(pidfd)

    def _is_there(self, message: Message) -> bool:
        """Is anything of ours left of the container?"""
        places = (self._settings.container_dir, self._settings.rootfs_dir)
        return any(os.path.lexists(f"{place}/{message.get('key')}") for place in places)

    def _known(self, message: Message) -> bool:
        """Does the runtime know the container?  Where this does not see it, the judge will."""
        place = f"{message.get('root')}/{message.get('container')}"
        return any(os.path.lexists(f"{place}/{name}") for name in _KNOWN)
