"""The client against every fault of the fake registry."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from clip_runc.errors import (
    BadResponse,
    DigestMismatch,
    NotFound,
    RegistryError,
    RegistryUnreachable,
)
from clip_runc.registry import image, transport
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry

Connect = Callable[..., Registry]
DATA = random.Random(7).randbytes(3 << 20)  # what the fixture ``fake`` holds
DIGEST = image.digest_of(DATA)
SIZE = len(DATA)


def read(registry: Registry, start: int = 1000, end: int = 300_000, seconds: float = 20) -> bytes:
    return registry.read_range(DIGEST, start, end, deadline=time.monotonic() + seconds)


# Manifests


def test_resolve(fake: FakeRegistry, connect: Connect) -> None:
    found = connect(fake).resolve("linux/amd64")
    assert found.platform == "linux/amd64"
    assert found.manifest_digest == image.digest_of(found.manifest)
    assert [layer.digest for layer in found.layers] == [DIGEST]
    assert found.layers[0].size == SIZE
    assert found.diff_ids == (DIGEST,)
    assert found.config_descriptor.digest == image.digest_of(found.config)


def test_resolve_by_digest(fake: FakeRegistry) -> None:
    digest = fake.add_image("team/app", "2", [b"x"])
    with Registry(fake.reference("team/app", digest)) as registry:
        assert registry.resolve().manifest_digest == digest


@pytest.mark.parametrize("kind", [image.OCI_INDEX, image.DOCKER_LIST])
def test_resolve_through_indexes(fake: FakeRegistry, kind: str) -> None:
    amd = fake.add_image("team/app", "a", [b"a"])
    arm = fake.add_image("team/app", "b", [b"b"], config={"architecture": "arm64"})
    inner = fake.add_index(
        "team/app", "i", [(amd, {"os": "linux", "architecture": "amd64"})], media_type=kind
    )
    entries = [(inner, None), (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"})]
    fake.add_index("team/app", "multi", entries, media_type=kind)
    with Registry(fake.reference("team/app", "multi")) as registry:
        assert registry.resolve("linux/amd64").manifest_digest == amd
        assert registry.resolve("linux/arm64/v8").manifest_digest == arm
        with pytest.raises(NotFound, match="no such platform: linux/s390x: have linux/amd64"):
            registry.resolve("linux/s390x")


def test_indexes_nested_too_deep(fake: FakeRegistry) -> None:
    digest = fake.add_image("team/app", "0", [b"a"])
    for depth in range(6):
        digest = fake.add_index("team/app", f"i{depth}", [(digest, None)])
    with (
        Registry(fake.reference("team/app", "i5")) as registry,
        pytest.raises(BadResponse, match="deep"),
    ):
        registry.resolve()
    with Registry(fake.reference("team/app", "i2")) as registry:
        assert registry.resolve().layers[0].size == 1


def test_a_single_image_of_another_platform(fake: FakeRegistry) -> None:
    fake.add_image("team/app", "odd", [b"a"], config={"architecture": "s390x"})
    with Registry(fake.reference("team/app", "odd")) as registry:
        assert registry.resolve().platform == "linux/s390x"
        with pytest.raises(NotFound, match="have linux/s390x"):
            registry.resolve("linux/amd64")


def test_docker_schema_2(fake: FakeRegistry) -> None:
    fake.add_image(
        "team/app",
        "docker",
        [b"x"],
        media_type=image.DOCKER_MANIFEST,
        config_type=image.DOCKER_CONFIG,
    )
    with Registry(fake.reference("team/app", "docker")) as registry:
        assert registry.resolve().media_type == image.DOCKER_MANIFEST


def test_schema_1_is_refused(fake: FakeRegistry) -> None:
    fake.add_manifest("team/app", "old", {"schemaVersion": 1}, image.DOCKER_SCHEMA1[1])
    with (
        Registry(fake.reference("team/app", "old")) as registry,
        pytest.raises(BadResponse, match="schema 1"),
    ):
        registry.resolve()


def test_manifest_too_large(fake: FakeRegistry) -> None:
    fake.add_manifest("team/app", "big", b" " * (image.MANIFEST_LIMIT + 1), image.OCI_MANIFEST)
    with (
        Registry(fake.reference("team/app", "big")) as registry,
        pytest.raises(BadResponse, match="more than 4194304 bytes"),
    ):
        registry.manifest()


def test_missing_manifest_names_the_reference(fake: FakeRegistry) -> None:
    with (
        Registry(fake.reference("team/none", "7")) as registry,
        pytest.raises(NotFound, match=f"{fake.host}/team/none:7"),
    ):
        registry.resolve()


@pytest.mark.parametrize("by_digest", [False, True])
def test_flipped_manifest(fake: FakeRegistry, by_digest: bool) -> None:
    digest = fake.add_image("team/app", "1.0", [b"x"])
    with Registry(fake.reference("team/app", digest if by_digest else "1.0")) as registry:
        fault = fake.fault("flip", 3, times=1, on="/manifests/")
        assert registry.manifest()[2] == digest
        fault.times = -1
        with pytest.raises(DigestMismatch, match="manifest has digest"):
            registry.manifest()


def test_short_manifest(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("short", 10, on="/manifests/")
    assert connect(fake).manifest()[1] == image.OCI_MANIFEST


def test_flipped_config(fake: FakeRegistry, connect: Connect) -> None:
    fault = fake.fault("flip", 3)
    registry = connect(fake)
    registry.resolve()
    fault.times = -1
    with pytest.raises(DigestMismatch):
        registry.resolve()


def test_blob_limits(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    assert registry.blob(DIGEST, SIZE) == DATA
    with pytest.raises(BadResponse, match="at most"):
        registry.blob(DIGEST, image.CONFIG_LIMIT + 1)


# Ranges


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, SIZE), (SIZE - 1, SIZE), (5, 5), (70_000, 2_000_000)]
)
def test_read_range(fake: FakeRegistry, connect: Connect, start: int, end: int) -> None:
    assert connect(fake).read_range(DIGEST, start, end) == DATA[start:end]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("status", 500),
        ("status", 502),
        ("status", 503),
        ("status", 408),
        ("status", 429),
        ("close", 0),
        ("short", 0),
        ("short", 100_000),
        ("ignore_range", 0),
        ("content_range", "bytes 0-298999/3145728"),
        ("content_range", "bytes 1000-299998/3145728"),
        ("content_range", "rubbish"),
        ("content_range", ""),
    ],
)
def test_a_fault_is_survived(
    fake: FakeRegistry, connect: Connect, kind: str, value: int | str
) -> None:
    fake.fault(kind, value, times=2)
    assert read(connect(fake)) == DATA[1000:300_000]
    assert len(fake.requests("GET", "/blobs/")) == 3


@pytest.mark.parametrize(
    ("kind", "value", "error", "reason"),
    [
        ("status", 500, RegistryError, r"answered 500: FAULT \(fake\); tried 4 times"),
        ("status", 429, RegistryError, "answered 429"),
        ("status", 404, NotFound, f"team/app@{DIGEST}: not found"),
        ("status", 416, BadResponse, "answered 416"),
        ("close", 0, RegistryUnreachable, "connection"),
        ("short", 0, RegistryUnreachable, "broke"),
        ("ignore_range", 0, BadResponse, "ignores ranges"),
        ("content_range", "x", BadResponse, "asked for bytes 1000-299999"),
    ],
)
def test_a_fault_for_ever(
    fake: FakeRegistry,
    connect: Connect,
    kind: str,
    value: int | str,
    error: type[RegistryError],
    reason: str,
) -> None:
    fake.fault(kind, value, times=-1)
    with pytest.raises(error, match=reason):
        read(connect(fake, attempts=4))


def test_an_ignored_range_is_not_read(fake: FakeRegistry, connect: Connect) -> None:
    big = bytes(64 << 20)
    digest = fake.add_blob(big)
    fake.fault("ignore_range", times=-1)
    with pytest.raises(BadResponse, match="ignores ranges"):
        connect(fake, attempts=2).read_range(digest, 5, 10)
    assert fake.bytes_sent < 24 << 20  # what fits into the socket buffers, twice


def test_a_short_body_is_continued_where_it_stopped(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("short", 100_000, times=1)
    assert read(connect(fake)) == DATA[1000:300_000]
    ranges = [seen.headers["Range"] for seen in fake.requests("GET", "/blobs/")]
    assert ranges == ["bytes=1000-299999", "bytes=101000-299999"]


def test_wrong_encoding_is_rejected(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("headers", headers={"Content-Encoding": "gzip"}, times=-1)
    with pytest.raises(BadResponse, match="encoded as 'gzip'"):
        read(connect(fake, attempts=2))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(fake: FakeRegistry, connect: Connect, status: int) -> None:
    fake.fault("status", status, headers={"Retry-After": "1"})
    begin = time.monotonic()
    assert read(connect(fake)) == DATA[1000:300_000]
    assert time.monotonic() - begin >= 1


def test_retry_after_beyond_the_deadline_fails_at_once(
    fake: FakeRegistry, connect: Connect
) -> None:
    fake.fault("status", 429, headers={"Retry-After": "100"})
    begin = time.monotonic()
    with pytest.raises(RegistryError, match="429"):
        read(connect(fake), seconds=60)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(("kind", "value"), [("stall", 20), ("stall_body", 20), ("drip", 0.01)])
def test_a_registry_that_hangs_fails_by_the_deadline(
    fake: FakeRegistry, connect: Connect, kind: str, value: float
) -> None:
    fake.fault(kind, value, times=-1)
    begin = time.monotonic()
    with pytest.raises(RegistryUnreachable, match="no answer"):
        read(connect(fake), seconds=0.5)
    assert 0.3 < time.monotonic() - begin < 15


def test_a_stall_ends_with_the_timeout_and_another_attempt(
    fake: FakeRegistry, connect: Connect
) -> None:
    fake.fault("stall", 20, times=1)
    begin = time.monotonic()
    assert read(connect(fake, timeout=0.3)) == DATA[1000:300_000]
    assert time.monotonic() - begin < 15


def test_a_stalled_blob_does_not_stop_others(fake: FakeRegistry, connect: Connect) -> None:
    other = fake.add_blob(b"other")
    fake.fault("stall", 20, times=-1, on=DIGEST)
    registry = connect(fake)
    with ThreadPoolExecutor(6) as pool:
        stalled = [pool.submit(read, registry, seconds=5.0) for _ in range(5)]
        assert registry.read_range(other, 0, 5) == b"other"
        assert not any(one.done() for one in stalled)
        assert all(isinstance(s.exception(), RegistryUnreachable) for s in stalled)


def test_nobody_listens(connect: Connect) -> None:
    with FakeRegistry() as fake:
        registry = connect(fake, attempts=2)
    with pytest.raises(RegistryUnreachable, match="connection refused") as caught:
        registry.resolve()
    assert "is the registry running" in caught.value.hint


def test_recovers_when_the_registry_is_back(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake, attempts=2)
    fault = fake.fault("close", times=-1)
    with pytest.raises(RegistryUnreachable):
        read(registry)
    fault.times = 0
    assert read(registry) == DATA[1000:300_000]


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4)])
def test_impossible_ranges(fake: FakeRegistry, connect: Connect, start: int, end: int) -> None:
    with pytest.raises(BadResponse):
        connect(fake).read_range(DIGEST, start, end)


def test_digest_that_is_none_is_not_put_into_a_url(fake: FakeRegistry, connect: Connect) -> None:
    with pytest.raises(BadResponse):
        connect(fake).read_range("../../../token", 0, 5)
    assert fake.seen == []


def test_connections_are_reused_by_many_threads(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    with ThreadPoolExecutor(8) as pool:
        starts = [i * 10_000 for i in range(200)]
        results = pool.map(lambda s: registry.read_range(DIGEST, s, s + 10_000), starts)
        assert all(data == DATA[s : s + 10_000] for s, data in zip(starts, results, strict=True))
    assert fake.connections <= 8


# Streams


def test_stream(fake: FakeRegistry, connect: Connect) -> None:
    registry = connect(fake)
    assert b"".join(registry.stream(DIGEST, SIZE)) == DATA
    assert "Range" not in fake.requests("GET", "/blobs/")[0].headers
    assert b"".join(registry.stream(DIGEST, SIZE, SIZE - 7)) == DATA[-7:]
    assert fake.connections == 1


def test_stream_goes_on_after_breaks(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("short", 700_000, times=4)
    assert b"".join(connect(fake, attempts=6).stream(DIGEST, SIZE)) == DATA
    ranges = [seen.headers.get("Range") for seen in fake.requests("GET", "/blobs/")]
    assert ranges[:2] == [None, f"bytes=700000-{SIZE - 1}"]


def test_progress_resets_the_count_of_attempts(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("short", 1 << 20, times=2)
    assert b"".join(connect(fake, attempts=1 + 1).stream(DIGEST, SIZE)) == DATA


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_stream_of_another_size_is_refused(fake: FakeRegistry, connect: Connect, size: int) -> None:
    with pytest.raises(BadResponse, match="where its descriptor says"):
        list(connect(fake, attempts=2).stream(DIGEST, size))


def test_stream_never_gives_more_than_size(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("headers", headers={"Content-Length": "", "Connection": "close"}, times=-1)
    data = b"".join(connect(fake).stream(DIGEST, 1000))
    assert data == DATA[:1000]


def test_a_stream_that_is_abandoned_closes_its_connection(
    fake: FakeRegistry, connect: Connect
) -> None:
    registry = connect(fake)
    stream = registry.stream(DIGEST, SIZE)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # the Iterator is a generator
    assert read(registry) == DATA[1000:300_000]
    assert threading.active_count() < 20


# Redirects


def test_redirects_are_followed_without_authorization_and_remembered(connect: Connect) -> None:
    with FakeRegistry(auth="token") as fake, FakeRegistry(storage=fake) as storage:
        fake.add_image("team/app", "1.0", [DATA])
        fake.fault("redirect", storage.url, times=-1)
        registry = connect(fake)
        registry.resolve()
        before = len(fake.requests("GET", DIGEST))
        for _ in range(5):
            assert read(registry) == DATA[1000:300_000]
        assert len(fake.requests("GET", DIGEST)) == before + 1
        assert len(storage.requests("GET", DIGEST)) == 5
        assert not any("Authorization" in seen.headers for seen in storage.seen)
        assert any("Authorization" in seen.headers for seen in fake.seen)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("status", 403), ("status", 404), ("status", 500), ("close", 0), ("short", 9)],
)
def test_a_remembered_redirect_is_dropped_when_it_fails(
    fake: FakeRegistry, connect: Connect, kind: str, value: int
) -> None:
    with FakeRegistry(storage=fake) as storage:
        fake.fault("redirect", storage.url, times=1)
        registry = connect(fake, attempts=1)
        assert read(registry) == DATA[1000:300_000]
        storage.fault(kind, value, times=-1)
        assert read(registry) == DATA[1000:300_000]
        assert len(fake.requests("GET", DIGEST)) == 2


def test_a_remembered_redirect_expires(
    fake: FakeRegistry, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "REDIRECT_SECONDS", 0.0)
    with FakeRegistry(storage=fake) as storage:
        fake.fault("redirect", storage.url, times=-1)
        registry = connect(fake)
        read(registry)
        read(registry)
        assert len(fake.requests("GET", DIGEST)) == 2


def test_a_storage_that_refuses_is_no_matter_of_our_password(
    fake: FakeRegistry, connect: Connect
) -> None:
    with FakeRegistry(storage=fake) as storage:
        fake.fault("redirect", storage.url, times=-1)
        storage.fault("status", 403, times=-1)
        with pytest.raises(BadResponse, match="where the registry redirects to, answered 403"):
            read(connect(fake, attempts=2))


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("ftp://127.0.0.1", "no HTTP URL"),
        ("http://user:secret@127.0.0.1", "no HTTP URL"),
        ("http://[::1", "malformed"),
        ("", "more than 5 redirects"),
    ],
)
def test_bad_redirects(fake: FakeRegistry, connect: Connect, target: str, reason: str) -> None:
    fake.fault("redirect", target, times=-1)
    with pytest.raises(BadResponse, match=reason) as caught:
        read(connect(fake, attempts=2))
    assert "secret" not in str(caught.value)
