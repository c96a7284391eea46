"""Talking to clipd, and starting it where it does not run.  Standard library only."""

from __future__ import annotations

import os
import socket
import time

from clip_runc.errors import ServerError
from clip_runc.fs import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from clip_runc.config import Settings

_CONNECT_SECONDS = 5.0
_REQUEST_SECONDS = 60.0
_START_SECONDS = 30.0
_ATTEMPTS = 3


class Client:
    """A connection to clipd.  Every call raises ``ServerError``, or what clipd answered."""

    def __init__(self, settings: Settings, *, start: bool = False) -> None:
        """Connect; ``start`` starts a clipd that does not run, or dies over a request."""
        self._settings = settings
        self._dial = _dial_or_start if start else _dial_running
        self._sock = self._dial(settings)

    @classmethod
    def connect(cls, settings: Settings) -> Client:
        """Connect to a clipd that runs.  Raises ``ServerError``."""
        return cls(settings)

    def attach(
        self,
        manifest_hex: str,
        index_path: str,
        command: Sequence[str] = (),
        lease: str = "",
    ) -> dict[str, object]:
        """Have an image served: ``{"layers": [{"diff", "complete"}], "tree": path}``.

        What the index lists for ``command`` is fetched as long as the image has that lease.
        """
        message: dict[str, object] = {"op": "attach", "image": manifest_hex, "index": index_path}
        if command and lease:
            message.update(command=list(command), lease=lease)
        return self._call(message)

    def detach(self, manifest_hex: str) -> None:
        """Have an image served no longer; one that is not is all right."""
        self._call({"op": "detach", "image": manifest_hex})

    def trace(self, manifest_hex: str, part: str) -> list[list[object]]:
        """What the server saw of an image: the rows of ``fs/catalog.py``'s ``trace``."""
        rows: list[list[object]] = []
        at: object = 0
        while at != -1:
            found = self._call({"op": "trace", "image": manifest_hex, "part": part, "from": at})
            some = found.get("rows")
            rows += some if isinstance(some, list) else []
            at = found.get("next", -1)
        return rows

    def status(self) -> dict[str, object]:
        """Processes, images, bytes fetched."""
        return self._call({"op": "status"})

    def upgrade(self) -> None:
        """Have clipd replaced by one of this code; returns when that one serves."""
        from clip_runc.fs import handover

        old = self._call(handover.request(self._settings))["supervisor"]
        end = time.monotonic() + _REQUEST_SECONDS
        while time.monotonic() < end:
            self._sock.close()
            self._sock = _dial(self._settings)  # in the listener's queue until the new one runs
            found = self._call({"op": "status"})
            server = found.get("server")
            serving = isinstance(server, dict) and server.get("state") == "serving"
            if found.get("supervisor") != old and serving:
                return
            time.sleep(0.05)
        raise ServerError("the new clipd does not serve", f"see {self._settings.run_dir}/clipd.log")

    def stop(self) -> None:
        """End clipd and unmount its filesystem; returns when both are gone."""
        self._call({"op": "stop"})
        try:
            while protocol.receive(self._sock) is not None:
                continue
        except OSError as error:
            raise ServerError(f"clipd does not end: {error}") from None

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, message: protocol.Message) -> protocol.Message:
        """Ask, and ask again where the supervisor died over it: all requests are idempotent."""
        for _ in range(_ATTEMPTS):
            answer = self._ask(message)
            if answer is not None:
                return protocol.raise_error(answer)
            self._sock.close()
            self._sock = self._dial(self._settings)
        raise ServerError(
            f"clipd hung up {_ATTEMPTS} times at {message['op']}",
            f"its log is {self._settings.run_dir}/clipd.log",
        )

    def _ask(self, message: protocol.Message) -> protocol.Message | None:
        """The answer; None where the other side hung up."""
        try:
            protocol.send(self._sock, message)
            received = protocol.receive(self._sock)
        except TimeoutError:
            raise ServerError(
                f"clipd gave no answer to {message['op']} in {_REQUEST_SECONDS:g} s",
                f"its log is {self._settings.run_dir}/clipd.log",
            ) from None
        except OSError:
            return None
        return None if received is None else received[0]


def _dial(settings: Settings) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.settimeout(_CONNECT_SECONDS)
    try:
        sock.connect(settings.socket)
    except OSError as error:
        sock.close()
        message = f"{settings.socket}: {error.strerror or error}"
        raise ServerError(message, "clipd does not run; containers start it") from None
    sock.settimeout(_REQUEST_SECONDS)
    return sock


def _dial_running(settings: Settings) -> socket.socket:
    """As ``_dial``, but wakes nobody: a service manager that listens starts clipd by itself."""
    if is_asleep(settings):
        raise ServerError("clipd does not run", "the first container starts it")
    return _dial(settings)


def is_asleep(settings: Settings) -> bool:
    """Is there a socket, and no clipd?  One that was killed and will be back is there."""
    if os.path.exists(f"{settings.run_dir}/clipd.json"):
        return False
    from clip_runc.linux.files import lock

    try:
        with lock(f"{settings.lock_dir}/clipd", wait=False):
            return os.path.exists(settings.socket)
    except BlockingIOError:
        return False  # it is coming up, or about to be gone
    except FileNotFoundError:
        return os.path.exists(settings.socket)


def connect(settings: Settings) -> Client | None:
    """clipd if it runs, else None.

    Of one that was killed something may be left, a server or a dead mount: clipd is started
    over it, so that a ``stop`` or a ``gc`` finds somebody to clean up.
    """
    try:
        return Client(settings)
    except ServerError:
        return ensure_clipd(settings) if _is_orphaned(settings) else None


def connect_or_wait(settings: Settings, seconds: float = _START_SECONDS) -> Client | None:
    """As ``connect``, but one that is just coming up is waited for."""
    from clip_runc.linux.files import lock

    end = time.monotonic() + seconds
    while True:
        client = connect(settings)
        if client is not None or time.monotonic() > end:
            return client
        try:
            with lock(f"{settings.lock_dir}/clipd", wait=False):
                pass
            return connect(settings)  # it may have ended, and another one come up, since
        except FileNotFoundError:
            return None
        except BlockingIOError:
            time.sleep(0.05)


def _is_orphaned(settings: Settings) -> bool:
    path = f"{settings.run_dir}/clipd.json"
    if not os.path.exists(path):
        return False
    from clip_runc.fs.state import State
    from clip_runc.linux.mountinfo import is_mountpoint

    alive = any(process.alive for process in State.load(path).processes.values())
    return alive or is_mountpoint(settings.fuse_dir)


def ensure_clipd(settings: Settings) -> Client:
    """clipd, started where it does not run; however many ask at once, one is.  ``ServerError``."""
    return Client(settings, start=True)


def _dial_or_start(settings: Settings) -> socket.socket:
    try:
        return _dial(settings)
    except ServerError:
        from clip_runc.linux.files import lock, make_private_dir
    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(settings.lock_dir)
    with lock(f"{settings.lock_dir}/clipd-start"):
        try:
            return _dial(settings)
        except ServerError:
            _start(settings)
        return _dial(settings)


def _start(settings: Settings) -> None:
    """Start the supervisor and wait until it listens."""
    from clip_runc.fs import start
    from clip_runc.linux.processes import spawn

    receive, send = os.pipe()
    with os.fdopen(receive, "rb") as pipe:
        try:
            argv = start.command("supervisor", settings, start.package_paths(), ready=send)
            child = spawn(argv, [send], start.environment())
        except OSError as error:
            raise ServerError(f"clipd cannot be started: {error}") from None
        finally:
            os.close(send)
        _wait_for(pipe.fileno(), settings)
        answer = pipe.read()
    os.waitpid(child, 0)  # the process that forked the daemon
    if answer != b"ready\n":
        reason, _, hint = answer.decode(errors="replace").strip().partition("\n")
        raise ServerError(
            f"clipd did not start: {reason or 'it died'}",
            hint or f"its log is {settings.run_dir}/clipd.log",
        )


def _wait_for(fd: int, settings: Settings) -> None:
    import select

    if not select.select([fd], [], [], _START_SECONDS)[0]:
        raise ServerError(
            f"clipd is not ready after {_START_SECONDS:g} s", f"see {settings.run_dir}/clipd.log"
        )
