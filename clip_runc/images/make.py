"""Making an index of an image straight from its registry.

A process of root looks up the credentials and opens the files; a forked child without
privileges fetches, inflates and parses, and writes through the descriptor that it was given.
Only a whole index is ever seen at the output path.

As a program (``python -m clip_runc.images.make SETTINGS REFERENCE``; ``images/request.py`` runs
it) it indexes into the local store and speaks JSON lines: ``{"progress": [layer, done, total]}``
again and again, then ``{"result": …}`` or ``{"error": class, "message", "hint"}``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import NoReturn

from clip_runc.config import Settings
from clip_runc.errors import ClipError, StoreError
from clip_runc.images import local
from clip_runc.images.request import error_of
from clip_runc.linux.files import make_private_dir
from clip_runc.linux.privileges import drop_privileges, set_death_signal
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.credentials import load as load_credentials
from clip_runc.registry.reference import Reference

Progress = Callable[[str, int, int], None]

_PROGRESS_SECONDS = 0.1


@dataclass(frozen=True)
class IndexResult:
    """An index that was made: of what, where it is, and what it took.

    ``compressed`` and ``raw`` are the sizes of all layers, ``fetched`` what came over the wire,
    ``size`` the index, all in bytes; ``digest`` the manifest's, ``pinned`` the one that the
    reference stood for (of the multi-platform index, where there is one).
    """

    reference: str
    digest: str
    pinned: str
    platform: str
    path: str
    layers: int
    compressed: int
    raw: int
    fetched: int
    size: int
    seconds: float
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def index_image(
    settings: Settings,
    reference: str,
    output: str | None = None,
    *,
    platform: str | None = None,
    checkpoint_mib: int = 2,
    store: bool = True,
    progress: Progress | None = None,
) -> IndexResult:
    """Index the image that ``reference`` names in its registry.

    The index goes to the file ``output``, if that is given, and into the local store unless
    ``store`` is False.  ``platform`` is ``os/architecture[/variant]``, by default this machine's.
    ``progress`` gets (layer digest, bytes done, bytes in all).  Fork-safe only while this process
    has no threads.  Raises ``InvalidReference``, ``RegistryError``, ``LayerFormatError``,
    ``DigestMismatch``, ``StoreError``; no file is left behind then.
    """
    named = Reference.parse(reference)
    if output is None and not store:
        raise StoreError("neither an output file nor the local store", "the index would be lost")
    started = time.monotonic()
    with _destination(settings, output) as (path, fd):
        found = _build(settings, named, fd, platform, checkpoint_mib, progress)
        _finish(path, fd, output)
        size = os.fstat(fd).st_size
        kept = output or path
        if store:
            names = [reference, str(named), *_pinned_names(named, found)]
            kept = output or local.at(settings, str(found["digest"])[7:]).index_path
            local.add_open(settings, fd, output or reference, list(dict.fromkeys(names)))
    return IndexResult(
        reference=str(named),
        digest=str(found["digest"]),
        pinned=str(found["pinned"]),
        platform=str(found["platform"]),
        path=kept,
        layers=_number(found["layers"]),
        compressed=_number(found["compressed"]),
        raw=_number(found["raw"]),
        fetched=_number(found["fetched"]),
        size=size,
        seconds=time.monotonic() - started,
        warnings=_texts(found["warnings"]),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(x) for x in value) if isinstance(value, list) else ()


def _pinned_names(named: Reference, found: dict[str, object]) -> list[str]:
    return [f"{named.name}@{found['digest']}", f"{named.name}@{found['pinned']}"]


@contextlib.contextmanager
def _destination(settings: Settings, output: str | None) -> Iterator[tuple[str, int]]:
    """A new file beside where the index shall be; gone at the end unless it was renamed."""
    if output is None:
        directory = settings.index_dir
        make_private_dir(settings.state_dir, 0o755)
        make_private_dir(directory, 0o755)
    else:
        directory = os.path.dirname(output) or "."
    try:
        fd, path = tempfile.mkstemp(suffix=".new", prefix=".clip-", dir=directory)
    except OSError as error:
        raise StoreError(
            f"{directory}: cannot write an index there: {error.strerror}", "choose another output"
        ) from None
    try:
        yield path, fd
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _finish(path: str, fd: int, output: str | None) -> None:
    try:
        os.fchmod(fd, 0o644)
        os.fsync(fd)
        if output is not None:
            os.rename(path, output)
    except OSError as error:
        raise StoreError(f"{output or path}: {error.strerror}", "choose another output") from None


def _build(
    settings: Settings,
    named: Reference,
    out_fd: int,
    platform: str | None,
    checkpoint_mib: int,
    progress: Progress | None,
) -> dict[str, object]:
    """Fork the child that does the work, pass its progress on, and give its answer."""
    _preload()
    credentials = load_credentials().find(named.registry, named.repository)
    cache = _cache_directory(settings)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        _child(settings, named, credentials, (out_fd, cache, send), platform, checkpoint_mib)
    os.close(send)
    os.close(cache)
    try:
        with open(receive, "rb") as lines:
            answer = _listen(lines, progress)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if answer is None:
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        hint = "the image is damaged or made to deceive, or memory is short"
        raise ClipError(f"{named}: indexing did not finish: {how}", hint)
    return answer


def _preload() -> None:
    """Import what the child needs: without privileges it may be unable to read the package."""
    import encodings.idna  # noqa: F401  # for host names

    import zstandard  # noqa: F401

    import clip_runc.images.build
    import clip_runc.registry.client  # noqa: F401


def _cache_directory(settings: Settings) -> int:
    """Where results of layers are kept and blobs are spooled, open; the child owns it.

    An ordinary user who cannot write there gets a directory that lasts as long as the work.
    """
    root = os.geteuid() == 0
    owner = (settings.server_uid, settings.server_uid) if root else None
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        make_private_dir(settings.layer_index_dir, 0o700, owner)
        return os.open(settings.layer_index_dir, flags)
    except (OSError, StoreError):
        if root:
            raise
    place = "/var/tmp" if "TMPDIR" not in os.environ else None
    temporary = tempfile.mkdtemp(prefix="clip-index-", dir=place)
    try:
        return os.open(temporary, flags)
    finally:
        _spare(temporary)


def _spare(temporary: str) -> None:
    """Remove the temporary directory when this process ends."""
    import atexit
    import shutil

    atexit.register(shutil.rmtree, temporary, ignore_errors=True)


def _listen(lines: Iterator[bytes], progress: Progress | None) -> dict[str, object] | None:
    for line in lines:
        message = json.loads(line)
        if "error" in message:
            raise error_of(message)
        if "result" in message:
            result = message["result"]
            return result if isinstance(result, dict) else None
        if progress is not None and "progress" in message:
            layer, done, total = message["progress"]
            progress(str(layer), int(done), int(total))
    return None


def _child(
    settings: Settings,
    named: Reference,
    credentials: Credentials | None,
    fds: tuple[int, int, int],
    platform: str | None,
    checkpoint_mib: int,
) -> NoReturn:
    """The process without privileges.  Leaves by ``_exit``: the stack belongs to the parent."""
    status = 0
    try:
        set_death_signal(signal.SIGKILL)
        drop_privileges(settings.server_uid, keep_fds=fds)
        set_death_signal(signal.SIGKILL)  # setresuid() has cleared it
        answer = _work(settings, named, credentials, fds, platform, checkpoint_mib)
    except ClipError as error:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except OSError as error:
        answer = _os_error(named, error)
    except BaseException as error:
        answer = {"error": "ClipError", "message": f"{type(error).__name__}: {error}", "hint": ""}
    try:
        _tell(fds[2], answer)
    except OSError:
        status = 1
    finally:
        os._exit(status)


def _os_error(named: Reference, error: OSError) -> dict[str, object]:
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    message = f"{named}: the index cannot be written: {error.strerror or error}"
    return {"error": "StoreError", "message": message, "hint": hint}


def _tell(fd: int, message: dict[str, object]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def _work(
    settings: Settings,
    named: Reference,
    credentials: Credentials | None,
    fds: tuple[int, int, int],
    platform: str | None,
    checkpoint_mib: int,
) -> dict[str, object]:
    from clip_runc.images.build import build_index
    from clip_runc.registry.client import Registry

    out_fd, cache, send = fds
    plain_http = named.registry in settings.plain_http
    with Registry(named, credentials=credentials, plain_http=plain_http) as registry:
        pinned = registry.manifest()[2]
    exact = named.with_digest(pinned)
    with (
        Registry(exact, credentials=credentials, plain_http=plain_http) as registry,
        open(out_fd, "wb", closefd=False) as out,
    ):
        image = registry.resolve(platform)
        result = build_index(
            image,
            out,
            temporary_fd=cache,
            cache_fd=cache,
            checkpoint_mib=checkpoint_mib,
            progress=_sender(send),
        )
    return {
        "result": {
            "digest": result.manifest_digest,
            "pinned": pinned,
            "platform": result.platform,
            "layers": len(result.layers),
            "compressed": sum(layer.comp_size for layer in result.layers),
            "raw": sum(layer.raw_size for layer in result.layers),
            "fetched": result.fetched,
            "warnings": list(result.warnings),
        }
    }


def _sender(send: int) -> Progress:
    """Progress down the pipe: ten times a second a layer, and its end."""
    last: dict[str, float] = {}

    def report(layer: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(layer, 0.0) >= _PROGRESS_SECONDS:
            last[layer] = now
            _tell(send, {"progress": [layer, done, total]})

    return report


def main() -> NoReturn:
    """``SETTINGS`` (a JSON object) and ``REFERENCE``; see the module's docstring."""
    # Progress goes out through the descriptor: runc's console must not get a stray line.
    send = os.dup(1)
    os.dup2(2, 1)
    try:
        settings = Settings(**json.loads(sys.argv[1]))

        def progress(layer: str, done: int, total: int) -> None:
            _tell(send, {"progress": [layer, done, total]})

        result = index_image(settings, sys.argv[2], progress=progress)
        _tell(send, {"result": result.as_dict()})
    except ClipError as error:
        text = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        _tell(send, dict(text))
    sys.exit(0)


if __name__ == "__main__":
    main()
