"""Small images in a fake registry, and artifacts of all sorts beside them."""

from __future__ import annotations

import json
from typing import Any

from clip_runc.config import Settings
from clip_runc.images import artifact
from clip_runc.images.source import registry_at
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_MANIFEST, RegistryImage
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import artifact_manifest
from tests.unit.images.small_clip import SmallImage


def hold(fake: FakeRegistry, small: SmallImage, tag: str = "1") -> str:
    """Put the image into the registry; its reference."""
    for blob in [small.config, *small.blobs.values()]:
        fake.add_blob(blob)
    fake.add_manifest("team/app", tag, small.manifest, OCI_MANIFEST)
    return f"{fake.host}/team/app:{tag}"


def image_at(settings: Settings, reference: str) -> RegistryImage:
    return registry_at(settings, Reference.parse(reference)).resolve()


def attach(fake: FakeRegistry, small: SmallImage, blob: bytes, **changes: Any) -> str:
    """An artifact of which ``changes`` replace parts."""
    layer = {"mediaType": artifact.LAYER_TYPE, "digest": fake.add_blob(blob), "size": len(blob)}
    layer |= changes.pop("layer", {})
    about = {"mediaType": OCI_MANIFEST, "digest": small.manifest_digest, "size": 3}
    annotations = changes.pop("annotations", {})
    made = json.loads(artifact_manifest(artifact.ARTIFACT_TYPE, layer, dict(about), annotations))
    return fake.add_manifest("team/app", "x", made | changes, OCI_MANIFEST)
