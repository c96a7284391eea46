"""The one place where errors of requests, urllib3 and HTTP become ours.

Texts name a host and what was asked for, never a URL: the query of a redirect to object
storage is a credential.  ``Transient`` marks what another attempt may mend; it is for the
retry loops of this room and never leaves it.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

import requests
import urllib3.exceptions as u3

from clip_runc.errors import BadResponse, NotFound, RegistryError, RegistryUnreachable, Unauthorized

_MESSAGE_LIMIT = 200
_BODY_LIMIT = 16 << 10
LONGEST_RETRY_AFTER = 300.0


class Transient(Exception):
    """A failed attempt: ``error`` is what to raise should it have been the last one.

    ``delay`` is the least time in seconds that the registry asked us to wait;
    ``immediate`` says that trying again at once makes sense (another way is open).
    """

    def __init__(self, error: RegistryError, *, delay: float = 0.0, immediate: bool = False):
        super().__init__(str(error))
        self.error = error
        self.delay = delay
        self.immediate = immediate


@contextmanager
def library_errors(host: str) -> Iterator[None]:
    """Turn what the HTTP libraries raise inside into ``Transient`` or ``RegistryError``."""
    try:
        yield
    except (
        requests.RequestException,
        u3.HTTPError,
        http.client.HTTPException,
        OSError,
    ) as error:
        # The chain is cut: the library's texts hold whole URLs.
        raise _translated(error, host) from None


def _translated(error: Exception, host: str) -> Exception:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError | u3.SSLError | requests.exceptions.SSLError):
            return _tls(causes, host)
    for cause in causes:
        if isinstance(cause, u3.NameResolutionError | socket.gaierror):
            return _unresolved(causes, host)
        if isinstance(cause, ConnectionRefusedError):
            return Transient(
                RegistryUnreachable(
                    f"registry {host}: connection refused", "is the registry running there?"
                )
            )
    for cause in causes:
        if isinstance(cause, u3.ConnectTimeoutError | requests.exceptions.ConnectTimeout):
            return Transient(RegistryUnreachable(f"registry {host}: no connection in time"))
        if isinstance(cause, TimeoutError | u3.ReadTimeoutError | requests.exceptions.ReadTimeout):
            return Transient(RegistryUnreachable(f"registry {host}: no answer in time"))
    if any(isinstance(c, ValueError | u3.LocationParseError) for c in causes):
        return BadResponse(f"registry {host}: a malformed URL or header")
    return Transient(RegistryUnreachable(f"registry {host}: {_reason(causes)}"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made from; the libraries put that in args and ``reason`` too."""
    queue: list[object] = [error]
    seen = 0
    while queue and seen < 16:
        item = queue.pop(0)
        if not isinstance(item, BaseException):
            continue
        seen += 1
        yield item
        queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _reason(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return str(cause.strerror).lower()
    return "the connection broke"


def _tls(causes: list[BaseException], host: str) -> RegistryError:
    reasons = (getattr(c, "reason", None) for c in causes if isinstance(c, ssl.SSLError))
    text = next((reason for reason in reasons if reason), "")
    verify = next((c for c in causes if isinstance(c, ssl.SSLCertVerificationError)), None)
    if verify is not None:
        return RegistryUnreachable(
            f"registry {host}: its TLS certificate is not trusted: {verify.verify_message}",
            f"put its CA into /etc/docker/certs.d/{host}/ca.crt or name it in $REQUESTS_CA_BUNDLE",
        )
    hint = ""
    if text in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        hint = f"does it speak plain HTTP? then add {host!r} to plain_http in the configuration"
    return RegistryUnreachable(f"registry {host}: TLS failed: {text or 'unknown reason'}", hint)


def _unresolved(causes: list[BaseException], host: str) -> Exception:
    error = RegistryUnreachable(
        f"registry {host}: the name cannot be resolved", "check the spelling and the DNS"
    )
    numbers = {c.errno for c in causes if isinstance(c, socket.gaierror)}
    return error if socket.EAI_NONAME in numbers else Transient(error)


def from_status(response: requests.Response, host: str, what: str) -> Exception:
    """The error for an answer that is not a success.  Reads at most 16 KiB of it.

    ``what`` names what was asked for: a reference, or a blob of one.
    """
    status = response.status_code
    said = registry_message(response)
    if status in (401, 403):
        return denied(host, what, status, said)
    if status == 404:
        return NotFound(f"{what}: not found in the registry{said}", "check the name and the tag")
    text = f"{what}: the registry answered {status}{said}"
    if status == 429:
        hint = "the registry limits how often it may be asked; logging in may raise the limit"
        return Transient(RegistryError(text, hint), delay=retry_after(response))
    if status in (408, 425) or status >= 500:
        return Transient(RegistryError(text), delay=retry_after(response))
    return BadResponse(text)


def denied(host: str, what: str, status: int, said: str = "") -> Unauthorized:
    """401 or 403 after everything was tried."""
    return Unauthorized(
        f"{what}: access denied by {host} ({status}){said}",
        f"log in with `docker login {host}` or `podman login {host}`, or check the name",
    )


def registry_message(response: requests.Response) -> str:
    """What the registry says in its JSON errors (OCI distribution-spec, "Error Codes"), or ``""``.

    Printable characters only, ``": "`` in front.  Leaves the connection closed.
    """
    with response:
        try:
            body = response.raw.read(_BODY_LIMIT, decode_content=True)
            errors = json.loads(body)["errors"]
            text = "; ".join(str(e.get("message") or e.get("code")) for e in errors[:3])
        except (
            u3.HTTPError,
            OSError,
            http.client.HTTPException,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
        ):
            return ""
    clean = "".join(c for c in text if c.isprintable())[:_MESSAGE_LIMIT]
    return f": {clean}" if clean else ""


def retry_after(response: requests.Response) -> float:
    """Seconds of a ``Retry-After`` header (RFC 9110, 10.2.3), 0 without one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 9:
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
