"""The server's part of fetching in the background: one image at a time, so that the rate is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from clip_runc.store import ChunkStore, LayerReader
from clip_runc.store.completion import Completion


class Background:
    """At most one image whose missing chunks are fetched at ``rate``."""

    def __init__(self, store: ChunkStore, rate: int) -> None:
        self._store = store
        self._rate = rate
        self._lock = threading.Lock()
        self._image = ""
        self._running: Completion | None = None
        self._past = 0

    def begin(
        self, image: str, readers: Sequence[LayerReader], done: Callable[[int], None]
    ) -> None:
        """Complete ``image``, and nothing else any more; ``done`` gets what is left at the end."""

        def ended(completion: Completion) -> None:
            self._forget(completion)
            done(completion.left())

        self._stop()
        with self._lock:
            self._image = image
            self._running = Completion(readers, self._rate, self._store.quiet, ended)
            self._running.start()

    def end(self, image: str) -> None:
        """Stop, if it is ``image`` that is being completed."""
        if self._image == image:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            if self._running is not None:
                self._running.stop()

    def _forget(self, completion: Completion) -> None:
        with self._lock:
            self._past += completion.bytes
            if self._running is completion:
                self._running, self._image = None, ""

    def status(self) -> dict[str, object]:
        """The image (its manifest's digits, or nothing), and bytes asked for since the start."""
        with self._lock:
            now = self._running.bytes if self._running is not None else 0
            return {"image": self._image, "bytes": self._past + now}
