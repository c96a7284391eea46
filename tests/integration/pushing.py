"""Puts an image of a layout into a registry, through the package's own client."""

from __future__ import annotations

from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.reference import Reference
from tests.integration.image_maker import MANIFEST, Image


def push(
    image: Image, host: str, repository: str, tag: str, credentials: Credentials | None = None
) -> str:
    """Push what the registry lacks of the image; its reference, ``host/repository:tag``."""
    reference = f"{host}/{repository}:{tag}"
    with Registry(Reference.parse(reference), credentials=credentials) as registry:
        for blob in image.blobs:
            registry.push_blob(str(blob.path), digest=blob.digest)
        registry.push_manifest(image.manifest, MANIFEST)
    return reference
