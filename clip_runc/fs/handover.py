"""Replacing clipd by a newer one under load: ``clipctl upgrade``.

The old supervisor starts the new one with the device and the listening socket, and waits for
one word from it, said when all its code is loaded.  Then it ends, and with it its lock; what the
new one takes over is written in ``clipd.json``, as after a death.  Its server goes on serving
without a supervisor until the new one replaces it; what that has not answered, the kernel
asks again.

The message and the arguments are an interface between versions: add to them, rename nothing.
"""

from __future__ import annotations

import json
import os

from clip_runc.errors import ServerError
from clip_runc.fs import start
from clip_runc.linux.processes import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clip_runc.config import Settings
    from clip_runc.fs import protocol
    from clip_runc.fs.loop import Loop

_WORD = b"loaded\n"
_SECONDS = 30.0


def request(settings: Settings) -> protocol.Message:
    """The message that asks for this code, this interpreter and these settings."""
    argv = start.command("supervisor", settings, start.package_paths())
    return {"op": "upgrade", "program": argv[:-1], "payload": json.loads(argv[-1])}


def offer(
    loop: Loop,
    message: protocol.Message,
    device: int,
    listener: int,
    loaded: Callable[[str], None],
    *,
    activated: bool = False,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Start the supervisor that ``message`` names; ``loaded`` gets "" or what is wrong.

    Its pid.  ``activated``: a service manager listens (``managed.Given``), and ``environ`` is what
    the new one has to know of it.
    """
    program, payload = message.get("program"), message.get("payload")
    if not isinstance(program, list) or not isinstance(payload, dict):
        raise ServerError("upgrade names no program", "is clipctl older than clipd?")
    receive, send = os.pipe2(os.O_CLOEXEC)
    values = {**payload, "device": device, "listener": listener, "successor": send}
    if activated:
        values["activated"] = True
    argv = [*map(str, program), json.dumps(values, separators=(",", ":"))]
    try:
        pid = spawn(argv, [device, listener, send], {**start.environment(), **(environ or {})})
    except OSError as error:
        os.close(receive)
        raise ServerError(f"{argv[0]}: {error.strerror}") from None
    finally:
        os.close(send)
    open_pipe = [receive]

    def done(problem: str) -> None:
        if open_pipe:
            open_pipe.clear()
            loop.unwatch(receive)
            os.close(receive)
            loaded(problem)

    def readable() -> None:
        done("" if os.read(receive, 64) == _WORD else "it ends (see clipd.log)")

    def late() -> None:
        if open_pipe:
            os.kill(pid, 9)  # our child: its pid is its own until it is waited for
            done(f"no word from it in {_SECONDS:g} s")

    loop.watch(receive, readable)
    loop.child(pid, lambda code: None)
    loop.later(_SECONDS, late)
    return pid


def accept(pipe: int) -> None:
    """In the new supervisor, which imports this: all is loaded, the old one may go."""
    os.write(pipe, _WORD)
    os.close(pipe)
