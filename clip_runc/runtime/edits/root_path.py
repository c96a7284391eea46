"""``root.path``: where the container's root filesystem is mounted."""

from __future__ import annotations

from clip_runc.errors import BundleError


class RootPath:
    """Point ``root.path`` at ``rootfs``; ``root.readonly`` stays as it is."""

    __slots__ = ("rootfs",)

    def __init__(self, rootfs: str) -> None:
        self.rootfs = rootfs

    def apply(self, spec: dict[str, object]) -> None:
        """A bundle that is made for us may have no root at all."""
        root = spec.setdefault("root", {})
        if not isinstance(root, dict):
            raise BundleError("root of config.json is not an object", "see the OCI runtime spec")
        root["path"] = self.rootfs
