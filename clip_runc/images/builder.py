"""The process without privileges that makes an index; ``images/make.py`` starts it.

It gets one JSON object on stdin (credentials among it, which therefore are in no argv and no
environment), the descriptors of the output, of the directory for cached layers and, where the
decoded bytes shall be kept, of the store, and answers
with JSON lines on stdout.  Everything is imported before privileges are dropped: after that
the package may be unreadable.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from clip_runc.config import Settings
from clip_runc.errors import ClipError

_PROGRESS_SECONDS = 0.1


def main() -> NoReturn:
    """Do what stdin asks for and tell of it on stdout."""
    # A million files are millions of objects that all stay: looking for cycles among them again
    # and again takes longer than making them, and this process ends with its work.
    gc.disable()
    send = os.dup(1)
    os.dup2(2, 1)  # nothing but messages may get into the pipe
    request = json.load(sys.stdin)
    settings = Settings(**request["settings"])
    _preload()
    try:
        store = () if request["store"] is None else (request["store"],)
        _drop(settings, (request["out"], request["cache"], send, *store))
        answer: dict[str, object] = {"result": _work(settings, request, send)}
    except ClipError as error:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except OSError as error:
        answer = _os_error(request["reference"], error)
    except MemoryError:
        answer = {"error": "ClipError", "message": f"{request['reference']}: out of memory"}
    try:
        tell(send, answer)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)


def _preload() -> None:
    import encodings.idna  # noqa: F401  # for host names

    import zstandard  # noqa: F401

    import clip_runc.images.build
    import clip_runc.images.source
    import clip_runc.images.trust
    import clip_runc.linux.files
    import clip_runc.linux.privileges
    import clip_runc.store.adopt  # noqa: F401
    from clip_runc.linux import inflaters

    inflaters.gzip_inflater()


def _drop(settings: Settings, fds: tuple[int, ...]) -> None:
    from clip_runc.linux.privileges import drop_privileges, set_death_signal, set_name

    parent = os.getppid()
    drop_privileges(settings.server_uid, keep_fds=fds)
    set_death_signal(signal.SIGKILL)  # setresuid() would have cleared it
    if os.getppid() != parent:
        sys.exit(1)
    set_name("clip-index")


def _os_error(reference: str, error: OSError) -> dict[str, object]:
    hint = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    message = f"{reference}: the index cannot be written: {error.strerror or error}"
    return {"error": "StoreError", "message": message, "hint": hint}


def tell(fd: int, message: dict[str, object]) -> None:
    """Write one line, in one piece: several threads report progress."""
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def _work(settings: Settings, request: dict[str, Any], send: int) -> dict[str, object]:
    """Resolve the reference once, then index exactly what it stood for."""
    from dataclasses import replace

    from clip_runc.images.build import build_index
    from clip_runc.images.source import Access
    from clip_runc.images.trust import trusted
    from clip_runc.linux.files import boot_id
    from clip_runc.registry.credentials import Credentials
    from clip_runc.registry.reference import Reference
    from clip_runc.store.adopt import Adoption

    store = request["store"]
    keep = None if store is None else Adoption(store, boot_id(), settings.store_limit)
    named = Reference.parse(request["reference"])
    given = request["credentials"]
    credentials = Credentials.from_dict(given) if given else None
    plain_http = named.registry in settings.plain_http
    access = Access(named, credentials, plain_http, settings.hosts_dirs)
    with access.connect() as registry:
        pinned = registry.manifest()[2]
    with (
        replace(access, reference=named.with_digest(pinned)).connect() as registry,
        open(request["out"], "wb", closefd=False) as out,
    ):
        result = build_index(
            registry.resolve(request["platform"]),
            out,
            cache_fd=request["cache"] if request["reuse"] else None,
            layer_size_limit=settings.layer_size_limit,
            checkpoint_mib=request["checkpoint_mib"],
            keep=keep,
            progress=_sender(send),
            published=request["published"],
            referrers=trusted(settings, named.name),
        )
    return {
        "digest": result.manifest_digest,
        "pinned": pinned,
        "platform": result.platform,
        "layers": len(result.layers),
        "compressed": sum(layer.comp_size for layer in result.layers),
        "raw": sum(layer.raw_size for layer in result.layers),
        "fetched": result.fetched,
        "kept": keep.kept if keep is not None else 0,
        "warnings": list(result.warnings),
    }


def _sender(send: int) -> Callable[[str, int, int], None]:
    """Progress down the pipe: ten times a second a layer, and its end."""
    last: dict[str, float] = {}

    def report(layer: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(layer, 0.0) >= _PROGRESS_SECONDS:
            last[layer] = now
            tell(send, {"progress": [layer, done, total]})

    return report
