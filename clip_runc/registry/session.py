"""What a transport is made with: a session of requests, certificates, oras's container."""

from __future__ import annotations

import os
import ssl
from http.cookiejar import DefaultCookiePolicy

import oras.container
import requests
from requests.adapters import HTTPAdapter

from clip_runc import __version__
from clip_runc.registry.reference import Reference

CONNECTIONS = 32
_CERTS_D = ("/etc/containers/certs.d", "/etc/docker/certs.d")


class _Session(requests.Session):
    """A session that follows no redirect and reads no netrc file by itself."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # requests would read the whole body of a redirect, whatever its size, to prepare the
        # next request even with allow_redirects=False.
        return None


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An ``auth`` that does nothing: without one, ~/.netrc would replace our header."""
    return request


def new_session(*, trust_env: bool) -> requests.Session:
    session = _Session()
    session.auth = _no_netrc
    # A registry that sees its cookies come back takes us for a browser (Harbor's CSRF check).
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # Proxies of the environment are not asked for this machine itself.
    session.trust_env = trust_env
    session.headers["User-Agent"] = f"clip-runc/{__version__}"
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(CONNECTIONS, CONNECTIONS, max_retries=0))
    return session


def container_of(reference: Reference) -> oras.container.Container:
    """oras's container, filled in from ours: its own parser takes ``a.b/c`` for a host."""
    container = oras.container.Container(f"{reference.host}/x")
    namespace, _, repository = reference.repository.rpartition("/")
    container.registry = reference.host
    container.namespace = namespace
    container.repository = repository
    container.tag = reference.tag
    container.digest = reference.digest
    return container


def system_ca() -> str | bool:
    """The system's certificates, as docker and podman use; requests would use its own."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if os.environ.get(name):
            return os.environ[name]
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or True


def registry_ca(host: str) -> str:
    """``ca.crt`` for this registry where docker and podman look for it, or ``""``."""
    candidates = (f"{directory}/{host}/ca.crt" for directory in _CERTS_D)
    return next((path for path in candidates if os.access(path, os.R_OK)), "")
