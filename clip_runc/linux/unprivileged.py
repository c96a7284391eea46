"""Work on untrusted bytes for a process of root: in a process of its own, without privileges.

That process is started anew and not forked: a fork of a program that has threads can inherit a
lock that one of them holds, and wait for it for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys

from clip_runc import errors
from clip_runc.linux.privileges import drop_privileges, limit_cpu, set_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

_PARENT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_RESULT_LIMIT = 64 << 20


def run_unprivileged(
    uid: int,
    function: Callable[..., object],
    *arguments: object,
    keep_fds: Iterable[int] = (),
    seconds: int = 120,
    memory: int = 2 << 30,
) -> object:
    """``function(*arguments)`` in a process without privileges; its result, as JSON has it.

    The function is one of a module, the arguments are what pickle can send; descriptors among
    them keep their numbers and have to be in ``keep_fds``.  The process has our output and error
    streams, may use ``seconds`` of CPU and ``memory`` bytes of address space, and dies with us.  A
    ``ClipError`` of it is raised here as the same class; any other end is a plain ``ClipError``.
    What the function's module imports is imported before privileges are dropped; later the
    package may be unreadable.
    """
    kept = sorted({fd for fd in keep_fds if fd >= 3})
    work = pickle.dumps((function, arguments, uid, kept, seconds, memory, os.getpid()))
    receive, send = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _program(), str(send)],
            stdin=subprocess.PIPE,
            pass_fds=[*kept, send],
        )
    except BaseException:
        os.close(receive)
        raise
    finally:
        os.close(send)
    with child, os.fdopen(receive, "rb") as pipe:
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin as requests:
                requests.write(work)
            answer = pipe.read(_RESULT_LIMIT + 1)
        except BaseException:
            child.kill()
            raise
    return _result(answer, child.returncode, getattr(function, "__name__", "function"))


def _program() -> str:
    """What finds modules where we found them, but never in a working directory."""
    paths = [_PARENT, *(path for path in sys.path if os.path.isabs(path))]
    return (
        f"import sys; sys.path[:] = {paths!r}; "
        "from clip_runc.linux.unprivileged import main; main(int(sys.argv[1]))"
    )


def main(send: int) -> NoReturn:
    """In the new process: what stdin asks for, its answer to ``send``."""
    # Only our own parent writes there, and its function is named by its module.
    work = pickle.load(sys.stdin.buffer)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    try:
        answer: dict[str, object] = {"result": _work(send, *work)}
    except errors.ClipError as error:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except BaseException as error:
        answer = {"error": "ClipError", "message": f"{type(error).__name__}: {error}", "hint": ""}
    try:
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(send, data) :]
    finally:
        os._exit(0)  # threads of the function end here


def _work(
    send: int,
    function: Callable[..., object],
    arguments: tuple[object, ...],
    uid: int,
    kept: list[int],
    seconds: int,
    memory: int,
    parent: int,
) -> object:
    drop_privileges(uid, keep_fds=[*kept, send], memory=memory)
    set_death_signal(signal.SIGKILL)  # setresuid() would have cleared it
    if os.getppid() != parent:
        os._exit(1)
    limit_cpu(seconds)
    return function(*arguments)


def _result(answer: bytes, status: int, name: str) -> object:
    try:
        value = json.loads(answer) if len(answer) <= _RESULT_LIMIT else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        raise errors.ClipError(
            f"{name} did not finish in its unprivileged process: {how}",
            "the input is damaged or made to deceive, or memory is short",
        )
    if "error" not in value:
        return value.get("result")
    kind = getattr(errors, str(value["error"]), errors.ClipError)
    if not (isinstance(kind, type) and issubclass(kind, errors.ClipError)):
        kind = errors.ClipError
    raise kind(str(value.get("message", "")), str(value.get("hint", "")))
