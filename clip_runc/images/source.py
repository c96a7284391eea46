"""Where the bytes of an index come from: its repository, with the credentials of this host."""

from __future__ import annotations

from dataclasses import dataclass

from clip_runc.config import Settings
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials, lookup
from clip_runc.registry.reference import Reference


@dataclass(frozen=True)
class Access:
    """All that it takes to connect to a repository; a value that another process can be given."""

    reference: Reference
    credentials: Credentials | None = None
    plain_http: bool = False
    hosts_dirs: tuple[str, ...] = ()

    def connect(self, *, patient: bool = True) -> Registry:
        """A client of its own; an impatient one tries twice and waits shortly."""
        return Registry(
            self.reference,
            attempts=6 if patient else 2,
            connect_timeout=10.0 if patient else 3.0,
            credentials=self.credentials,
            plain_http=self.plain_http,
            hosts_dirs=self.hosts_dirs,
        )


def access_to(settings: Settings, reference: Reference) -> Access:
    """How this host gets at the repository of ``reference``."""
    return Access(
        reference,
        lookup(reference.registry, reference.repository, settings.credentials_dir),
        reference.registry in settings.plain_http,
        settings.hosts_dirs,
    )


def registry_at(settings: Settings, reference: Reference) -> Registry:
    """A client for the repository of ``reference``."""
    return access_to(settings, reference).connect()


def access_of(settings: Settings, clip: ClipFile) -> Access:
    """How to get at the repository that ``clip`` was made from, at the image's digest."""
    return access_to(settings, Reference.parse(f"{clip.source}@{clip.manifest_digest}"))
