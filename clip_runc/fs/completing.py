"""The supervisor's part of fetching in the background: which image, and until when.

An image is completed while a container has a lease of it; whoever starts or deletes containers has
to tell nobody.  One image at a time, in the order of their coming; one of which something could
not be had comes again after a while.
"""

from __future__ import annotations

import time
from functools import partial

from clip_runc.fs.linger import has_lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger

    from clip_runc.config import Settings
    from clip_runc.fs import protocol
    from clip_runc.fs.images import Images
    from clip_runc.fs.loop import Loop

LOOK_SECONDS = 2.0
RETRY_SECONDS = 60.0


class Completing:
    """Looks at the leases of images that lack something, and only while there are any."""

    def __init__(self, loop: Loop, images: Images, settings: Settings, log: Logger) -> None:
        self._loop = loop
        self._images = images
        self._settings = settings
        self._log = log
        self._lacking: dict[str, float] = {}  # since when it may be tried
        self._running = ""
        self._looking = False
        for name in images.names():
            self.begin(name, {})

    def begin(self, image: str, message: protocol.Message) -> None:
        """An image is attached, which may lack something."""
        if not self._settings.background_fetch:
            return
        self._lacking.setdefault(image, 0.0)
        if not self._looking:
            self._looking = True
            self._loop.later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        known = set(self._images.names())
        self._lacking = {name: at for name, at in self._lacking.items() if name in known}
        if self._running and not has_lease(self._settings, self._running):
            self._images.ask({"op": "complete-stop", "image": self._running}, _ignore)
        elif not self._running:
            self._begin()
        self._looking = bool(self._lacking or self._running)
        if self._looking:
            self._loop.later(LOOK_SECONDS, self._look)

    def _begin(self) -> None:
        now = time.monotonic()
        for image, at in self._lacking.items():
            if at <= now and has_lease(self._settings, image):
                self._running = image
                message: protocol.Message = {"op": "complete", "image": image}
                self._images.ask(message, partial(self._ended, image))
                return

    def _ended(self, image: str, answer: protocol.Message) -> None:
        self._running = ""
        if answer.get("left") == 0:
            self._lacking.pop(image, None)
            event = {"event": "image-complete", "image": image}
            text = "image %s is complete on this machine"
            self._log.info(text, image, extra={"fields": event})
        elif image in self._lacking:
            stopped = not has_lease(self._settings, image)
            self._lacking[image] = 0.0 if stopped else time.monotonic() + RETRY_SECONDS


def _ignore(answer: protocol.Message) -> None:
    return None
