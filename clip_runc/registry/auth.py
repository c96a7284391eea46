"""Proving who we are: anonymous, Basic, and Bearer tokens from a token server.

Protocols: RFC 7617, RFC 6750, and distribution's docs/spec/auth/{token,oauth}.md.  One
``Authorizer`` serves all threads that talk to one repository; a token is asked for once
however many of them were refused.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import oras.auth.base
import requests

from clip_runc.errors import BadResponse, Unauthorized
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.http_errors import from_status, library_errors
from clip_runc.registry.reference import is_loopback
from clip_runc.registry.retry import remaining

_TOKEN_LIMIT = 1 << 20
_SHORTEST_LIFE = 60.0  # a server that names no or a shorter time means this (token.md)
_MARGIN = 0.1
_CLIENT_ID = "clip-runc"

Send = Callable[..., requests.Response]


class Challenge:
    """A ``WWW-Authenticate`` header (RFC 9110, 11.6.1): its scheme in lower case, its fields."""

    def __init__(self, header: str) -> None:
        # Several challenges may share one header; the one that we can answer counts.
        match = re.search(r"\b(bearer|basic)\b", header[:8192], re.IGNORECASE)
        self.scheme = match[1].lower() if match else ""
        rest = header[match.end() : 8192] if match else ""
        self.fields = {
            name.lower(): quoted or plain
            for name, quoted, plain in re.findall(
                r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^",\s]+))', rest
            )
        }


class _Token:
    __slots__ = ("expires", "header")

    def __init__(self, header: str, seconds: float | None) -> None:
        self.header = header
        self.expires = None if seconds is None else time.monotonic() + seconds * (1 - _MARGIN)

    @property
    def stale(self) -> bool:
        return self.expires is not None and time.monotonic() >= self.expires


class Authorizer(oras.auth.base.AuthBackend):  # type: ignore[misc]  # oras has no types
    """What goes into ``Authorization`` for one repository.  Thread-safe.

    ``renew_credentials`` is asked for fresh ones when the registry refuses those we have: ECR's
    passwords live for twelve hours, and only a credential helper can make another.
    """

    def __init__(
        self,
        send: Send,
        repository: str,
        credentials: Credentials | None,
        *,
        plain_http: bool = False,
        renew_credentials: Callable[[], Credentials | None] | None = None,
    ) -> None:
        super().__init__()
        self._send = send
        self._repository = repository
        self._credentials = credentials
        self._plain_http = plain_http
        self._renew_credentials = renew_credentials
        self._tokens: dict[str, _Token] = {}
        self._challenges: dict[str, Challenge] = {}
        self._lock = threading.Lock()

    def load_configs(self, container: object, configs: object = None) -> None:
        """oras would read ``~/.docker`` here; credentials come from the constructor alone."""

    def replace_credentials(self, credentials: Credentials | None) -> None:
        """Use other credentials from now on; tokens got with the old ones are dropped."""
        with self._lock:
            self._credentials = credentials
            self._tokens.clear()

    def header(self, actions: str, deadline: float | None = None) -> str:
        """The ``Authorization`` for ``actions`` ("pull" or "pull,push"), ``""`` for none yet."""
        token = self._tokens.get(actions)
        if token is None:
            return ""
        if token.stale and self.renew(actions, "", token.header, deadline):
            token = self._tokens.get(actions, token)
        return token.header

    def renew(self, actions: str, challenge: str, sent: str, deadline: float | None) -> bool:
        """After 401 or 403 to a request that carried ``sent``: whether another try makes sense.

        ``challenge`` is the ``WWW-Authenticate`` of that answer; where it is empty (ECR says
        403 and nothing else) the last one counts.  Raises ``Unauthorized`` when the token
        server says no, ``Transient`` when it cannot be asked now.
        """
        if not self._lock.acquire(timeout=remaining(deadline, 300.0, "token server")):
            return False
        try:
            current = self._tokens.get(actions)
            if current is not None and current.header != sent and not current.stale:
                return True  # another thread has been here
            asked = Challenge(challenge)
            if not asked.scheme and actions in self._challenges:
                asked = self._challenges[actions]
            self._challenges[actions] = asked
            token = self._authorize(asked, actions, sent, deadline)
            if token is None:
                return False
            self._tokens[actions] = token
            return True
        finally:
            self._lock.release()

    def _authorize(
        self, asked: Challenge, actions: str, sent: str, deadline: float | None
    ) -> _Token | None:
        if asked.scheme == "bearer":
            try:
                return self._bearer(asked, actions, sent, deadline)
            except Unauthorized:
                if not self._fresh_credentials():
                    raise
                return self._bearer(asked, actions, sent, deadline)
        if asked.scheme != "basic":
            return None
        header = self._credentials.basic() if self._credentials else ""
        if header == sent or not header:
            if not self._fresh_credentials() or self._credentials is None:
                return None
            header = self._credentials.basic()
        return _Token(header, None) if header and header != sent else None

    def _fresh_credentials(self) -> bool:
        if self._renew_credentials is None:
            return False
        fresh = self._renew_credentials()
        if fresh is None or fresh == self._credentials:
            return False
        self._credentials = fresh
        return True

    def _bearer(
        self, asked: Challenge, actions: str, sent: str, deadline: float | None
    ) -> _Token | None:
        known = self._credentials
        if known and known.registry_token:
            header = _bearer_header(known.registry_token)
            return _Token(header, None) if header != sent else None
        realm = asked.fields.get("realm", "")
        self._check_realm(realm)
        query = {
            "service": asked.fields.get("service", ""),
            "scope": asked.fields.get("scope") or f"repository:{self._repository}:{actions}",
        }
        query = {name: value for name, value in query.items() if value}
        return _token(self._ask(realm, query, deadline), self)

    def _check_realm(self, realm: str) -> None:
        try:
            url = urlsplit(realm)
            host = url.netloc
        except ValueError:
            url, host = urlsplit(""), ""
        plain = url.scheme == "http" and (self._plain_http or is_loopback(host))
        if not host or not (url.scheme == "https" or plain):
            raise BadResponse(
                f"the registry names {realm[:200]!r} as its token server",
                "passwords are sent over TLS only; see plain_http in the configuration",
            )

    def _ask(self, realm: str, query: dict[str, str], deadline: float | None) -> bytes:
        host = urlsplit(realm).netloc
        known = self._credentials
        if known and known.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": known.identity_token}
            response = self._post(realm, {**query, **form}, deadline)
        else:
            headers = {"Authorization": known.basic()} if known and known.basic() else {}
            response = self._send("GET", realm, headers=headers, deadline=deadline, params=query)
            if response.status_code in (404, 405) and known and known.password:
                response.close()
                form = {
                    "grant_type": "password",
                    "username": known.username,
                    "password": known.password,
                }
                response = self._post(realm, {**query, **form}, deadline)
        if response.status_code != 200:
            status = response.status_code
            if 400 <= status < 404:
                response.status_code = 401  # oauth.md: wrong refresh tokens are a plain 400
            raise from_status(response, host, f"token for {self._repository}")
        with response, library_errors(host):
            return bytes(response.raw.read(_TOKEN_LIMIT, decode_content=True))

    def _post(self, realm: str, form: dict[str, str], deadline: float | None) -> requests.Response:
        form = {**form, "client_id": _CLIENT_ID}
        return self._send("POST", realm, headers={}, deadline=deadline, data=form)

    def remember_refresh_token(self, value: str) -> None:
        """Take the refresh token that a token server handed out in place of the last one."""
        if self._credentials is not None and self._credentials.identity_token:
            self._credentials = Credentials(self._credentials.username, identity_token=value)


def _bearer_header(token: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise BadResponse("the token server's token holds characters that no header may")
    return f"Bearer {token}"


def _token(body: bytes, owner: Authorizer) -> _Token:
    """Parse a token server's answer (token.md, "Token Response Fields")."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise BadResponse("the token server's answer is not a JSON object")
    value = answer.get("token") or answer.get("access_token")
    if not isinstance(value, str):
        raise BadResponse("the token server's answer holds no token")
    refresh = answer.get("refresh_token")
    if isinstance(refresh, str) and refresh:
        owner.remember_refresh_token(refresh)
    seconds = answer.get("expires_in")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        seconds = 0.0
    return _Token(_bearer_header(value), max(min(float(seconds), 86400.0), _SHORTEST_LIFE))
