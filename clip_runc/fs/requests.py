"""What clients ask of clipd: images attached, seen, detached, and how it is."""

from __future__ import annotations

import os

from clip_runc import __version__
from clip_runc.errors import ServerError
from clip_runc.fs import linger

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from clip_runc.config import Settings
    from clip_runc.fs import protocol
    from clip_runc.fs.clients import Connection
    from clip_runc.fs.images import Images
    from clip_runc.fs.keeping import Keeping
    from clip_runc.fs.loop import Loop
    from clip_runc.fs.server_process import ServerProcess
    from clip_runc.fs.state import State

    Handler = Callable[[Connection, protocol.Message], None]
    Attached = Callable[[str, protocol.Message], None]

_STATUS_SECONDS = 2.0


class Requests:
    """``handle`` is for ``Clients``; ``others`` are requests that somebody else answers.

    ``on_attach`` hear of each image that is attached, and of the request.
    """

    def __init__(
        self,
        loop: Loop,
        settings: Settings,
        state: State,
        server: ServerProcess,
        images: Images,
        on_attach: Sequence[Attached],
        keeping: Keeping,
        others: Mapping[str, Handler],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._state = state
        self._server = server
        self._images = images
        self._on_attach = on_attach
        self._keeping = keeping
        self._handlers: dict[str, Handler] = {
            "attach": self._attach,
            "detach": self._detach,
            "trace": self._forward,
            "status": self._status,
            **others,
        }

    def handle(self, connection: Connection, message: protocol.Message) -> None:
        """Answer a request, now or later.  Raises ``ClipError``."""
        handler = self._handlers.get(str(message.get("op")))
        if handler is None:
            raise ServerError(f"clipd knows no request {message.get('op')!r}", "is it outdated?")
        handler(connection, message)

    def _attach(self, connection: Connection, message: protocol.Message) -> None:
        name = str(message.get("image"))
        tree = f"{self._settings.fuse_dir}/images/{name}"

        def answer(found: protocol.Message) -> None:
            connection.answer(found if "error" in found else {**found, "tree": tree})

        self._images.attach(name, str(message.get("index")), answer)
        for attached in self._on_attach:
            attached(name, message)

    def _detach(self, connection: Connection, message: protocol.Message) -> None:
        self._images.detach(str(message.get("image")), connection.answer)

    def _forward(self, connection: Connection, message: protocol.Message) -> None:
        self._images.ask(message, connection.answer)

    def _status(self, connection: Connection, message: protocol.Message) -> None:
        """An answer in any case: a server that is away is a thing to report."""
        answered: list[bool] = []

        def answer(found: protocol.Message) -> None:
            if not answered:
                answered.append(True)
                connection.answer({**found, **self._own_status(found)})

        self._images.ask({"op": "status"}, answer)
        self._loop.later(_STATUS_SECONDS, lambda: answer({}))

    def _own_status(self, found: protocol.Message) -> protocol.Message:
        server = self._server
        found.pop("pid", None)
        return {
            "supervisor": {"pid": os.getpid()},
            "keeper": {"pid": self._keeping.pid},
            "holder": self._keeping.holder,
            "server": {"pid": server.pid, "restarts": server.restarts, "state": server.condition},
            "version": __version__,
            "restarts": server.restarts,
            "mode": _mode(self._settings),
            "mount": self._settings.fuse_dir,
            "mounts": [
                {"image": name, "directory": f"{self._settings.image_mount_dir}/{name}"}
                for name in linger.mounted(self._settings)
            ],
            "store": {"directory": self._settings.store_dir, **_mapping(found.get("store"))},
            "images": found.get("images", [{"manifest": name} for name in self._state.images]),
            "fetched": found.get("fetched", 0),
            "background": {
                "enabled": self._settings.background_fetch,
                "rate": self._settings.background_rate,
                **_mapping(found.get("background")),
            },
        }


def _mode(settings: Settings) -> str:
    """How images are mounted: as configured, or what ``auto`` found to work."""
    if settings.layer_mode != "auto":
        return settings.layer_mode
    try:
        with open(f"{settings.run_dir}/mode", encoding="ascii", errors="replace") as file:
            return file.read(16)
    except FileNotFoundError:
        return "auto"


def _mapping(value: object) -> protocol.Message:
    return value if isinstance(value, dict) else {}
