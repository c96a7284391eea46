"""Images beside which no index was found: not asked for again for a while.

A repository that is trusted and has no indexes would otherwise cost every container of it a
process and some requests, and a registry that does not answer its patience.
"""

from __future__ import annotations

import os
import time

from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings

_MANY = 1024


def seconds_ago(settings: Settings, reference: str) -> int | None:
    """How long ago none was found, if that was less than ``Settings.pull_retry`` seconds ago."""
    try:
        age = time.time() - os.stat(_path(settings, reference)).st_mtime
    except OSError:
        return None
    return int(age) if 0 <= age < settings.pull_retry else None


def note(settings: Settings, reference: str) -> None:
    """None was found now."""
    from clip_runc.linux.files import make_private_dir

    if not settings.pull_retry:
        return
    directory = f"{settings.run_dir}/absent"
    make_private_dir(settings.run_dir, 0o711)
    make_private_dir(directory)
    names = os.listdir(directory)
    if len(names) >= _MANY:
        for name in names:
            os.unlink(f"{directory}/{name}")
    fd = os.open(_path(settings, reference), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.utime(fd)
    os.close(fd)


def _path(settings: Settings, reference: str) -> str:
    # whoever changes what is trusted wants to see it at once
    believed = [*settings.trusted_registries, "", *settings.trusted_keys, ""]
    text = "\n".join([reference, *believed, str(settings.compare_untrusted)])
    name = lean.sha256_hex(text.encode("utf-8", "surrogateescape"))
    return f"{settings.run_dir}/absent/{name}"
