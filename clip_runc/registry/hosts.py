"""``hosts.toml``: where else a registry's content is to be had, in containerd's layout.

``HOST/hosts.toml`` in a directory such as ``/etc/containerd/certs.d``, or ``_default`` in the
place of ``HOST``.  Source: github.com/containerd/containerd, docs/hosts.md.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from clip_runc.errors import ConfigError

_LIMIT = 1 << 20
log = logging.getLogger(__name__)
_CAPABILITIES = ("pull", "resolve", "push")


@dataclass(frozen=True)
class Place:
    """A server with the content of a registry.

    ``path`` is what comes before a repository in its URLs (``/v2``).  ``ca``, ``certificate`` and
    ``key`` are paths of files, "" for none.
    """

    scheme: str
    host: str
    path: str = "/v2"
    capabilities: frozenset[str] = frozenset(_CAPABILITIES)
    ca: str = ""
    certificate: str = ""
    key: str = ""
    skip_verify: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hosts:
    """Mirrors in the order in which they are asked, and the server that is asked last."""

    mirrors: tuple[Place, ...] = ()
    server: Place | None = None


def load(registry: str, directories: Sequence[str]) -> Hosts:
    """What the first of the directories has on the registry ``host[:port]``.

    Raises ``ConfigError``.
    """
    for directory in directories:
        for name in (registry, "_default"):
            path = f"{directory}/{name}/hosts.toml"
            try:
                with open(path, "rb") as file:
                    data = file.read(_LIMIT)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError:
                log.warning(
                    "%s: cannot be read by user %d, so it does not count", path, os.geteuid()
                )
                continue
            except OSError as error:
                raise ConfigError(f"{path}: {error.strerror}") from None
            return parse(data, path)
    return Hosts()


def parse(data: bytes, path: str) -> Hosts:
    """The content of a ``hosts.toml`` that lies at ``path``.  Raises ``ConfigError``."""
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from None
    tables = content.get("host", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: host is no table")
    mirrors = []
    for url, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: host.{url!r} is no table")
        mirrors.append(_place(url, table, path))
    server = content.get("server")
    if server is None:
        return Hosts(tuple(mirrors))
    if not isinstance(server, str):
        raise ConfigError(f"{path}: server = {server!r}: not a URL")
    return Hosts(tuple(mirrors), _place(server, content, path))


def _place(url: str, table: dict[str, Any], path: str) -> Place:
    full = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(full)
        host = parts.netloc
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not host or "@" in host or parts.query:
        raise ConfigError(f"{path}: {url!r} is not the URL of a registry", "https://host[:port]")
    prefix = parts.path.rstrip("/")
    if table.get("override_path") is not True and not prefix.endswith("/v2"):
        prefix += "/v2"
    certificate, key = _client(table.get("client"), path)
    return Place(
        parts.scheme,
        host,
        prefix,
        _capabilities(table.get("capabilities", list(_CAPABILITIES)), path),
        _file(_first(table.get("ca"), "ca", path), path),
        certificate,
        key,
        table.get("skip_verify") is True,
        _headers(table.get("header", {}), path),
    )


def _capabilities(value: object, path: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f"{path}: capabilities = {value!r}: not a list of words")
    return frozenset(one.lower() for one in value)


def _first(value: object, what: str, path: str) -> str:
    """A path, or the first of a list of paths; we hand one file to the TLS library."""
    if isinstance(value, list) and value:
        value = value[0]
    if value is None or value == []:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise ConfigError(f"{path}: {what} = {value!r}: not a path")
    return value


def _file(name: str, path: str) -> str:
    """Relative paths count from where ``hosts.toml`` lies."""
    return os.path.join(os.path.dirname(path), name) if name else ""


def _client(value: object, path: str) -> tuple[str, str]:
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], list) is False:
        certificate, key = (_first(one, "client", path) for one in value)
        return _file(certificate, path), _file(key, path)
    return _file(_first(value, "client", path), path), ""


def _headers(value: object, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: header is no table")
    found = {}
    for name, one in value.items():
        text = ", ".join(one) if _texts(one) else one
        clean = isinstance(text, str) and (name + text).isascii() and (name + text).isprintable()
        if not clean or not name or ":" in name or " " in name:
            raise ConfigError(f"{path}: header.{name!r} cannot be sent")
        found[name] = text
    return found


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
