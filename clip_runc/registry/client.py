"""One repository at one registry: manifests, blobs, ranges of blobs.

What the rest of the package uses.  All methods are thread-safe and raise ``RegistryError``
(``Unauthorized``, ``NotFound``, …) or ``DigestMismatch``; deadlines are values of
``time.monotonic()``.  Source: OCI distribution-spec 1.1.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import requests

from clip_runc.errors import BadResponse, ClipError, DigestMismatch, NotFound, RegistryError
from clip_runc.registry import image as images
from clip_runc.registry import platforms, push
from clip_runc.registry import referrers as referring
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.hosts import Hosts, Place
from clip_runc.registry.hosts import load as load_hosts
from clip_runc.registry.http_errors import Transient, from_status
from clip_runc.registry.image import Descriptor, RegistryImage
from clip_runc.registry.mirrors import Mirrors
from clip_runc.registry.ranges import check_range, check_whole
from clip_runc.registry.reference import Reference
from clip_runc.registry.referrers import Referrer
from clip_runc.registry.retry import Patience
from clip_runc.registry.transport import Transport

__all__ = ["Descriptor", "Registry", "RegistryImage"]

log = logging.getLogger(__name__)

_INDEX_DEPTH = 3
_MIRROR_SECONDS, _MIRROR_CONNECT = 10.0, 3.0  # what a mirror may cost before the next is asked
_PROGRESS = 1 << 20  # bytes after which a broken transfer counts as having got somewhere
_VERIFY_ATTEMPTS = 3


class Registry:
    """The repository of ``reference``.

    ``plain_http`` allows HTTP without TLS, which this machine's own addresses always are.
    ``timeout`` (seconds) bounds each wait for bytes, ``connect_timeout`` each connection,
    ``attempts`` the tries of one piece of work.  ``renew_credentials`` gives fresh ones when the
    registry no longer takes ``credentials``.  ``hosts_dirs``: where ``hosts.toml`` files are.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        credentials: Credentials | None = None,
        plain_http: bool = False,
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
        attempts: int = 6,
        renew_credentials: Callable[[], Credentials | None] | None = None,
        place: Place | None = None,
        hosts_dirs: Sequence[str] = (),
    ) -> None:
        hosts = Hosts(server=place) if place else load_hosts(reference.registry, hosts_dirs)
        self._mirrors = Mirrors[Registry](
            [
                (
                    Registry(
                        reference,
                        timeout=min(timeout, _MIRROR_SECONDS),
                        connect_timeout=min(connect_timeout, _MIRROR_CONNECT),
                        attempts=1,
                        place=mirror,
                    ),
                    mirror.capabilities,
                )
                for mirror in hosts.mirrors
            ]
        )
        self.reference = reference
        self._attempts = attempts
        self._transport = Transport(
            reference,
            credentials=credentials,
            plain_http=plain_http,
            timeout=timeout,
            connect_timeout=connect_timeout,
            attempts=attempts,
            renew_credentials=renew_credentials,
            place=hosts.server,
        )

    def __repr__(self) -> str:
        return f"Registry({self.reference.name!r})"

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections.  The object can still be used."""
        self._transport.close()
        for mirror in self._mirrors.all():
            mirror.close()

    def set_credentials(self, credentials: Credentials | None) -> None:
        """Use these from now on."""
        self._transport.auth.replace_credentials(credentials)

    # Manifests

    def manifest(self, reference: str | None = None) -> tuple[bytes, str, str]:
        """The manifest of a tag or digest (default: our reference's) as it is in the registry.

        Gives bytes, media type and ``sha256:`` digest.  The digest is computed here and compared
        with the one asked for, and with what the registry claims.
        """
        version = reference or self.reference.version
        for number, mirror in self._mirrors.able(
            "pull" if images.is_digest(version) else "resolve"
        ):
            try:
                return mirror.manifest(version)
            except (RegistryError, DigestMismatch) as error:
                self._passed_over(number, mirror, error)
        what = self._what(version)
        for attempt in range(_VERIFY_ATTEMPTS):
            response, data = self._get_manifest(version, what)
            digest = images.digest_of(data)
            claimed = response.headers.get("Docker-Content-Digest", "")
            expected = version if images.is_digest(version) else claimed
            if not images.is_digest(expected) or expected == digest:
                kind = images.media_type_of(data, response.headers.get("Content-Type", ""), what)
                return data, kind, digest
            if attempt == _VERIFY_ATTEMPTS - 1:
                raise DigestMismatch(f"{what}: the manifest has digest {digest}, not {expected}")
        raise AssertionError("unreachable")

    def _get_manifest(self, version: str, what: str) -> tuple[requests.Response, bytes]:
        return self._get_document(self._transport.manifest_url(version), what)

    def _get_document(self, url: str, what: str) -> tuple[requests.Response, bytes]:
        headers = {"Accept": ", ".join(images.ACCEPTED)}
        patience = Patience(self._attempts)
        while True:
            try:
                response = self._transport.get(url, headers=headers)
                if response.status_code != 200:
                    raise from_status(response, self._transport.host, what)
                limit = images.MANIFEST_LIMIT
                data = b"".join(self._transport.pieces(response, limit + 1))
                declared = response.headers.get("Content-Length", "")
                if declared.isdigit() and len(data) < min(int(declared), limit):
                    raise Transient(BadResponse(f"{what}: the manifest broke off"))
            except Transient as problem:
                self._transport.forget(url)
                patience.failed(problem)
                continue
            if len(data) > limit:
                raise BadResponse(f"{what}: a manifest of more than {limit} bytes")
            return response, data

    def resolve(self, platform: str | None = None) -> RegistryImage:
        """The image for ``platform`` (default: this machine's), its config fetched and checked."""
        what = str(self.reference)
        data, kind, digest = self.manifest()
        for _ in range(_INDEX_DEPTH):
            if not images.is_index(kind):
                return self._image(data, kind, digest, platform, what)
            chosen, _named = images.choose(data, platform, what)
            data, kind, digest = self.manifest(chosen.digest)
        if images.is_index(kind):
            raise BadResponse(f"{what}: indexes nested more than {_INDEX_DEPTH} deep")
        return self._image(data, kind, digest, platform, what)

    def _image(
        self, data: bytes, kind: str, digest: str, platform: str | None, what: str
    ) -> RegistryImage:
        config, layers = images.parts(data, what)
        content = self.blob(config.digest, config.size)
        named, diff_ids = images.check_config(content, len(layers), what)
        if platform is not None:
            wanted = platforms.normalise(platform)
            if platforms.rank(wanted, named) is None:
                raise images.no_such_platform(what, wanted, [named])
        return RegistryImage(
            reference=self.reference,
            registry=self,
            manifest=data,
            manifest_digest=digest,
            media_type=kind,
            config=content,
            config_descriptor=config,
            platform=named,
            layers=layers,
            diff_ids=diff_ids,
        )

    # Blobs

    def blob(self, digest: str, size: int) -> bytes:
        """A small blob, whole and verified; at most 8 MiB."""
        what = self._what(digest)
        if size > images.CONFIG_LIMIT:
            raise BadResponse(f"{what}: {size} bytes; at most {images.CONFIG_LIMIT} are allowed")
        for number, mirror in self._mirrors.able("pull"):
            try:
                return mirror.blob(digest, size)
            except (RegistryError, DigestMismatch) as error:
                self._passed_over(number, mirror, error)
        for _ in range(_VERIFY_ATTEMPTS):
            data = b"".join(self._read(digest, 0, size, size, None))
            actual = images.digest_of(data)
            if actual == digest:
                return data
        raise DigestMismatch(f"{what}: its bytes have digest {actual}")

    def stream(self, digest: str, size: int, start: int = 0) -> Iterator[bytes]:
        """The blob from byte ``start`` on, in pieces: exactly ``size - start`` bytes or an error.

        A broken transfer goes on where it stopped.  The digest is the caller's to check.
        """
        self._mirrors.asked(digest, start, size)
        for number, mirror in self._mirrors.able("pull"):
            try:
                self._mirrors.served(number, digest, start, size)
                for piece in mirror.stream(digest, size, start):
                    start += len(piece)
                    yield piece
                return
            except RegistryError as error:
                self._passed_over(number, mirror, error)
        yield from self._read(digest, start, size, size, None)

    def read_range(
        self, digest: str, start: int, end: int, *, deadline: float | None = None
    ) -> bytes:
        """Exactly the bytes ``[start, end)`` of a blob, or an error by ``deadline``.

        The bytes are what the registry sent: the caller verifies them.
        """
        self._mirrors.asked(digest, start, end)
        for number, mirror in self._mirrors.able("pull"):
            limit = time.monotonic() + _MIRROR_SECONDS
            if deadline is not None:
                limit = min(limit, (time.monotonic() + deadline) / 2)  # leaves as much again
            try:
                data = mirror.read_range(digest, start, end, deadline=limit)
            except RegistryError as error:
                self._passed_over(number, mirror, error)
                continue
            self._mirrors.served(number, digest, start, end)
            return data
        return b"".join(self._read(digest, start, end, None, deadline))

    def _passed_over(self, number: int, mirror: Registry, error: ClipError) -> None:
        log.info("mirror %s of %s: %s", mirror._transport.host, self.reference.name, error)
        if isinstance(error, DigestMismatch):
            self._mirrors.lied(number)
        elif not isinstance(error, NotFound):
            self._mirrors.failed(number)

    def _read(
        self, digest: str, start: int, end: int, size: int | None, deadline: float | None
    ) -> Iterator[bytes]:
        what = self._what(digest)
        if not images.is_digest(digest) or not 0 <= start <= end:
            raise BadResponse(f"{what}: cannot be read from {start} to {end}")
        url = self._transport.blob_url(digest)
        patience = Patience(self._attempts, deadline)
        mark = start
        while start < end:
            try:
                response = self._open(url, start, end, size, what, deadline)
                for piece in self._transport.pieces(response, end - start, deadline):
                    start += len(piece)
                    yield piece
                if start < end:
                    raise Transient(BadResponse(f"{what}: the transfer broke off at byte {start}"))
            except Transient as problem:
                problem.immediate |= self._transport.forget(url)
                if start - mark >= _PROGRESS:
                    patience.progressed()
                mark = start
                patience.failed(problem)

    def _open(
        self, url: str, start: int, end: int, size: int | None, what: str, deadline: float | None
    ) -> requests.Response:
        """Ask for ``[start, end)``; without a Range header for a whole blob of known ``size``."""
        whole = size is not None and start == 0
        headers = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
        response = self._transport.get(url, headers=headers, deadline=deadline)
        if response.status_code not in (200, 206):
            raise from_status(response, self._transport.host, what)
        problem = (
            check_whole(response, end, what) if whole else check_range(response, start, end, what)
        )
        if problem is not None:
            # Not read to its end: a body that we did not ask for may have any size.
            response.close()
            raise Transient(problem)
        return response

    # Pushing

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has this blob."""
        return push.has_blob(self._transport, digest)

    def push_blob(
        self, data: bytes | str, *, digest: str | None = None, mount_from: str | None = None
    ) -> Descriptor:
        """Upload bytes, or the file at a path, unless the repository has it already.

        ``mount_from`` is another repository of the registry that may have it.
        """
        return push.push_blob(self._transport, data, digest=digest, mount_from=mount_from)

    def push_manifest(self, data: bytes, media_type: str, reference: str | None = None) -> str:
        """Store a manifest under a tag or its digest (default: our reference's); the digest."""
        return push.push_manifest(
            self._transport, data, media_type, reference or self.reference.version
        )

    # Artifacts that refer to an image

    def referrers(self, digest: str, artifact_type: str | None) -> list[Referrer]:
        """What refers to the manifest ``digest``, of this type or of any, as the registry lists it.

        Asked for by the referrers API, and by the tag scheme where the registry has none.
        The list is anybody's claim: whoever uses an entry checks its manifest.
        """
        found = referring.by_api(self._transport, self._get_document, digest, self._what(digest))
        if found is None:
            found = referring.parse(self._referrers_tag(digest), self._what(digest))
        return [one for one in found if artifact_type in (None, one.artifact_type)]

    def attach(self, data: bytes, subject: str) -> tuple[str, bool]:
        """Store a manifest whose ``subject`` is the manifest of that digest.

        Gives its digest, and whether the registry keeps the list of referrers itself; where
        not, the list under the tag ``sha256-<hex>`` has been brought up to date.
        """
        digest = images.digest_of(data)
        if push.put_manifest(self._transport, data, images.OCI_MANIFEST, digest):
            return digest, True
        for _ in range(_VERIFY_ATTEMPTS):
            listed = self._referrers_tag(subject)
            updated = referring.with_entry(listed, data)
            if updated == listed:
                return digest, False
            self.push_manifest(updated, images.OCI_INDEX, referring.tag_of(subject))
        return digest, False

    def _referrers_tag(self, digest: str) -> bytes:
        try:
            return self.manifest(referring.tag_of(digest))[0]
        except NotFound:
            return referring.EMPTY

    def _what(self, version: str) -> str:
        if images.is_digest(version):
            return f"{self.reference.name}@{version}"
        return f"{self.reference.name}:{version}"
