"""The server's end of the control socket: requests of the supervisor, questions to it."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import trio

from clip_runc.errors import ClipError
from clip_runc.fs import protocol
from clip_runc.fs.catalog import Catalog
from clip_runc.registry.credentials import Credentials

log = logging.getLogger("clip_runc.fs")

_CREDENTIAL_SECONDS = 20.0


class Channel:
    """The socket.  ``ask`` is for threads; the loop is in ``Control``."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[protocol.Message]] = {}
        self._lock = threading.Lock()
        self.closed = False

    def send(self, message: protocol.Message) -> None:
        """Send; a supervisor that is gone is no reason to stop serving."""
        try:
            with self._lock:
                protocol.send(self.sock, message)
        except OSError as error:
            log.warning("no word to the supervisor: %s", error)

    def credentials(self, registry: str, repository: str) -> Credentials | None:
        """What root knows for a repository.  Blocks: for threads that fetch only."""
        number = next(self._numbers)
        future: Future[protocol.Message] = Future()
        self._waiting[number] = future
        question = {"op": "credentials", "registry": registry, "repository": repository}
        if self.closed:
            return None
        self.send({**question, "id": number})
        try:
            found = future.result(_CREDENTIAL_SECONDS).get("credentials")
        except FutureTimeout:
            log.warning("no credentials for %s in %g s", registry, _CREDENTIAL_SECONDS)
            return None
        finally:
            self._waiting.pop(number, None)
        return Credentials.from_dict(found) if isinstance(found, dict) else None

    def answered(self, message: protocol.Message) -> None:
        """An answer to ``credentials`` has come."""
        future = self._waiting.pop(_integer(message, "id"), None)
        if future is not None:
            future.set_result(message)

    def close(self) -> None:
        """Nobody is at the other end: whoever waits has nothing to wait for."""
        self.closed = True
        for future in list(self._waiting.values()):
            future.set_result({})


class Control:
    """Does what the supervisor says, in the order in which it says it."""

    def __init__(self, channel: Channel, catalog: Catalog) -> None:
        self._channel = channel
        self._catalog = catalog
        self.serve = trio.Event()

    async def run(self) -> None:
        """Until the supervisor is gone; then reads go on being served without one."""
        sock = self._channel.sock
        while True:
            await trio.lowlevel.wait_readable(sock)
            received = protocol.receive(sock)
            if received is None:
                break
            message, fds = received
            try:
                await self._handle(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        self._channel.close()
        log.warning("the supervisor is gone; serving what is attached")
        if not self.serve.is_set():
            raise SystemExit(1)

    async def _handle(self, message: protocol.Message, fds: list[int]) -> None:
        kind = message["op"]
        if kind == "ping":
            self._channel.send({"op": "pong", "id": message["id"]})
        elif kind == "serve":
            self.serve.set()
        elif kind == "credentials":
            self._channel.answered(message)
        elif kind == "prefetch":
            self._prefetch(message)
        elif kind == "complete":
            self._complete(message)
        else:
            self._channel.send(
                {"op": "reply", "id": message["id"], **self._answer(kind, message, fds)}
            )

    def _prefetch(self, message: protocol.Message) -> None:
        """The answer comes when all is here, or when it was stopped."""
        command = message.get("command")
        texts = [str(text) for text in command] if isinstance(command, list) else []
        answer: protocol.Message = {"op": "reply", "id": message["id"]}

        def done() -> None:
            self._channel.send(answer)

        image, lease = str(message["image"]), str(message["lease"])
        self._begin(answer, "prefetch", lambda: self._catalog.prefetch(image, texts, lease, done))

    def _complete(self, message: protocol.Message) -> None:
        """The answer comes when all is here that can be had, or when it was stopped."""
        answer: protocol.Message = {"op": "reply", "id": message["id"]}

        def done(left: int) -> None:
            self._channel.send({**answer, "left": left})

        image = str(message["image"])
        self._begin(answer, "complete", lambda: self._catalog.complete(image, done))

    def _begin(self, answer: protocol.Message, what: str, start: Callable[[], None]) -> None:
        """Start what answers by itself later; answer where it cannot be started."""
        try:
            start()
        except ClipError as error:
            self._channel.send({**answer, **protocol.error_message(error)})
        except Exception as error:  # as in _answer
            log.exception("%s failed", what)
            reason = f"{what} failed in clipd: {type(error).__name__}: {error}"
            self._channel.send({**answer, "error": "ServerError", "message": reason, "hint": ""})

    def _answer(self, kind: object, message: protocol.Message, fds: list[int]) -> protocol.Message:
        try:
            if kind == "attach":
                slot = _integer(message, "slot")
                return self._catalog.attach(fds[0], str(message["image"]), slot)
            if kind == "detach":
                self._catalog.detach(str(message["image"]))
                return {}
            if kind == "prefetch-stop":
                self._catalog.stop_prefetch(str(message["lease"]))
                return {}
            if kind == "complete-stop":
                self._catalog.stop_completing(str(message["image"]))
                return {}
            if kind == "trace":
                image, part = str(message["image"]), str(message["part"])
                return self._catalog.trace(image, part, _integer(message, "from"))
            return self._catalog.status()
        except ClipError as error:
            return protocol.error_message(error)
        except Exception as error:
            # The boundary of a request: a poisoned index must cost its own attach only.
            log.exception("%s failed", kind)
            reason = f"{kind} failed in clipd: {type(error).__name__}: {error}"
            return {"error": "ServerError", "message": reason, "hint": "see clipd.log"}


def _integer(message: protocol.Message, key: str) -> int:
    value = message[key]
    return value if isinstance(value, int) else 0
