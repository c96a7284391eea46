"""What a start tells the file of events (``clip_runc.events``)."""

from __future__ import annotations

from clip_runc import events
from clip_runc.errors import ClipError
from clip_runc.images import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from clip_runc.config import Settings


def started(settings: Settings, fields: Mapping[str, object], spent: Mapping[str, object]) -> None:
    """A root filesystem is mounted; ``spent`` has milliseconds by phase, as text."""
    phases = {name: lean.Number(text) for name, text in spent.items()}
    events.note(settings, "container-started", {**fields, **phases}, lean.dumps)


def not_lazy(settings: Settings, container: str, reference: str, why: str) -> None:
    """An image was expected to be lazy, and the container starts from its bundle."""
    fields = {"container": container, "image": reference, "why": why}
    events.note(settings, "not-lazy", fields, lean.dumps)


def failed(container: str, error: ClipError) -> None:
    """A start failed for a reason of ours."""
    from clip_runc.runtime.plain_config import load_settings

    try:
        settings = load_settings()
    except ClipError:
        return  # then there is no place where events go
    fields = {"container": container, "error": type(error).__name__, "why": str(error)}
    events.note(settings, "start-failed", fields, lean.dumps)
