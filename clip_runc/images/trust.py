"""Which indexes beside images are believed: ``Settings.trusted_registries``, ``trusted_keys``.

An artifact that refers to an image is named by nobody but whoever pushed it.  The chunk hashes
of an index say what a file's bytes are, so its maker decides what the container sees.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings


def trusted(settings: Settings, name: str) -> bool:
    """Whether an index found beside the image in ``name`` (``host[:port]/repository``) may be used.

    An entry is a prefix by components; one whose host has no port stands for every port.
    """
    host, _, path = name.partition("/")
    plain = host.rpartition(":")[0] if _has_port(host) else host
    names = (f"{host}/{path}/", f"{plain}/{path}/")
    return any(
        wanted and any(one.startswith(f"{wanted}/") for one in names)
        for wanted in (entry.rstrip("/") for entry in settings.trusted_registries)
    )


def may_pull(settings: Settings, name: str) -> bool:
    """Whether there is any use in looking for an index beside the image in ``name``."""
    return bool(settings.trusted_keys) or settings.compare_untrusted or trusted(settings, name)


def _has_port(host: str) -> bool:
    before, _, port = host.rpartition(":")
    return bool(before) and port.isdigit()
