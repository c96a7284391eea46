"""Where the bytes of an index come from: its repository, with the credentials of this host."""

from __future__ import annotations

from clip_runc.config import Settings
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import lookup
from clip_runc.registry.reference import Reference


def registry_at(settings: Settings, reference: Reference) -> Registry:
    """A client for the repository of ``reference``."""
    return Registry(
        reference,
        credentials=lookup(reference.registry, reference.repository),
        plain_http=reference.registry in settings.plain_http,
    )


def registry_of(settings: Settings, clip: ClipFile) -> Registry:
    """A client for the repository that ``clip`` was made from, at the image's digest."""
    return registry_at(settings, Reference.parse(f"{clip.source}@{clip.manifest_digest}"))
