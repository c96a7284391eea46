"""HTTP to one registry: a session, its connections, authorization, redirects.

oras's ``Registry`` with its ``do_request`` replaced: that one has no time-outs, sleeps up to
two minutes over a refused connection and follows redirects by itself.  What oras does on top
(upload sessions, URLs of the API) goes through ours.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, urljoin, urlsplit

import oras.provider
import requests
import urllib3

from clip_runc.errors import BadResponse
from clip_runc.registry.arrivals import MANY, Arrivals
from clip_runc.registry.auth import Authorizer
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.hosts import Place
from clip_runc.registry.http_errors import (
    Transient,
    denied,
    from_status,
    library_errors,
    retry_after,
)
from clip_runc.registry.ranges import content_length
from clip_runc.registry.reference import Reference, is_loopback
from clip_runc.registry.retry import Patience, remaining
from clip_runc.registry.session import container_of, new_session, registry_ca, system_ca

REDIRECT_SECONDS = 120.0
_REDIRECTS = 5
_REMEMBERED = 4096
_RENEWALS = 2
_ANSWER_LIMIT = 64 << 10
_TRY_AGAIN = (408, 425, 429)


class Transport(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """Requests to the registry of ``reference``.  Thread-safe.

    ``timeout`` bounds each wait for bytes, ``connect_timeout`` each connection, in seconds.
    Methods raise ``RegistryError``, and ``Transient`` where so documented.
    """

    session: requests.Session
    prefix: str

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
    ) -> None:
        self.host = place.host if place else reference.host
        self.repository = reference.repository
        loopback = is_loopback(self.host)
        insecure = place.scheme == "http" if place else plain_http or loopback
        if self.host != reference.host:
            credentials = renew_credentials = None  # they are for the registry, not for a mirror
        super().__init__(hostname=self.host, insecure=insecure, tls_verify=True)
        self.session = new_session(trust_env=not loopback)
        self.timeout, self.connect_timeout, self.attempts = timeout, connect_timeout, attempts
        self.container = container_of(reference)
        self.container.registry = self.host
        self.origin = f"{self.prefix}://{self.host}"
        self.base = f"{self.origin}{place.path if place else '/v2'}/{reference.repository}"
        # a mirror of many registries is told which one is meant, as by containerd
        self.query = "" if self.host == reference.host else f"?ns={quote(reference.registry)}"
        self._place = place
        if place and place.skip_verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.auth = Authorizer(
            self.send,
            reference.repository,
            credentials,
            plain_http=insecure,
            renew_credentials=renew_credentials,
        )
        self._insecure = insecure
        self._name = reference.name
        self._verify = {self.host: registry_ca(self.host)}
        self._ca = system_ca()
        self._targets: dict[str, tuple[str, float]] = {}
        self._targets_lock = threading.Lock()

    def blob_url(self, digest: str) -> str:
        return f"{self.base}/blobs/{digest}{self.query}"

    def manifest_url(self, version: str) -> str:
        return f"{self.base}/manifests/{version}{self.query}"

    def do_request(  # the signature is oras's
        self,
        url: str,
        method: str = "GET",
        data: dict[str, object] | bytes | None = None,
        headers: dict[str, str] | None = None,
        json: dict[str, object] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """One request of the API with renewal and retries; what is final and below 500 returns.

        A PATCH is sent once: the registry may have taken the bytes before it failed.  Without
        ``stream`` at most 64 KiB of the body are read, and thrown away: the head is what counts.
        """
        patience = Patience(1 if method == "PATCH" else self.attempts)
        while True:
            try:
                response = self.exchange(method, url, headers=headers or {}, data=data, json=json)
                if response.status_code in _TRY_AGAIN or response.status_code >= 500:
                    raise from_status(response, self.host, self._name)
                if not stream:
                    for _ in self.pieces(response, _ANSWER_LIMIT):
                        continue
                return response
            except Transient as problem:
                patience.failed(problem)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        deadline: float | None = None,
        **body: object,
    ) -> requests.Response:
        """One request, with authorization asked for and renewed.  May raise ``Transient``.

        The body is not read.  ``Authorization`` goes to the registry's own origin only.
        """
        if not self.is_registry(url):
            return self.send(method, url, headers=headers, deadline=deadline, **body)
        if self._place is not None:
            headers = {**headers, **self._place.headers}
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        for renewal in range(_RENEWALS + 1):
            sent = self.auth.header(actions, deadline)
            with_auth = {**headers, "Authorization": sent} if sent else headers
            response = self.send(method, url, headers=with_auth, deadline=deadline, **body)
            if response.status_code not in (401, 403):
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            with response:
                if renewal == _RENEWALS or not self.auth.renew(actions, challenge, sent, deadline):
                    raise from_status(response, self.host, self._name)
        raise denied(self.host, self._name, 401)

    def get(
        self, url: str, *, headers: dict[str, str], deadline: float | None = None
    ) -> requests.Response:
        """GET with redirects followed.  May raise ``Transient``.

        Where the last redirect of ``url`` led is asked directly for ``REDIRECT_SECONDS``, or until
        it fails.  The body is not read.
        """
        known = self._remembered(url)
        if known is not None:
            response = self._get_remembered(url, known, headers, deadline)
            if response is not None:
                return response
        response = self.exchange("GET", url, headers=headers, deadline=deadline)
        here = url
        for _ in range(_REDIRECTS):
            if not response.is_redirect:
                if here != url and response.status_code in (200, 206):
                    self._remember(url, here)
                return response
            here = self._next_hop(here, response)
            response = self.exchange("GET", here, headers=headers, deadline=deadline)
            if response.status_code >= 400 and not self.is_registry(here):
                # Signed URLs expire: the registry will give us another.
                raise _storage_refused(response, here)
        response.close()
        raise BadResponse(f"registry {self.host}: more than {_REDIRECTS} redirects")

    def forget(self, url: str) -> bool:
        """Do not use the remembered redirect of ``url`` again; whether there was one."""
        with self._targets_lock:
            return self._targets.pop(url, None) is not None

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        deadline: float | None = None,
        **body: object,
    ) -> requests.Response:
        """One request, nothing added and nothing followed.  May raise ``Transient``."""
        host = urlsplit(url).netloc
        timeout = (
            remaining(deadline, self.connect_timeout, host),
            remaining(deadline, self.timeout, host),
        )
        with library_errors(host):
            return self.session.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
                verify=self._trust(host),
                cert=self._client_certificate(host),
                **body,  # type: ignore[arg-type]  # data, json or params, as our callers wrote
            )

    def _trust(self, host: str) -> str | bool:
        if self._place is not None and host == self.host:
            if self._place.skip_verify:
                return False
            if self._place.ca:
                return self._place.ca
        return self._verify.get(host) or self._ca

    def _client_certificate(self, host: str) -> str | tuple[str, str] | None:
        place = self._place
        if place is None or host != self.host or not place.certificate:
            return None
        return (place.certificate, place.key) if place.key else place.certificate

    def pieces(
        self, response: requests.Response, length: int, deadline: float | None = None
    ) -> Iterator[bytes]:
        """At most ``length`` bytes of a body as they arrive.  May raise ``Transient``.

        Ends early when the body does.  A body read to its end leaves the connection for reuse;
        otherwise it is closed.
        """
        raw, left = response.raw, length
        host = urlsplit(str(response.url)).netloc
        beyond = max(0, length - (content_length(response) or 0))  # asked for, and not in the body
        arrivals = Arrivals(_socket_of(raw))
        try:
            while left:
                _limit_socket(raw, deadline, self.timeout, host)
                arrivals.before(left - beyond)
                with library_errors(host):
                    piece = raw.read1(min(left, MANY), decode_content=False)
                if not piece:
                    break
                arrivals.after(len(piece))
                left -= len(piece)
                yield piece
        finally:
            # urllib3 took the connection back at the end of the body; else this closes it.
            response.close()

    def close(self) -> None:
        """Close the connections that are kept for reuse."""
        self.session.close()

    def is_registry(self, url: str) -> bool:
        """Whether the URL is at the registry's own origin."""
        return _origin(url) == self.origin.lower()

    def _next_hop(self, here: str, response: requests.Response) -> str:
        response.close()
        try:
            target = urljoin(here, response.headers["Location"])
            url = urlsplit(target)
            host = url.netloc
        except ValueError:
            raise BadResponse(f"registry {self.host}: a redirect to a malformed URL") from None
        plain_ok = self._insecure or is_loopback(host)
        if not host or url.scheme not in ("https", "http") or "@" in host:
            raise BadResponse(f"registry {self.host}: a redirect to no HTTP URL")
        if url.scheme == "http" and not plain_ok:
            raise BadResponse(f"registry {self.host}: a redirect from TLS to plain HTTP at {host}")
        return target

    def _remembered(self, url: str) -> str | None:
        with self._targets_lock:
            target, until = self._targets.get(url, (None, 0.0))
            if target is not None and time.monotonic() >= until:
                del self._targets[url]
                return None
            return target

    def _remember(self, url: str, target: str) -> None:
        with self._targets_lock:
            if len(self._targets) >= _REMEMBERED:
                self._targets.clear()
            self._targets[url] = target, time.monotonic() + REDIRECT_SECONDS

    def _get_remembered(
        self, url: str, target: str, headers: dict[str, str], deadline: float | None
    ) -> requests.Response | None:
        try:
            response = self.exchange("GET", target, headers=headers, deadline=deadline)
        except Transient as problem:
            self.forget(url)
            problem.immediate = True
            raise
        if response.status_code in (200, 206):
            return response
        self.forget(url)
        response.close()
        return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _storage_refused(response: requests.Response, url: str) -> Transient:
    host = urlsplit(url).netloc
    error = BadResponse(f"{host}, where the registry redirects to, answered {response.status_code}")
    delay = retry_after(response)
    response.close()
    return Transient(error, delay=delay)


def _limit_socket(raw: object, deadline: float | None, timeout: float, host: str) -> None:
    """Let no wait for bytes go beyond ``deadline``: a drip of bytes restarts each time-out."""
    left = remaining(deadline, timeout, host)
    if left >= timeout:
        return
    sock = _socket_of(raw)
    if sock is not None:
        sock.settimeout(left)


def _socket_of(raw: object) -> socket.socket | None:
    """The socket that a response comes from, while there is one."""
    sock: socket.socket | None = getattr(getattr(raw, "connection", None), "sock", None)
    return sock
