from __future__ import annotations

import io
import socket
import ssl
import time
from email.utils import formatdate

import pytest
import requests
import urllib3
from requests.exceptions import ConnectionError, InvalidURL

from clip_runc.errors import (
    BadResponse,
    NotFound,
    RegistryError,
    RegistryUnreachable,
    Unauthorized,
)
from clip_runc.registry.http_errors import (
    LONGEST_RETRY_AFTER,
    Transient,
    from_status,
    library_errors,
    registry_message,
    retry_after,
)


def response(status: int, body: bytes = b"", **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    made.raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
    return made


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connection refused"),
        (ConnectionError(ConnectionRefusedError(111, "x")), "connection refused"),
        (ConnectionResetError(104, "Connection reset by peer"), "connection reset by peer"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "cannot be resolved"),
        (TimeoutError("x"), "no answer in time"),
        (requests.exceptions.ConnectTimeout("x"), "no connection in time"),
        (urllib3.exceptions.IncompleteRead(3, 4), "the connection broke"),
    ],
)
def test_transient(error: Exception, text: str) -> None:
    with pytest.raises(Transient) as caught, library_errors("h"):
        raise error
    assert isinstance(caught.value.error, RegistryUnreachable)
    assert text in str(caught.value.error)
    assert "registry h" in str(caught.value.error)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (InvalidURL("secret"), BadResponse, "malformed"),
        (ssl.SSLError("x"), RegistryUnreachable, "TLS failed"),
        (socket.gaierror(socket.EAI_NONAME, "x"), RegistryUnreachable, "cannot be resolved"),
    ],
)
def test_final(error: Exception, kind: type[RegistryError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught, library_errors("h"):
        raise error
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_urls_with_secrets_do_not_get_into_texts() -> None:
    url = "https://storage.example/x?X-Amz-Signature=secret"
    with pytest.raises(Transient) as caught, library_errors("storage.example"):
        raise ConnectionError(f"Max retries exceeded with url: {url}")
    assert "secret" not in str(caught.value.error)


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), library_errors("h"):
        raise KeyError("x")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (400, BadResponse),
        (418, BadResponse),
    ],
)
def test_status_final(status: int, kind: type[RegistryError]) -> None:
    assert type(from_status(response(status), "h", "h/a:1")) is kind


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_status_transient(status: int) -> None:
    error = from_status(response(status, Retry_After="7"), "h", "h/a:1")
    assert isinstance(error, Transient)
    assert error.delay == 7
    assert f"h/a:1: the registry answered {status}" in str(error.error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"errors": [{"code": "X", "message": "no \\u001b[31mway"}]}', ": no [31mway"),
        (b'{"errors": [{"code": "DENIED"}, {"code": "B"}]}', ": DENIED; B"),
        (b'{"errors": []}', ""),
        (b'{"errors": 3}', ""),
        (b'{"errors": ["x"]}', ""),
        (b"<html>", ""),
        (b"[" * 10_000, ""),
        (b'{"errors": [{"message": "' + b"x" * 1000 + b'"}]}', ": " + "x" * 200),
        (b'{"errors": [{"message": "' + b"x" * 1000_000 + b'"}]}', ""),
    ],
)
def test_message(body: bytes, text: str) -> None:
    assert registry_message(response(400, body)) == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3),
        ("0", 0),
        ("", 0),
        ("-1", 0),
        ("x", 0),
        ("99999", LONGEST_RETRY_AFTER),
        ("9" * 99, 0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after(response(429, Retry_After=value)) == seconds


def test_retry_after_as_date() -> None:
    value = formatdate(time.time() + 30, usegmt=True)
    assert 25 < retry_after(response(429, Retry_After=value)) <= 30
    assert retry_after(response(429, Retry_After=formatdate(0, usegmt=True))) == 0
