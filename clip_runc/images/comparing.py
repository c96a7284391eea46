"""An index that nobody vouches for, compared with one that is made here, in the background.

Indexes are deterministic, so the comparison says whether its pusher told the truth.  If it is the
same it is used from then on, with the prefetch lists that it may have; if not, the one made here
is, and what differs is logged.  Either way the image is known then, and nobody asks again.

``images/request.py`` starts it as a process of its own (``Settings.compare_untrusted``) that
belongs to nobody: it leaves the session, the cgroup and the descriptors of the container's start.
"""

from __future__ import annotations

import logging
import os

from clip_runc import log as logs
from clip_runc.config import Settings
from clip_runc.errors import ClipError, IndexFormatError, NotFound
from clip_runc.fs.daemon import detach
from clip_runc.images import lean, local
from clip_runc.images.make import index_image
from clip_runc.images.pull import fetched, keep
from clip_runc.images.rebuild import compare
from clip_runc.index.clip_diff import spacing
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.cgroups import leave
from clip_runc.linux.files import lock
from clip_runc.linux.unprivileged import run_unprivileged
from clip_runc.registry.reference import Reference

log = logging.getLogger(__name__)
_NICE = 19
_TOLD = 5


def run(settings: Settings, paths: list[str], reference: str) -> None:
    """The process: detach, do it once at a time, tell clipd's log and the events."""
    detach(settings, [])
    os.umask(0o022)
    logs.configure(settings.log_level, as_json=settings.log_format == "json")
    logs.note_events(settings)
    leave()
    os.nice(_NICE)
    name = lean.sha256_hex(reference.encode("utf-8", "surrogateescape"))
    try:
        with lock(f"{settings.lock_dir}/compare-{name}", wait=False):
            adopt(settings, reference)
    except BlockingIOError:
        return
    except NotFound as error:
        log.info("%s", error.message)
    except ClipError as error:
        log.warning("%s: its index could not be compared: %s", reference, error)


def adopt(settings: Settings, reference: str) -> list[str]:
    """Compare the index beside ``reference`` and keep it, or the one made here; what differs.

    Raises ``NotFound`` where there is none, and what fetching and indexing raise.
    """
    if local.find(settings, reference) is not None:
        return []
    named = Reference.parse(reference)
    with fetched(settings, named) as (found, fd):
        shape = run_unprivileged(settings.server_uid, shape_of, fd, keep_fds=[fd])
        if not isinstance(shape, list):
            raise IndexFormatError(f"{named}: the index beside it has no shape")
        exact = str(named.with_digest(found["digest"]))
        made = index_image(settings, exact, checkpoint_mib=int(shape[0]), published=bool(shape[1]))
        with open(made.path, "rb") as own:
            differences = compare(settings, fd, own.fileno())
            chosen = own.fileno() if differences else fd
            keep(settings, reference, found, chosen, unasked=True)
    fields = {"event": "index-compared", "image": reference, "artifact": found["artifact"]}
    if differences:
        text = "%s: the index beside it (%s) is not what its image makes, and is not used: %s"
        told = "; ".join(differences[:_TOLD])
        log.warning(text, reference, found["artifact"], told, extra={"fields": fields})
    else:
        text = "%s: the index beside it (%s) is what its image makes, and is used from now on"
        log.info(text, reference, found["artifact"], extra={"fields": fields})
    return differences


def shape_of(fd: int) -> list[int]:
    """What the index has to be made with to be the same, in the process without privileges."""
    with ClipFile.open(fd) as given:
        return [spacing(given), any(layer.origin for layer in given.layers)]
