"""The supervisor's part of prefetching: it ends with the container that it was for.

The server is told to begin and answers when all that is listed is here.  Until then the
container's lease is looked at twice a second: whoever deletes a container has to tell nobody.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.config import Settings
    from clip_runc.fs import protocol
    from clip_runc.fs.images import Images
    from clip_runc.fs.loop import Loop

LOOK_SECONDS = 0.5


class Replays:
    """Which container's list is being fetched: its lease, and of which image that is."""

    def __init__(self, loop: Loop, images: Images, settings: Settings) -> None:
        self._loop = loop
        self._images = images
        self._settings = settings
        self._running: dict[str, str] = {}

    def begin(self, image: str, message: protocol.Message) -> None:
        """Have the server fetch for ``message["command"]``, where a client named one."""
        command, lease = message.get("command"), message.get("lease")
        wanted = self._settings.prefetch and isinstance(command, list) and command
        if not wanted or not isinstance(lease, str) or not lease or "/" in lease:
            return
        if not self._running:
            self._loop.later(LOOK_SECONDS, self._look)
        self._running[lease] = image
        self._images.ask(
            {"op": "prefetch", "image": image, "command": command, "lease": lease},
            lambda answer: self._ended(lease),
        )

    def _ended(self, lease: str) -> None:
        self._running.pop(lease, None)

    def _look(self) -> None:
        for lease, image in list(self._running.items()):
            if not os.path.lexists(f"{self._settings.lease_dir}/{image}/{lease}"):
                self._images.ask({"op": "prefetch-stop", "lease": lease}, lambda answer: None)
        if self._running:
            self._loop.later(LOOK_SECONDS, self._look)
