"""Fetching an index that lies beside its image, from a repository or by a key that is trusted.

A process without privileges talks to the registry, parses and writes; what it brings is checked
once more, as a whole, before it is kept.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  # for host names; without privileges it may not be found
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from clip_runc.config import Settings
from clip_runc.errors import (
    BadResponse,
    ClipError,
    DigestMismatch,
    NotFound,
    NotTrusted,
    StoreError,
)
from clip_runc.images import adding
from clip_runc.images.artifact import ARTIFACT_TYPE, FORMAT, FORMAT_KEY, LAYER_TYPE, rank, why
from clip_runc.images.source import Access, access_to
from clip_runc.images.trust import trusted
from clip_runc.index.clipfile import ClipFile
from clip_runc.linux.unprivileged import run_unprivileged
from clip_runc.registry.client import Registry
from clip_runc.registry.image import OCI_MANIFEST, RegistryImage, descriptor, parse_json
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import Referrer, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clip_runc.images.signing import Key

SIZE_LIMIT = 1 << 30
_CANDIDATES = 4
_UNSIGNED = 64
_SECONDS = 600


@dataclass(frozen=True)
class Pulled:
    """An index that was found beside its image: of what, which one of how many, and why.

    ``signer`` is the key whose signature was wanted and found.
    """

    reference: str
    digest: str
    artifact: str
    platform: str
    path: str
    size: int
    candidates: int
    why: str
    signer: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def pull_index(
    settings: Settings,
    reference: str,
    *,
    platform: str | None = None,
    patient: bool = True,
    believe: bool = False,
) -> Pulled:
    """Fetch an index that somebody pushed beside the image, and keep it in the local store.

    Its digest, its binding to the image's manifest and its structure are checked first; so is a
    signature by one of ``Settings.trusted_keys``, unless the repository is trusted or the caller
    is set to ``believe`` whoever pushed.  ``patient`` is False where building is the other way: few
    attempts, short waits.  Raises ``NotFound`` when there is none, ``NotTrusted``,
    ``RegistryError``, ``IndexFormatError``, ``ConfigError`` for a key that is none.
    """
    named = Reference.parse(reference)
    keys: tuple[Key, ...] | None = None
    if not believe and not trusted(settings, named.name):
        keys = _keys(settings, named)
    with fetched(settings, named, platform=platform, patient=patient, keys=keys) as (found, fd):
        path = keep(settings, reference, found, fd, unasked=platform is None)
        return Pulled(
            reference=str(named),
            digest=found["digest"],
            artifact=found["artifact"],
            platform=found["platform"],
            path=path,
            size=os.fstat(fd).st_size,
            candidates=int(found["candidates"]),
            why=found["why"],
            signer=found["signer"],
        )


def _keys(settings: Settings, named: Reference) -> tuple[Key, ...]:
    if not settings.trusted_keys:
        raise NotTrusted(
            f"{named}: indexes beside it are believed neither by repository nor by key",
            "see trusted_registries and trusted_keys: clipctl config explain",
        )
    from clip_runc.images.signing import trusted_keys

    return trusted_keys(settings)


@contextlib.contextmanager
def fetched(
    settings: Settings,
    named: Reference,
    *,
    platform: str | None = None,
    patient: bool = True,
    keys: tuple[Key, ...] | None = None,
) -> Iterator[tuple[dict[str, str], int]]:
    """What ``fetch`` found, and the index, open.  ``keys``: None for whoever pushed it."""
    adding.make_directories(settings)
    raw, out = _unlinked(settings.index_dir), _unlinked(settings.index_dir)
    try:
        answer = run_unprivileged(
            settings.server_uid,
            fetch,
            access_to(settings, named),
            platform,
            patient,
            keys,
            (raw, out),
            keep_fds=(raw, out),
            seconds=_SECONDS,
        )
        found = answer if isinstance(answer, dict) else {}
        yield {name: str(value) for name, value in found.items()}, out
    finally:
        os.close(raw)
        os.close(out)


def keep(
    settings: Settings, reference: str, found: dict[str, str], fd: int, *, unasked: bool
) -> str:
    """Put what was fetched into the local store under its names; the path there.

    ``unasked``: nobody asked for a platform.
    """
    named = Reference.parse(reference)
    digest = found["digest"]
    names = [reference, str(named), f"{named.name}@{digest}", f"{named.name}@{found['pinned']}"]
    what = f"the index beside {named}"
    image = adding.add_open(settings, fd, what, names, expected=digest, unasked=unasked)
    return image.index_path


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
    keys: tuple[Key, ...] | None,
    fds: tuple[int, int],
) -> dict[str, str]:
    """In the process without privileges: the best index that holds what it says, into ``fds[1]``.

    ``fds[0]`` is for the bytes as they come.  With ``keys`` one of them has to have signed it.
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
        tried = 0
        for one in usable[: _CANDIDATES if keys is None else _UNSIGNED]:
            try:
                by = "" if keys is None else _signer(registry, one, keys)
                tried += 1
                _receive(registry, image, one, fds)
            except ClipError as error:
                problem = error
                if tried == _CANDIDATES:
                    break
                continue
            return {
                "digest": image.manifest_digest,
                "pinned": pinned,
                "platform": image.platform,
                "artifact": one.digest,
                "candidates": str(len(listed)),
                "why": why(one, len(listed), len(usable)),
                "signer": by,
            }
        raise problem


def _signer(registry: Registry, one: Referrer, keys: tuple[Key, ...]) -> str:
    # Loaded by now: keys came with it.  Without privileges it may not be found any more.
    from clip_runc.images.signing import signer

    name = signer(registry, one.digest, keys)
    if not name:
        artifact = f"{registry.reference.name}@{one.digest}"
        raise NotTrusted(
            f"{artifact}: an index without a signature by a key of trusted_keys",
            f"sign it: cosign sign --key cosign.key {artifact}",
        )
    return name


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
        or texts(manifest.get("annotations")).get(FORMAT_KEY, FORMAT) != FORMAT
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
