"""The listening socket and those who talk to it."""

from __future__ import annotations

import logging
import os
import socket

from clip_runc.errors import ClipError, ServerError
from clip_runc.fs import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clip_runc.fs.loop import Loop

log = logging.getLogger("clip_runc.clipd")

_BACKLOG = 128
# It is sent with the connection.
_REQUEST_SECONDS = 1.0


def listen(path: str) -> socket.socket:
    """A new listening socket at ``path`` (0600); one of a dead clipd is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    temporary = f"{path}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    before = os.umask(0o177)
    try:
        sock.bind(temporary)
    finally:
        os.umask(before)
    sock.listen(_BACKLOG)
    os.rename(temporary, path)  # nobody finds a socket that does not listen yet
    return sock


def refuse_waiting(listener: socket.socket, error: ClipError) -> None:
    """Tell those who wait in the queue of ``listener`` why nobody will ever serve them."""
    listener.setblocking(False)
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            if protocol.peer_uid(sock) == os.geteuid():
                _discard_request(sock)
                Connection(sock).refuse(error)


def _discard_request(sock: socket.socket) -> None:
    """Read what a client asks: a socket closed with that unread resets the client.

    And a reset is what it sees then, in front of the answer (net/unix/af_unix.c).
    """
    sock.settimeout(_REQUEST_SECONDS)
    try:
        received = protocol.receive(sock)
    except (OSError, ServerError):
        return
    for fd in received[1] if received else ():
        os.close(fd)


class Connection:
    """One client.  Answers to one that has hung up go nowhere."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock
        self.fds: list[int] = []  # that came with its request; closed when that was handled

    def take_fd(self) -> int:
        """The one descriptor that came with the request, for whoever closes it."""
        if len(self.fds) != 1:
            raise ServerError(f"a request came with {len(self.fds)} descriptors, not one")
        return self.fds.pop()

    def answer(self, message: protocol.Message) -> None:
        """Answer its request."""
        if self._sock is None:
            return
        try:
            protocol.send(self._sock, message)
        except OSError:
            return  # it hangs up, or does not read; the loop will notice
        except ServerError as error:
            protocol.send(self._sock, protocol.error_message(error))

    def refuse(self, error: ClipError) -> None:
        """Answer with an error."""
        self.answer(protocol.error_message(error))

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class Clients:
    """Accepts connections of root and calls back with each of their requests."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        handle: Callable[[Connection, protocol.Message], None],
    ) -> None:
        self._loop = loop
        self._handle = handle
        self._listener = listener
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if protocol.peer_uid(sock) != os.geteuid():
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(sock)
        self._loop.watch(sock.fileno(), lambda: self._readable(sock, connection))

    def _readable(self, sock: socket.socket, connection: Connection) -> None:
        try:
            received = protocol.receive(sock)
        except BlockingIOError:
            return
        except ServerError as error:
            connection.refuse(error)
            return
        if received is None:
            self._loop.unwatch(sock.fileno())
            connection.close()
            return
        message, connection.fds = received
        try:
            self._handle(connection, message)
        except ClipError as error:
            connection.refuse(error)
        except Exception as error:
            # The boundary of a request: the mounts of a host hang on this process.
            log.exception("a request failed: %s", message.get("op"))
            connection.refuse(ServerError(f"clipd: {type(error).__name__}: {error}", "see its log"))
        finally:
            for fd in connection.fds:
                os.close(fd)
