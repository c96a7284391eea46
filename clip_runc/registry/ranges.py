"""Whether an answer holds the bytes that were asked for, judged by its head alone."""

from __future__ import annotations

import re

import requests

from clip_runc.errors import BadResponse


def check_range(response: requests.Response, start: int, end: int, what: str) -> BadResponse | None:
    """What is wrong with an answer to ``Range: bytes=start-(end-1)``; ``None`` when nothing is.

    RFC 9110, 14.4 and 15.3.7.  200 means the whole blob, which will do only where the range is
    the whole blob.
    """
    if response.status_code == 200:
        if start == 0 and content_length(response) == end:
            return _encoded(response, what)
        return BadResponse(
            f"{what}: the registry ignores ranges and sent the whole blob",
            "a cache or proxy in front of it may do that",
        )
    sent = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:[0-9]{1,18}|\*)", sent.strip())
    if match is None or (int(match[1]), int(match[2])) != (start, end - 1):
        return BadResponse(
            f"{what}: asked for bytes {start}-{end - 1}, the registry sent {sent[:80]!r}"
        )
    length = content_length(response)
    if length is not None and length != end - start:
        return BadResponse(f"{what}: {length} bytes for a range of {end - start}")
    return _encoded(response, what)


def check_whole(response: requests.Response, size: int, what: str) -> BadResponse | None:
    """What is wrong with an answer to a request for a whole blob of ``size`` bytes."""
    length = content_length(response)
    if response.status_code != 200:
        return BadResponse(f"{what}: asked for the whole blob, got a part of it")
    if length is not None and length != size:
        return BadResponse(f"{what}: {length} bytes, where its descriptor says {size}")
    return _encoded(response, what)


def _encoded(response: requests.Response, what: str) -> BadResponse | None:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    return BadResponse(f"{what}: encoded as {encoding[:40]!r}, which nobody asked for")


def content_length(response: requests.Response) -> int | None:
    """Bytes of the body by its header; None where that says nothing of use."""
    value = response.headers.get("Content-Length", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
