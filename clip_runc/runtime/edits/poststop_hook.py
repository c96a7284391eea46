"""The hook that takes the container down whoever deletes it."""

from __future__ import annotations

from clip_runc.errors import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Teardown gives itself 10 s for a lock and 20 s for the files; then the runtime kills the hook.
TIMEOUT_SECONDS = 40
# Not empty: a wrapper behind us that writes the file again (nvidia-container-runtime) leaves empty
# members out, and runc gives a hook without a member ``env`` its own environment.
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)


class PoststopHook:
    """Append ``path`` with ``arguments`` to the poststop hooks.

    Last, because hooks before it may want to look into the root filesystem.  The environment is
    fixed: nothing of the runtime's reaches the dynamic linker or the interpreter (CVE-2025-23266).
    """

    __slots__ = ("arguments", "path")

    def __init__(self, path: str, arguments: Sequence[str]) -> None:
        self.path = path
        self.arguments = arguments

    def apply(self, spec: dict[str, object]) -> None:
        """Add the hook; ``hooks`` and ``hooks.poststop`` may be missing or null."""
        hooks = spec.get("hooks")
        if hooks is None:
            hooks = spec["hooks"] = {}
        present = hooks.get("poststop") if isinstance(hooks, dict) else ()
        if not isinstance(hooks, dict) or not (present is None or isinstance(present, list)):
            raise BundleError("hooks of config.json are malformed", "see the OCI runtime spec")
        entry = {
            "path": self.path,
            "args": [self.path, *self.arguments],
            "env": [*ENVIRONMENT],
            "timeout": TIMEOUT_SECONDS,
        }
        hooks["poststop"] = [*(present or []), entry]
