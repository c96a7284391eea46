"""Making an index of an image straight from its registry.

This side looks up the credentials and opens the files; ``images/builder.py``, a process without
privileges, fetches, inflates and parses, and writes through the descriptor that it was given.
It is started anew and not forked, for programs that have threads.  Only a whole index is ever
seen at the output path.

As a program (``python -m clip_runc.images.make SETTINGS REFERENCE``; ``images/request.py`` runs
it) it indexes into the local store and speaks JSON lines: ``{"progress": [layer, done, total]}``
again and again, then ``{"result": …}`` or ``{"error": class, "message", "hint"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NoReturn

from clip_runc.config import Settings, is_personal
from clip_runc.errors import ClipError, StoreError
from clip_runc.fs.start import differences, environment, package_paths
from clip_runc.images import adding, local
from clip_runc.images.builder import tell
from clip_runc.images.request import error_of
from clip_runc.images.strays import new_index
from clip_runc.images.trust import trusted
from clip_runc.linux.files import make_private_dir
from clip_runc.linux.privileges import attainable
from clip_runc.linux.storage import refuse_unsuitable
from clip_runc.registry.credentials import lookup
from clip_runc.registry.reference import Reference

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class IndexResult:
    """An index that was made: of what, where it is, and what it took.

    ``compressed`` and ``raw`` are the sizes of all layers, ``fetched`` what came over the wire,
    ``kept`` what of ``raw`` lies in the store now, ``size`` the index, all in bytes; ``digest`` the
    manifest's, ``pinned`` the one that the reference stood for (of the multi-platform index, where
    there is one).
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
    kept: int = 0
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
    reuse: bool = True,
    keep: bool = False,
    published: bool = False,
    progress: Progress | None = None,
) -> IndexResult:
    """Index the image that ``reference`` names in its registry.

    The index goes to the file ``output``, if that is given, and into the local store unless
    ``store`` is False.  ``platform`` is ``os/architecture[/variant]``, by default this machine's.
    Without ``reuse`` every layer is fetched and nothing that was learnt before is believed.
    With ``keep`` (root's alone) the bytes of the layers that are fetched go to the store that clipd
    reads from.  ``published``: tables of contents that others made are fetched where there are any,
    instead of the layers.  ``progress`` gets (layer digest, bytes done, bytes in all).  Raises
    ``InvalidReference``, ``RegistryError``, ``LayerFormatError``, ``DigestMismatch``,
    ``StoreError``; no file is left behind then.
    """
    named = Reference.parse(reference)
    if output is None and not store:
        raise StoreError("neither an output file nor the local store", "the index would be lost")
    started = time.monotonic()
    with _destination(settings, output) as (path, fd):
        asked = {
            "platform": platform,
            "checkpoint_mib": checkpoint_mib,
            "reuse": reuse,
            "published": published,
        }
        found = _build(settings, named, fd, asked, progress, keep=keep)
        _finish(path, fd, output)
        size = os.fstat(fd).st_size
        kept = output or path
        if store:
            names = [reference, str(named), *_pinned_names(named, found)]
            kept = output or local.at(settings, str(found["digest"])[7:]).index_path
            adding.add_open(settings, fd, output or reference, names, unasked=platform is None)
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
        kept=_number(found["kept"]),
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
        fd, path = new_index(directory)
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
    asked: Mapping[str, object],
    progress: Progress | None,
    *,
    keep: bool,
) -> dict[str, object]:
    """Run ``images/builder.py``, pass its progress on, and give its answer."""
    credentials = lookup(named.registry, named.repository, settings.credentials_dir)
    store = _store_directory(settings) if keep and os.geteuid() == 0 else None
    cache = _cache_directory(settings)
    request: dict[str, object] = {
        "settings": differences(settings),
        "reference": str(named),
        "credentials": credentials.to_dict() if credentials else None,
        "out": out_fd,
        "cache": cache,
        "store": store,
        **asked,
    }
    fds = [fd for fd in (out_fd, cache, store) if fd is not None]
    try:
        return _run(named, request, fds, progress)
    finally:
        for fd in fds[1:]:
            os.close(fd)


def _run(
    named: Reference, request: dict[str, object], fds: Sequence[int], progress: Progress | None
) -> dict[str, object]:
    program = (
        f"import sys; sys.path += {package_paths()!r}; "
        "from clip_runc.images.builder import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        env=environment(),
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
                pipe.write(json.dumps(request).encode())
            answer = _listen(child.stdout, progress)
        except BaseException:
            child.kill()
            raise
    if answer is None:
        status = child.returncode
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        hint = "the image is damaged or made to deceive, or memory is short"
        raise ClipError(f"{named}: indexing did not finish: {how}", hint)
    return answer


def _cache_directory(settings: Settings) -> int:
    """Where results of layers are kept, open; the child owns it.

    An ordinary user who cannot write there, or did it in a user namespace of other ids, gets a
    directory that lasts as long as the work.
    """
    owner = attainable(settings.server_uid)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        make_private_dir(settings.layer_index_dir, 0o700, (owner, owner))
        return os.open(settings.layer_index_dir, flags)
    except (OSError, StoreError):
        if not is_personal():
            raise
    place = "/var/tmp" if "TMPDIR" not in os.environ else None
    temporary = tempfile.mkdtemp(prefix="clip-index-", dir=place)
    try:
        return os.open(temporary, flags)
    finally:
        _spare(temporary)


def _store_directory(settings: Settings) -> int:
    """The store, open; it belongs to the processes without privileges."""
    refuse_unsuitable(settings.state_dir)
    make_private_dir(settings.state_dir, 0o755)
    owner = attainable(settings.server_uid)
    make_private_dir(settings.store_dir, 0o700, (owner, owner))
    return os.open(settings.store_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


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


def _beside(settings: Settings, reference: str, *, only: bool) -> dict[str, object] | None:
    """What a registry has of an index that is trusted; None to make one."""
    believed = settings.trusted_keys or trusted(settings, Reference.parse(reference).name)
    if not only and not believed:
        return None
    from clip_runc.images.pull import pull_index

    try:
        return pull_index(settings, reference, patient=False).as_dict()
    except ClipError:
        if only:
            raise
        return None  # what is wrong with the registry, indexing will say


def main() -> NoReturn:
    """``SETTINGS`` (a JSON object), ``REFERENCE`` and ``build`` or ``pull``.

    See the module's docstring.  An index beside the image is taken where the repository is
    trusted, or a key that signed it; with ``pull`` nothing else is.
    """
    # Progress goes out through the descriptor: runc's console must not get a stray line.
    send = os.dup(1)
    os.dup2(2, 1)
    try:
        settings = Settings(**json.loads(sys.argv[1]))

        def progress(layer: str, done: int, total: int) -> None:
            tell(send, {"progress": [layer, done, total]})

        found = _beside(settings, sys.argv[2], only=sys.argv[3] == "pull")
        if found is None:
            found = index_image(settings, sys.argv[2], keep=True, progress=progress).as_dict()
        tell(send, {"result": found})
    except ClipError as error:
        text = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        tell(send, dict(text))
    sys.exit(0)


if __name__ == "__main__":
    main()
