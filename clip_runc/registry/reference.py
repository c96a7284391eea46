"""Names of images in registries: ``host[:port]/repository[:tag][@digest]``.

The grammar is that of github.com/distribution/reference, Docker's short names included.
Pure, and light enough for the shim: no network, no dataclasses.  What does not name an
image in a registry (a path, ``oci:``, …) is refused with what to write instead.
"""

from __future__ import annotations

import re

from clip_runc.errors import InvalidReference

DOCKER_HUB = "docker.io"
_DOCKER_HUB_NAMES = (DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
_DOCKER_HUB_HOST = "registry-1.docker.io"

_LOCAL_TRANSPORTS = (
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "dir",
    "containers-storage",
    "ostree",
    "sif",
    "tarball",
)
_NAME_LIMIT = 255
_HOST = (
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"

WHY_NOT_LOCAL = (
    "a clip index is made from the registry reference, never from a local OCI directory or "
    'archive, because its data is read from the registry later; use "host/repository:tag"'
)


class Reference:
    """One image in one registry.  Immutable; equal when every part is.

    ``registry`` is ``host[:port]`` (``docker.io`` for Docker Hub), ``repository`` its path
    (with Docker Hub's ``library/``).  At least one of ``tag`` and ``digest`` is set; with
    both, the digest decides.
    """

    __slots__ = ("digest", "registry", "repository", "tag")

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __init__(self, registry: str, repository: str, tag: str | None, digest: str | None) -> None:
        for name, value in (
            ("registry", registry),
            ("repository", repository),
            ("tag", tag),
            ("digest", digest),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Reference cannot be changed ({name})")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Take ``text`` apart.  Raises ``InvalidReference`` with the reason."""
        if len(text) > 1024:
            raise InvalidReference(f"{text[:64]!r}…: a reference of {len(text)} characters")
        _refuse_local(text)
        rest = text.removeprefix("docker://")
        rest, at, digest = rest.partition("@")
        if at and not re.fullmatch(_DIGEST, digest):
            raise InvalidReference(
                f"{text!r}: {digest!r} is not a digest", "sha256: and 64 lower-case hex digits"
            )
        registry, path = _split_registry(rest)
        repository, colon, tag = path.partition(":")
        if colon and not re.fullmatch(_TAG, tag):
            raise InvalidReference(f"{text!r}: {tag!r} is not a tag")
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        _check_name(text, registry, repository)
        return cls(registry, repository, tag or (None if at else "latest"), digest or None)

    @property
    def name(self) -> str:
        """``host/repository``, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def host(self) -> str:
        """Where the registry's API is: ``host[:port]``; differs for Docker Hub."""
        return _DOCKER_HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest, or else the tag."""
        return self.digest or self.tag or "latest"

    def with_digest(self, digest: str) -> Reference:
        """The same name and tag, pinned to ``digest``."""
        return Reference(self.registry, self.repository, self.tag, digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> tuple[object, ...]:
        return Reference, self._parts()

    def _parts(self) -> tuple[str, str, str | None, str | None]:
        return self.registry, self.repository, self.tag, self.digest


def is_loopback(host: str) -> bool:
    """Whether ``host[:port]`` is this machine by name or number: plain HTTP is allowed there."""
    name = host.rpartition(":")[0] if re.search(r":[0-9]+$", host) else host
    if name in ("localhost", "[::1]"):
        return True
    return bool(re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", name))


def _refuse_local(text: str) -> None:
    if not text:
        raise InvalidReference("an empty image reference", 'use "host/repository:tag"')
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        raise InvalidReference(f"{text!r} is a path, not a registry reference", WHY_NOT_LOCAL)
    transport, colon, _ = text.partition(":")
    if colon and transport in _LOCAL_TRANSPORTS:
        raise InvalidReference(
            f"{text!r} names a local {transport} image, not a registry reference", WHY_NOT_LOCAL
        )
    if "://" in text and not text.startswith("docker://"):
        raise InvalidReference(
            f"{text!r} is a URL, not a registry reference", 'use "host/repository:tag"'
        )


def _split_registry(rest: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host if it could not be anything else."""
    first, slash, path = rest.partition("/")
    is_host = slash and (
        "." in first or ":" in first or first == "localhost" or first.lower() != first
    )
    if not is_host:
        return DOCKER_HUB, rest
    return (DOCKER_HUB if first in _DOCKER_HUB_NAMES else first), path


def _check_name(text: str, registry: str, repository: str) -> None:
    if not re.fullmatch(_HOST, registry):
        raise InvalidReference(f"{text!r}: {registry!r} is not a host")
    port = re.search(r":([0-9]+)$", registry)
    if port and not 0 < int(port[1]) < 65536:
        raise InvalidReference(f"{text!r}: {port[1]} is not a port")
    if not re.fullmatch(_REPOSITORY, repository):
        raise InvalidReference(
            f"{text!r}: {repository!r} is not a repository",
            "lower-case letters, digits and single separators, in components divided by /",
        )
    if len(registry) + len(repository) + 1 > _NAME_LIMIT:
        raise InvalidReference(f"{text[:64]!r}…: a name of more than {_NAME_LIMIT} characters")
    if re.fullmatch(r"library/[0-9a-f]{64}", repository):
        raise InvalidReference(f"{text!r} is an image id, not a registry reference", WHY_NOT_LOCAL)
