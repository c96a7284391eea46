"""Having an image indexed from the shim: a process of its own does it.

The shim has neither the time to import what indexing takes nor the wish to carry it into
runc.  Several containers that want the same image wait for one that makes the index.
"""

from __future__ import annotations

import os
import sys

from clip_runc import errors
from clip_runc.errors import ClipError, ConfigError, ImageNotIndexed, NotFound, NotTrusted
from clip_runc.images import absent, lean, local
from clip_runc.images.trust import trusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clip_runc.config import Settings
    from clip_runc.images.local import LocalImage

_ANSWER_LIMIT = 64 << 20


def build(
    settings: Settings,
    reference: str,
    progress: Callable[[str, int, int], None] | None = None,
    *,
    only_pull: bool = False,
) -> LocalImage:
    """Index ``reference`` into the local store, unless that has been done meanwhile.

    Where the configuration trusts the repository, an index beside the image is taken instead;
    with ``only_pull`` nothing else is, and ``NotFound`` says that there is none, for
    ``Settings.pull_retry`` seconds without asking again.  ``progress`` gets (layer digest, bytes
    done, bytes in all).  Raises what indexing raised.
    """
    from clip_runc.linux.files import lock, make_private_dir

    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(settings.lock_dir)
    name = lean.sha256_hex(reference.encode("utf-8", "surrogateescape"))
    with lock(f"{settings.lock_dir}/build-{name}"):
        image = local.find(settings, reference)
        if image is None:
            silent = progress or (lambda layer, done, total: None)
            if only_pull:
                _pull(settings, reference, silent)
            else:
                _run(settings, reference, "build", silent)
            image = local.find(settings, reference)
    if image is None:
        raise ImageNotIndexed(f"{reference} was indexed and is not found", "clipctl images")
    return image


def _pull(settings: Settings, reference: str, progress: Callable[[str, int, int], None]) -> None:
    ago = absent.seconds_ago(settings, reference)
    if ago is not None:
        raise NotFound(
            f"{reference}: no index beside the image, as of {ago} s ago",
            f"look again: clipctl pull {reference}",
        )
    if not settings.trusted_keys and not trusted(settings, local.normal_name(reference)):
        absent.note(settings, reference)
        _compare(settings, reference)
        raise NotFound(f"{reference}: what may lie beside the image is compared first")
    try:
        _run(settings, reference, "pull", progress)
    except ConfigError:
        raise
    except ClipError as error:
        absent.note(settings, reference)
        if settings.compare_untrusted and isinstance(error, NotTrusted):
            _compare(settings, reference)
        raise


def _compare(settings: Settings, reference: str) -> None:
    """Start ``images/comparing.py``, which outlives us; nobody waits for it."""
    from clip_runc.fs.start import command, environment, package_paths

    argv = command("images.comparing", settings, package_paths(), reference=reference)
    null = ("/dev/null", os.O_RDWR, 0)
    child = os.posix_spawn(
        argv[0],
        argv,
        environment(),
        file_actions=[(os.POSIX_SPAWN_OPEN, fd, *null) for fd in (0, 1, 2)],
    )
    os.waitpid(child, 0)  # it forks, and this one ends at once


def _run(
    settings: Settings, reference: str, how: str, progress: Callable[[str, int, int], None]
) -> None:
    from clip_runc.fs.start import environment

    receive, send = os.pipe()
    try:
        child = os.posix_spawn(
            sys.executable,
            _command(settings, reference, how),
            environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, send, 1),
            ],
        )
    finally:
        os.close(send)
    answered = False
    try:
        with open(receive, "rb") as lines:
            for line in lines:
                answered |= _take(line, progress)
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answered or status:
        raise ClipError(
            f"indexing {reference} ended without an answer (exit status {status})",
            f"try: clipctl index {reference}",
        )


def _command(settings: Settings, reference: str, how: str) -> list[str]:
    """Isolated, as the shim runs: nothing of the caller's environment or directory is imported."""
    from clip_runc.fs.start import differences, package_paths

    program = (
        f"import sys; sys.path += {package_paths()!r}; "
        "from clip_runc.images.make import main; main()"
    )
    values = lean.dumps(differences(settings)).decode()
    return [sys.executable, "-I", "-S", "-c", program, values, reference, how]


def _take(line: bytes, progress: Callable[[str, int, int], None]) -> bool:
    """One line of ``images/make.py``; True for the last.  Raises the error it tells of."""
    try:
        message = lean.loads_object(line[:_ANSWER_LIMIT])
    except ValueError:
        raise ClipError(f"indexing answered {line[:80]!r}") from None
    if "error" in message:
        raise error_of(message)
    step = message.get("progress")
    if isinstance(step, list) and len(step) == 3:
        progress(str(step[0]), int(step[1]), int(step[2]))
    return "result" in message


def error_of(message: dict[str, object]) -> ClipError:
    """The error that ``{"error": class, "message", "hint"}`` speaks of."""
    kind = getattr(errors, str(message.get("error")), ClipError)
    if not (isinstance(kind, type) and issubclass(kind, ClipError)):
        kind = ClipError
    return kind(str(message.get("message", "")), str(message.get("hint", "")))
