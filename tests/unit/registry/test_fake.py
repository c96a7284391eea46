"""The fake is a registry by plain requests too, so that a test that uses it means something."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from clip_runc.registry import image
from clip_runc.registry.fake import FakeRegistry

DATA = bytes(range(256)) * 100
DIGEST = image.digest_of(DATA)


def get(fake: FakeRegistry, **headers: str) -> requests.Response:
    with requests.Session() as session:
        return session.get(f"{fake.url}/v2/a/b/blobs/{DIGEST}", headers=headers, timeout=10)


@pytest.fixture
def filled(fake: FakeRegistry) -> FakeRegistry:
    fake.add_blob(DATA)
    return fake


@pytest.mark.parametrize(
    ("header", "status", "content_range", "body"),
    [
        ("bytes=0-9", 206, "bytes 0-9/25600", DATA[:10]),
        ("bytes=25590-", 206, "bytes 25590-25599/25600", DATA[-10:]),
        ("bytes=25590-99999", 206, "bytes 25590-25599/25600", DATA[-10:]),
        ("bytes=25600-", 416, None, None),
        ("rubbish", 200, None, DATA),
    ],
)
def test_ranges(
    filled: FakeRegistry,
    header: str,
    status: int,
    content_range: str | None,
    body: bytes | None,
) -> None:
    answer = get(filled, Range=header)
    assert answer.status_code == status
    assert answer.headers.get("Content-Range") == content_range
    if body is not None:
        assert answer.content == body


def test_counts(filled: FakeRegistry) -> None:
    get(filled, Range="bytes=0-99")
    assert filled.bytes_sent == 100
    assert filled.connections == 1
    (seen,) = filled.requests("GET", "/blobs/")
    assert seen.headers["Range"] == "bytes=0-99"
    assert seen.host == filled.host
    assert seen.status == 206


def test_faults_are_consumed_in_order(filled: FakeRegistry) -> None:
    filled.fault("status", 500)
    filled.fault("status", 503, headers={"Retry-After": "9"}, times=2)
    assert [get(filled).status_code for _ in range(4)] == [500, 503, 503, 200]
    fault = filled.fault("flip", 3, times=-1)
    assert get(filled).content[3] == DATA[3] ^ 1
    assert fault.times < 0
    filled.heal()
    assert get(filled).content == DATA


def test_faults_choose_by_path_and_method(filled: FakeRegistry) -> None:
    filled.fault("status", 500, on="/manifests/", times=-1)
    filled.fault("status", 500, method="HEAD", times=-1)
    assert get(filled).status_code == 200


def test_stop_ends_stalls_and_connections(filled: FakeRegistry) -> None:
    filled.fault("stall", 60)
    failed: list[object] = []

    def ask() -> None:
        try:
            failed.append(get(filled).status_code)
        except requests.RequestException as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.1)
    begin = time.monotonic()
    filled.stop()
    thread.join(20)
    assert failed
    assert time.monotonic() - begin < 15


def test_storage_shares_blobs(filled: FakeRegistry) -> None:
    with FakeRegistry(storage=filled) as storage:
        assert get(storage).content == DATA
