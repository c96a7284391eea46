"""How the container was started, for ``runc state`` and whoever asks the container's engine."""

from __future__ import annotations

from clip_runc.config import ANNOTATION_STATE
from clip_runc.errors import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Annotations:
    """Set ``dev.clip-runc.state.<name>`` for each of ``values``; others of that kind go.

    What the bundle, and so maybe an image, says under these names is nothing that we said.
    """

    __slots__ = ("values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values

    def apply(self, spec: dict[str, object]) -> None:
        """``annotations`` may be missing or null."""
        present = spec.get("annotations")
        if not (present is None or isinstance(present, dict)):
            raise BundleError(
                "annotations of config.json are malformed", "see the OCI runtime spec"
            )
        kept = {k: v for k, v in (present or {}).items() if not k.startswith(ANNOTATION_STATE)}
        ours = {f"{ANNOTATION_STATE}{name}": value for name, value in self.values.items()}
        spec["annotations"] = {**kept, **ours}
