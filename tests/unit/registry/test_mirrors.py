from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clip_runc.errors import NotFound, RegistryError
from clip_runc.registry import transport
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.mirrors import Mirrors
from tests.unit.registry.conftest import DATA, DIGEST

Connect = Callable[..., Registry]
Configure = Callable[..., None]


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    """A mirror with the same image."""
    with FakeRegistry() as registry:
        registry.add_image("team/app", "1.0", [DATA])
        yield registry


@pytest.fixture
def connect(connect: Connect, tmp_path: Path) -> Connect:
    """Clients that look into our directory of ``hosts.toml``."""
    return lambda fake, **options: connect(fake, hosts_dirs=(str(tmp_path),), **options)


@pytest.fixture
def configure(tmp_path: Path, fake: FakeRegistry) -> Configure:
    """Write the ``hosts.toml`` of the fake registry."""

    def write(text: str) -> None:
        directory = tmp_path / fake.host
        directory.mkdir(exist_ok=True)
        (directory / "hosts.toml").write_text(text)

    return write


def both(registry: Registry) -> None:
    """Read all that there is, every way."""
    found = registry.resolve("linux/amd64")
    assert found.layers[0].digest == DIGEST
    assert registry.read_range(DIGEST, 1000, 2000) == DATA[1000:2000]
    assert b"".join(registry.stream(DIGEST, len(DATA))) == DATA


def test_a_mirror_serves_everything(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    configure(f'[host."{mirror.url}"]\n[host."{mirror.url}".header]\nx-team = "blue"\n')
    both(connect(fake, credentials=Credentials("user", "secret")))
    assert fake.seen == []
    assert all(one.headers["x-team"] == "blue" for one in mirror.seen)
    assert all(f"ns={fake.host.replace(':', '%3A')}" in one.path for one in mirror.seen)
    assert not any("Authorization" in one.headers for one in mirror.seen)


def test_capabilities(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    configure(f'[host."{mirror.url}"]\ncapabilities = ["pull"]\n')
    both(connect(fake))
    assert [one.path for one in fake.seen] == ["/v2/team/app/manifests/1.0"]
    assert mirror.requests("GET", "/blobs/")


def test_dead_and_failing_mirrors_cost_one_try(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    mirror.fault("status", 500, times=-1, on="/")
    configure(f'[host."http://127.0.0.1:1"]\n[host."{mirror.url}"]\n')
    both(connect(fake))
    assert len(mirror.seen) == 1
    assert len(fake.seen) >= 4


def test_a_mirror_without_the_image_goes_on_being_asked(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    mirror.manifests.clear()
    configure(f'[host."{mirror.url}"]\n')
    both(connect(fake))
    assert mirror.requests("GET", "/blobs/") and not fake.requests("GET", "/blobs/")


def test_a_lying_mirror_is_found_out(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    """Manifests and small blobs by their digest; ranges when their reader asks again."""
    configure(f'[host."{mirror.url}"]\n')
    registry = connect(fake)
    mirror.fault("flip", 5, times=-1, on="/blobs/")
    assert registry.read_range(DIGEST, 0, 100) != DATA[:100]
    assert registry.read_range(DIGEST, 10, 90) == DATA[10:90]
    assert registry.read_range(DIGEST, 90, 200) == DATA[90:200]
    assert len(mirror.requests("GET", "/blobs/")) == 1

    other = connect(fake)
    assert other.blob(DIGEST, len(DATA)) == DATA


def test_the_server_takes_the_registrys_place(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    configure(f'server = "{mirror.url}"\n')
    both(connect(fake))
    assert fake.seen == []


def test_when_all_fail_the_registrys_own_error_is_told(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    configure(f'[host."{mirror.url}"]\n')
    with pytest.raises(NotFound):
        connect(fake).manifest("2.0")


def test_a_slow_mirror_leaves_time_for_the_next(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    import time

    mirror.fault("stall", 60, times=-1, on="/")
    configure(f'[host."{mirror.url}"]\n')
    registry = connect(fake)
    assert registry.read_range(DIGEST, 0, 9, deadline=time.monotonic() + 8) == DATA[:9]


def test_override_path(
    fake: FakeRegistry, mirror: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    configure(f'[host."{mirror.url}/cache/hub"]\noverride_path = true\n')
    both(connect(fake))
    assert mirror.seen[0].path.startswith("/cache/hub/team/app/manifests/1.0")


def test_tls_of_a_mirror(
    fake: FakeRegistry,
    configure: Configure,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import subprocess

    files = [str(tmp_path / "crt.pem"), str(tmp_path / "key.pem")]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=fake", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *names, "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setattr(transport, "is_loopback", lambda host: host == fake.host)
    with FakeRegistry(certificate=(files[0], files[1])) as mirror:
        mirror.add_image("team/app", "1.0", [DATA])
        for option in (f'ca = "{files[0]}"', "skip_verify = true"):
            configure(f'[host."{mirror.url}"]\n{option}\n')
            both(connect(fake))
            assert fake.seen == []
        configure(f'[host."{mirror.url}"]\n')
        before = len(mirror.seen)
        both(connect(fake))
        assert len(mirror.seen) == before and fake.seen


def test_who_is_asked_when() -> None:
    mirrors = Mirrors([("a", frozenset({"pull"})), ("b", frozenset({"pull", "resolve"}))])
    assert [name for _, name in mirrors.able("pull")] == ["a", "b"]
    assert [name for _, name in mirrors.able("resolve")] == ["b"]
    mirrors.served(0, DIGEST, 0, 100)
    mirrors.asked(DIGEST, 99, 200)  # the byte that two chunks share
    mirrors.asked("sha256:other", 0, 100)
    assert [name for _, name in mirrors.able("pull")] == ["a", "b"]
    mirrors.asked(DIGEST, 50, 100)
    assert [name for _, name in mirrors.able("pull")] == ["b"]
    mirrors.failed(1)
    assert list(mirrors.able("pull")) == []


def test_errors_of_the_registry_stay_registry_errors(
    fake: FakeRegistry, configure: Configure, connect: Connect
) -> None:
    fake.fault("status", 503, times=-1, on="/")
    configure('[host."http://127.0.0.1:1"]\n')
    with pytest.raises(RegistryError, match="503"):
        connect(fake, attempts=2).manifest()
