"""Messages between clipd's processes and its clients: one JSON object a packet.

Over SOCK_SEQPACKET, so that a message comes whole or not at all.  Descriptors travel beside
(SCM_RIGHTS).  Requests of a client have ``op``; an answer has what was asked for, or
``error`` (the class), ``message`` and ``hint``.  Between supervisor and server an ``id`` says
what an answer belongs to.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct

from clip_runc import errors
from clip_runc.errors import ClipError, ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Message = dict[str, object]

# Below net.core.wmem_default, which bounds a packet; a status of 300 images has 60 KB.
LIMIT = 192 << 10
_ANCILLARY = socket.CMSG_SPACE(4 * 4)  # four descriptors
_UCRED = struct.Struct("=iII")


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message.  Raises ``OSError``, and ``ServerError`` if it is too long."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > LIMIT:
        raise ServerError(f"a message of {len(data)} bytes is longer than {LIMIT}")
    socket.send_fds(sock, [data], list(fds))


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message with its descriptors (close-on-exec); None when the other side is gone.

    Raises ``ServerError`` for what is no message.
    """
    try:
        # Not socket.recv_fds(): it drops its flags, and the descriptors would be inherited.
        data, ancillary, flags, _ = sock.recvmsg(LIMIT, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = _descriptors(ancillary)
    if not data:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ServerError("a message was too long")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ServerError("a message that is no JSON object")
    except (ValueError, RecursionError, ServerError) as error:
        for fd in fds:
            os.close(fd)
        raise ServerError(f"clipd was sent something else than a message: {error}") from None
    return message, fds


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return list(found)


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end (SO_PEERCRED)."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(data)[1]
    return uid


def error_message(error: ClipError) -> Message:
    """An error as an answer."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def raise_error(answer: Message) -> Message:
    """The answer, or the error that it is; of one of our classes."""
    if "error" not in answer:
        return answer
    kind = getattr(errors, str(answer["error"]), ServerError)
    if not (isinstance(kind, type) and issubclass(kind, ClipError)):
        kind = ServerError
    raise kind(str(answer.get("message", "")), str(answer.get("hint", "")))
