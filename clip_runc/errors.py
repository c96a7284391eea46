"""Every error that clip-runc raises on purpose, in one tree.

::

    ClipError
    ├── ConfigError            a setting that cannot be used
    ├── InvalidReference       not a registry reference (a local path, ``oci:``, …)
    ├── RegistryError          talking to a registry failed
    │   ├── RegistryUnreachable    no connection, TLS failure, time-out
    │   ├── Unauthorized           401/403 after credentials were tried
    │   ├── NotFound               no such repository, manifest or blob
    │   └── BadResponse            the registry answered with something it must not
    ├── NotTrusted             an index that nobody vouches for whom the configuration believes
    ├── DigestMismatch         bytes that are not what their digest says
    ├── LayerFormatError       a layer that is no tar, gzip or zstd we can read
    ├── IndexFormatError       a .clip file or EROFS image that is damaged or hostile
    ├── StoreError             the chunk store cannot be used
    ├── StorageRefused         a directory where overlay layers must not be put
    ├── MountFailed            a mount system call said no
    ├── ServerError            clipd cannot be reached, started, or refused a request
    ├── BundleError            a bundle or its config.json that cannot be used
    └── ImageNotIndexed        no index for an image and the policy forbids making one

A message says what was wrong, with which value; ``hint`` says what to do.
This module is imported by the hot path of the shim: it imports nothing.
"""

from __future__ import annotations


class ClipError(Exception):
    """The root of the tree.  ``str()`` gives the message with its hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, str]]:
        return type(self), (self.message, self.hint)


class ConfigError(ClipError):
    """A setting that cannot be used."""


class InvalidReference(ClipError):
    """A string that does not name an image in a registry."""


class RegistryError(ClipError):
    """Talking to a registry failed."""


class RegistryUnreachable(RegistryError):
    """No connection could be made, or it broke or fell silent."""


class Unauthorized(RegistryError):
    """The registry refused the credentials that we have (401 or 403)."""


class NotFound(RegistryError):
    """The registry has no such repository, manifest or blob."""


class BadResponse(RegistryError):
    """The registry answered with something that the protocol does not allow."""


class NotTrusted(ClipError):
    """An index that nobody vouches for whom the configuration believes."""


class DigestMismatch(ClipError):
    """Bytes whose digest is not the one that names them."""


class LayerFormatError(ClipError):
    """A layer that is not a tar stream in a compression we know, or lies about itself."""


class IndexFormatError(ClipError):
    """A .clip file or EROFS image that is damaged or was made to deceive."""


class StoreError(ClipError):
    """The chunk store cannot be used."""


class StorageRefused(ClipError):
    """A directory on a filesystem where overlay layers must not be put."""


class MountFailed(ClipError):
    """A mount system call failed; ``errno`` has the kernel's reason (0 when unknown)."""

    def __init__(self, message: str, hint: str = "", errno: int = 0) -> None:
        super().__init__(message, hint)
        self.errno = errno

    def __reduce__(self) -> tuple[type[MountFailed], tuple[str, str, int]]:  # type: ignore[override]  # one more field than the base
        return type(self), (self.message, self.hint, self.errno)


class ServerError(ClipError):
    """clipd cannot be started or reached, or it refused a request."""


class BundleError(ClipError):
    """A bundle, or its config.json, that cannot be used."""


class ImageNotIndexed(ClipError):
    """There is no index of an image and the policy says not to make one."""
