"""Where the bytes of an attached image come from: its repository, named by the index.

Nothing is asked of the network before the first read that needs it.  Credentials come from
the supervisor, when they are wanted and again when the registry takes them no longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.reference import Reference

# Until the read's deadline rather than so many times: a registry that is restarted takes longer
# than a handful of attempts.
_ATTEMPTS = 100

Ask = Callable[[str, str], "Credentials | None"]


class Source:
    """The fetcher of one repository (``host/repository``); thread-safe."""

    def __init__(
        self,
        name: str,
        ask: Ask,
        plain_http: tuple[str, ...],
        timeout: float,
        hosts_dirs: tuple[str, ...] = (),
    ) -> None:
        """``ask(registry, repository)`` blocks; it is called in threads that fetch."""
        self.reference = Reference.parse(name)
        self._ask = ask
        self._plain_http = self.reference.registry in plain_http
        self._timeout = timeout
        self._hosts_dirs = hosts_dirs
        self._lock = threading.Lock()
        self._registry: Registry | None = None

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        """Bytes ``[start, end)`` of a blob."""
        return self._connected().read_range(digest, start, end, deadline=deadline)

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        """A blob from ``start`` on."""
        return self._connected().stream(digest, size, start)

    def _connected(self) -> Registry:
        with self._lock:
            if self._registry is None:
                self._registry = Registry(
                    self.reference,
                    credentials=self._credentials(),
                    plain_http=self._plain_http,
                    timeout=self._timeout,
                    attempts=_ATTEMPTS,
                    renew_credentials=self._credentials,
                    hosts_dirs=self._hosts_dirs,
                )
            return self._registry

    def _credentials(self) -> Credentials | None:
        return self._ask(self.reference.registry, self.reference.repository)


class Sources:
    """One ``Source`` a repository, shared by the images that come from it."""

    def __init__(
        self,
        ask: Ask,
        plain_http: tuple[str, ...],
        timeout: float,
        hosts_dirs: tuple[str, ...] = (),
    ) -> None:
        self._make = partial(
            Source, ask=ask, plain_http=plain_http, timeout=timeout, hosts_dirs=hosts_dirs
        )
        self._known: dict[str, Source] = {}

    def get(self, name: str) -> Source:
        """The source of ``host/repository``.  Raises ``InvalidReference``."""
        if name not in self._known:
            self._known[name] = self._make(name)
        return self._known[name]
