"""Indexes that travel with their image: OCI artifacts whose ``subject`` is its manifest.

What they look like, which one is the best of several, and pushing them, which needs no privileges;
``pull.py`` fetches them.  Source: OCI image-spec 1.1, manifest.md ("Guidelines for Artifact
Usage").
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from clip_runc.config import Settings
from clip_runc.errors import ClipError
from clip_runc.images import local
from clip_runc.images.source import registry_at
from clip_runc.index.clipfile import ClipFile
from clip_runc.registry.image import RegistryImage
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import EMPTY_CONFIG, Referrer, artifact_manifest

ARTIFACT_TYPE = "application/vnd.clip-runc.index.v1"
LAYER_TYPE = "application/vnd.clip-runc.index.v1.clip"
FORMAT = "1"
"""Of the .clip file; an index of another one is passed over."""
FORMAT_KEY, _PLATFORM = "dev.clip-runc.format", "dev.clip-runc.platform"
_PREFETCH, _DIGEST = "dev.clip-runc.prefetch", "dev.clip-runc.index"
_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True)
class Pushed:
    """An index that is beside its image now.  ``size`` in bytes.

    ``api``: the registry lists referrers itself; else they are listed under a tag.  ``new`` is
    False when the same index was there.
    """

    reference: str
    subject: str
    artifact: str
    platform: str
    size: int
    api: bool
    new: bool

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def push_index(settings: Settings, image: RegistryImage, path: str) -> Pushed:
    """Store the index at ``path`` beside ``image`` in its registry.

    Raises ``IndexFormatError`` for an index of another image, ``RegistryError``.
    """
    registry = image.registry
    with ClipFile.open(path) as clip:
        if clip.manifest_digest != image.manifest_digest:
            raise ClipError(
                f"{path} is an index of {clip.manifest_digest}, not of {image.manifest_digest}",
                f"clipctl index {image.reference}",
            )
        annotations = {
            FORMAT_KEY: FORMAT,
            _PLATFORM: clip.platform,
            _PREFETCH: "true" if clip.prefetch() else "false",
        }
    blob = registry.push_blob(path)
    annotations[_DIGEST] = blob.digest
    listed = registry.referrers(image.manifest_digest, ARTIFACT_TYPE)
    same = next((x for x in listed if x.annotations.get(_DIGEST) == blob.digest), None)
    done = {
        "reference": str(image.reference),
        "subject": image.manifest_digest,
        "platform": image.platform,
        "size": blob.size,
    }
    if same is not None:
        return Pushed(artifact=same.digest, api=False, new=False, **done)  # type: ignore[arg-type]  # the fields' own types
    annotations[_CREATED] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    registry.push_blob(EMPTY_CONFIG)
    subject = {
        "mediaType": image.media_type,
        "digest": image.manifest_digest,
        "size": len(image.manifest),
    }
    layer = {"mediaType": LAYER_TYPE, "digest": blob.digest, "size": blob.size}
    manifest = artifact_manifest(ARTIFACT_TYPE, layer, subject, annotations)
    artifact, api = registry.attach(manifest, image.manifest_digest)
    return Pushed(artifact=artifact, api=api, new=True, **done)  # type: ignore[arg-type]  # the fields' own types


def rank(found: Iterable[Referrer], platform: str) -> list[Referrer]:
    """The artifacts that may do, the best first.

    Those of this format, and of this platform where they name one; with a prefetch list before
    without, later before earlier, the digest to make it certain.
    """
    usable = [
        one
        for one in found
        if one.annotations.get(FORMAT_KEY, FORMAT) == FORMAT
        and one.annotations.get(_PLATFORM, platform) == platform
    ]
    usable.sort(key=lambda one: one.digest)
    usable.sort(key=lambda one: one.annotations.get(_CREATED, ""), reverse=True)
    usable.sort(key=lambda one: one.annotations.get(_PREFETCH) != "true")
    return usable


def why(one: Referrer, listed: int, usable: int) -> str:
    """In words, why this one was taken of those that ``rank`` gave."""
    if listed == 1:
        return "the only one"
    prefetch = "with" if one.annotations.get(_PREFETCH) == "true" else "without"
    created = one.annotations.get(_CREATED, "an unknown time")
    return f"of {listed}, {usable} fit: {prefetch} a prefetch list, of {created[:32]}"


def index_beside(settings: Settings, reference: str, platform: str | None = None) -> RegistryImage:
    """The image of ``reference`` in its registry as it is now, to push an index beside it."""
    return registry_at(settings, Reference.parse(reference)).resolve(platform)


def local_index(settings: Settings, image: RegistryImage) -> str | None:
    """The path of this machine's index of exactly that image."""
    found = local.find(settings, f"{image.reference.name}@{image.manifest_digest}")
    return found.index_path if found is not None else None
