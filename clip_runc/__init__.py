"""clip-runc starts containers from images that are not on the machine yet.

The public interface is small and stays stable: ``create_from_oci_image``,
``OverlayMounter`` and ``verify``, in the words of the Go library that this
project grew from.  Everything else is private.

Nothing is imported here before it is used: ``clip-runc`` passes through this
module on every runc command, and each import would be paid for by each of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.containers.api import Mount, OverlayMounter
    from clip_runc.images.api import create_from_oci_image, verify

__version__ = "0.1.0"

__all__ = ["Mount", "OverlayMounter", "__version__", "create_from_oci_image", "verify"]

_HOME = {
    "Mount": "clip_runc.containers.api",
    "OverlayMounter": "clip_runc.containers.api",
    "create_from_oci_image": "clip_runc.images.api",
    "verify": "clip_runc.images.api",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'clip_runc' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
