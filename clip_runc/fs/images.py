"""Which images are attached, and requests that wait for the server to do something.

An image is noted before the server is told, so that a server that dies in between leaves
nothing forgotten: the next one gets every image, under the same slots, and the answers that
clients still wait for.
"""

from __future__ import annotations

import itertools
import os
import re
import stat

from clip_runc.errors import ServerError
from clip_runc.fs.state import Attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

    from clip_runc.fs import protocol
    from clip_runc.fs.server_process import ServerProcess
    from clip_runc.fs.state import State

    Answer = Callable[[protocol.Message], None]

_HEX = re.compile(r"[0-9a-f]{64}")
_ATTEMPTS = 3


class _Waiting:
    """A request to the server that has no answer yet; ``image`` for an attach."""

    def __init__(self, message: protocol.Message, answer: Answer, image: str = "") -> None:
        self.message = message
        self.answer = answer
        self.image = image
        self.attempts = 0


class Images:
    """The attached images, told to each server that comes."""

    def __init__(self, state: State, server: ServerProcess, log: Logger) -> None:
        self._state = state
        self._server = server
        self._log = log
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}

    def attach(self, manifest_hex: str, index: str, answer: Answer) -> None:
        """Have an image served.  Raises ``ServerError`` for what cannot be one."""
        if not _HEX.fullmatch(manifest_hex):
            raise ServerError(f"{manifest_hex!r} is no manifest digest", "64 hexadecimal digits")
        fd = _open_index(index)
        try:
            slot = self._state.slot_for(manifest_hex, fd)
        finally:
            os.close(fd)
        self._state.images[manifest_hex] = Attached(index, slot)
        self._state.save()
        self._send_attach(manifest_hex, answer)

    def _send_attach(self, manifest_hex: str, answer: Answer) -> None:
        message: protocol.Message = {
            "op": "attach",
            "image": manifest_hex,
            "slot": self._state.images[manifest_hex].slot,
        }
        self._ask(_Waiting(message, answer, manifest_hex))

    def detach(self, manifest_hex: str, answer: Answer) -> None:
        """Have it served no longer."""
        if self._state.images.pop(manifest_hex, None) is not None:
            self._state.save()
        self.ask({"op": "detach", "image": manifest_hex}, answer)

    def ask(self, message: protocol.Message, answer: Answer) -> None:
        """Have the server answer; whichever server that will be."""
        self._ask(_Waiting(message, answer))

    def _ask(self, waiting: _Waiting) -> None:
        number = next(self._numbers)
        self._waiting[number] = waiting
        if self._server.ready:
            self._send(number)

    def names(self) -> list[str]:
        """The attached images."""
        return list(self._state.images)

    def busy(self) -> set[str]:
        """The images that somebody waits for: not to be detached now."""
        return {waiting.image for waiting in self._waiting.values()}

    def _send(self, number: int) -> None:
        waiting = self._waiting[number]
        message = {**waiting.message, "id": number}
        if not waiting.image:
            self._server.send(message)
            return
        try:
            if waiting.image not in self._state.images:
                raise ServerError(f"sha256:{waiting.image} was detached before it was attached")
            fd = _open_index(self._state.images[waiting.image].index)
        except ServerError as error:
            self._finish(number, {"error": "ServerError", "message": error.message, "hint": ""})
            return
        try:
            self._server.send(message, [fd])
        finally:
            os.close(fd)

    def server_ready(self) -> None:
        """A new server: it gets every image, and every question that waits; then it serves."""
        asked = self.busy()
        for name in list(self._state.images):
            if name not in asked:
                self._send_attach(name, _ignore)
        for number in list(self._waiting):
            if number in self._waiting:
                self._send(number)
        self._server.send({"op": "serve"})

    def server_died(self) -> None:
        """An image that was being attached may be what killed it: three times is enough."""
        for number, waiting in list(self._waiting.items()):
            waiting.attempts += 1
            if waiting.attempts >= _ATTEMPTS:
                reason = f"the server died {_ATTEMPTS} times at {waiting.message['op']}"
                answer: protocol.Message = {
                    "error": "ServerError",
                    "message": reason,
                    "hint": "see clipd.log",
                }
                self._finish(number, answer)

    def answered(self, message: protocol.Message) -> None:
        """The server answers a request."""
        number = message.pop("id", None)
        message.pop("op", None)
        if isinstance(number, int) and number in self._waiting:
            self._finish(number, message)

    def _finish(self, number: int, answer: protocol.Message) -> None:
        waiting = self._waiting.pop(number)
        if waiting.image and "error" in answer:
            self._log.error("image %s: %s", waiting.image, answer.get("message"))
            if self._state.images.pop(waiting.image, None) is not None:
                self._state.save()
        waiting.answer(answer)


def _ignore(answer: protocol.Message) -> None:
    return None


def _open_index(path: str) -> int:
    """Open a .clip file; only regular files, by absolute path.  Raises ``ServerError``."""
    try:
        if not os.path.isabs(path):
            raise OSError(22, "not an absolute path")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ServerError(f"{path}: {error.strerror}", "index the image again") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ServerError(f"{path}: not a regular file", "give the path of a .clip file")
    return fd
