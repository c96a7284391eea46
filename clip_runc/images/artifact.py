"""Indexes that travel with their image: OCI artifacts whose ``subject`` is its manifest.

Pushing needs no privileges.  Pulling talks to the registry, parses and writes in a process
without privileges; what it brings is checked once more, as a whole, before it is kept.
Source: OCI image-spec 1.1, manifest.md ("Guidelines for Artifact Usage").
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # for host names; without privileges it may not be found
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from clip_runc.config import Settings
from clip_runc.errors import BadResponse, ClipError, DigestMismatch, NotFound, StoreError
from clip_runc.images import adding, local
from clip_runc.images.source import Access, access_to, registry_at
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.unprivileged import run_unprivileged
from clip_runc.registry.client import Registry
from clip_runc.registry.image import OCI_MANIFEST, RegistryImage, descriptor, parse_json
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import EMPTY_CONFIG, Referrer, artifact_manifest, texts

ARTIFACT_TYPE = "application/vnd.clip-runc.index.v1"
LAYER_TYPE = "application/vnd.clip-runc.index.v1.clip"
FORMAT = "1"
"""Of the .clip file; an index of another one is passed over."""
SIZE_LIMIT = 1 << 30
_CANDIDATES = 4
_SECONDS = 600

_FORMAT, _PLATFORM = "dev.clip-runc.format", "dev.clip-runc.platform"
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


@dataclass(frozen=True)
class Pulled:
    """An index that was found beside its image: of what, which one of how many, and why."""

    reference: str
    digest: str
    artifact: str
    platform: str
    path: str
    size: int
    candidates: int
    why: str

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
            _FORMAT: FORMAT,
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
        if one.annotations.get(_FORMAT, FORMAT) == FORMAT
        and one.annotations.get(_PLATFORM, platform) == platform
    ]
    usable.sort(key=lambda one: one.digest)
    usable.sort(key=lambda one: one.annotations.get(_CREATED, ""), reverse=True)
    usable.sort(key=lambda one: one.annotations.get(_PREFETCH) != "true")
    return usable


def pull_index(
    settings: Settings, reference: str, *, platform: str | None = None, patient: bool = True
) -> Pulled:
    """Fetch an index that somebody pushed beside the image, and keep it in the local store.

    Its digest, its binding to the image's manifest and its structure are checked first.
    ``patient`` is False where building is the other way: few attempts, short waits.  Raises
    ``NotFound`` when there is none, ``RegistryError``, ``IndexFormatError``.
    """
    named = Reference.parse(reference)
    adding.make_directories(settings)
    raw, out = _unlinked(settings.index_dir), _unlinked(settings.index_dir)
    try:
        answer = run_unprivileged(
            settings.server_uid,
            fetch,
            access_to(settings, named),
            platform,
            patient,
            (raw, out),
            keep_fds=(raw, out),
            seconds=_SECONDS,
        )
        found = answer if isinstance(answer, dict) else {}
        digest = str(found.get("digest"))
        exact = [f"{named.name}@{digest}", f"{named.name}@{found.get('pinned')}"]
        image = adding.add_open(
            settings,
            out,
            f"the index beside {named}",
            list(dict.fromkeys([reference, str(named), *exact])),
            expected=digest,
        )
        return Pulled(
            reference=str(named),
            digest=digest,
            artifact=str(found.get("artifact")),
            platform=str(found.get("platform")),
            path=image.index_path,
            size=os.fstat(out).st_size,
            candidates=int(str(found.get("candidates"))),
            why=str(found.get("why")),
        )
    finally:
        os.close(raw)
        os.close(out)


def _unlinked(directory: str) -> int:
    name = f"{directory}/.pull-{os.getpid()}-{time.monotonic_ns()}"
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.unlink(name)
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}", "check the space there") from None
    return fd


def fetch(
    access: Access,
    platform: str | None,
    patient: bool,
    fds: tuple[int, int],
) -> dict[str, object]:
    """In the process without privileges: the best index that holds what it says, into ``fds[1]``.

    ``fds[0]`` is for the bytes as they come.
    """
    named = access.reference
    with access.connect(patient=patient) as registry:
        pinned = registry.manifest()[2]
    exact = replace(access, reference=named.with_digest(pinned))
    with exact.connect(patient=patient) as registry:
        image = registry.resolve(platform)
        listed = registry.referrers(image.manifest_digest, ARTIFACT_TYPE)
        usable = rank(listed, image.platform)
        problem: ClipError = NotFound(
            f"{named}: no index beside the image for {image.platform}",
            f"push one with: clipctl push {named}; or make it here: clipctl index {named}",
        )
        for one in usable[:_CANDIDATES]:
            try:
                _receive(registry, image, one, fds)
            except (BadResponse, NotFound, DigestMismatch, ClipError) as error:
                problem = error
                continue
            return {
                "digest": image.manifest_digest,
                "pinned": pinned,
                "platform": image.platform,
                "artifact": one.digest,
                "candidates": len(listed),
                "why": _why(one, len(listed), len(usable)),
            }
        raise problem


def _why(one: Referrer, listed: int, usable: int) -> str:
    if listed == 1:
        return "the only one"
    prefetch = "with" if one.annotations.get(_PREFETCH) == "true" else "without"
    created = one.annotations.get(_CREATED, "an unknown time")
    return f"of {listed}, {usable} fit: {prefetch} a prefetch list, of {created[:32]}"


def _receive(registry: Registry, image: RegistryImage, one: Referrer, fds: tuple[int, int]) -> None:
    what = f"{image.reference.name}@{one.digest}"
    manifest = parse_json(registry.manifest(one.digest)[0], what)
    subject = manifest.get("subject")
    if not isinstance(subject, dict) or subject.get("digest") != image.manifest_digest:
        raise BadResponse(f"{what}: an artifact that does not refer to {image.manifest_digest}")
    layers = manifest.get("layers")
    if (
        manifest.get("artifactType") != ARTIFACT_TYPE
        or manifest.get("mediaType", OCI_MANIFEST) != OCI_MANIFEST
        or not isinstance(layers, list)
        or len(layers) != 1
        or texts(manifest.get("annotations")).get(_FORMAT, FORMAT) != FORMAT
    ):
        raise BadResponse(f"{what}: not an index of ours")
    blob = descriptor(layers[0], what)
    if blob.media_type != LAYER_TYPE or blob.size > SIZE_LIMIT:
        raise BadResponse(f"{what}: an index of {blob.size} bytes and type {blob.media_type[:80]}")
    _download(registry, blob.digest, blob.size, fds[0])
    with ClipFile.open(fds[0]) as clip:
        if clip.manifest_digest != image.manifest_digest:
            raise BadResponse(f"{what}: it holds an index of another image, {clip.manifest_digest}")
        os.ftruncate(fds[1], 0)
        os.lseek(fds[1], 0, os.SEEK_SET)
        with open(fds[1], "wb", closefd=False) as out:
            # the layers are beside it, whatever repository it was made from
            clip.write_with_source(out, image.reference.name)


def _download(registry: Registry, digest: str, size: int, fd: int) -> None:
    os.ftruncate(fd, 0)
    hashed, offset = hashlib.sha256(), 0
    for piece in registry.stream(digest, size):
        hashed.update(piece)
        view = memoryview(piece)
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise DigestMismatch(f"the index {digest}: its bytes have another digest")


def index_beside(settings: Settings, reference: str, platform: str | None = None) -> RegistryImage:
    """The image of ``reference`` in its registry as it is now, to push an index beside it."""
    return registry_at(settings, Reference.parse(reference)).resolve(platform)


def local_index(settings: Settings, image: RegistryImage) -> str | None:
    """The path of this machine's index of exactly that image."""
    found = local.find(settings, f"{image.reference.name}@{image.manifest_digest}")
    return found.index_path if found is not None else None
