"""What a cluster is given: a RuntimeClass, and a DaemonSet that installs clip-runc on nodes."""

from __future__ import annotations

from pathlib import Path

from clip_runc.errors import ConfigError

IMAGE = "registry.example/clip-runc-node:0.1"


def manifest(image: str) -> str:
    """The objects as YAML, with ``image`` for the DaemonSet.  Raises ``ConfigError``."""
    if not image or any(c.isspace() or c in "\"'{}#" for c in image):
        raise ConfigError(f"{image!r} is no image reference", "host/repository:tag")
    text = (Path(__file__).parent / "kubernetes.yaml").read_text()
    return text.replace(f"image: {IMAGE}\n", f"image: {image}\n")
