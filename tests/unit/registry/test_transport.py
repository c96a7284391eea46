from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_runc.errors import BadResponse, RegistryUnreachable
from clip_runc.registry import session, transport
from clip_runc.registry.arrivals import Arrivals
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.reference import Reference
from clip_runc.registry.transport import Transport
from tests.unit.registry.conftest import DATA, DIGEST

Connect = Callable[..., Registry]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1; needs the program openssl."""
    directory = tmp_path_factory.mktemp("tls")
    paths = f"{directory}/crt.pem", f"{directory}/key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=fake", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", paths[0], "-keyout", paths[1]]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return paths


@pytest.fixture
def nothing_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat 127.0.0.1 as any other host: TLS unless plain HTTP is asked for."""
    monkeypatch.setattr(transport, "is_loopback", lambda host: False)


@pytest.mark.parametrize(
    ("reference", "plain", "url"),
    [
        ("ubuntu", False, "https://registry-1.docker.io/v2/library/ubuntu/manifests/x"),
        ("localhost:5000/a", False, "http://localhost:5000/v2/a/manifests/x"),
        ("127.0.0.1:5000/a/b", False, "http://127.0.0.1:5000/v2/a/b/manifests/x"),
        ("[::1]:5000/a/b/c", False, "http://[::1]:5000/v2/a/b/c/manifests/x"),
        ("10.0.0.1:5000/a", False, "https://10.0.0.1:5000/v2/a/manifests/x"),
        ("10.0.0.1:5000/a", True, "http://10.0.0.1:5000/v2/a/manifests/x"),
        ("h.example/my.org/image", False, "https://h.example/v2/my.org/image/manifests/x"),
    ],
)
def test_urls(reference: str, plain: bool, url: str) -> None:
    assert Transport(Reference.parse(reference), plain_http=plain).manifest_url("x") == url


@pytest.mark.usefixtures("nothing_is_loopback")
def test_tls(
    certificate: tuple[str, str], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeRegistry(certificate=certificate) as fake:
        fake.add_image("team/app", "1.0", [b"x"])
        with pytest.raises(RegistryUnreachable, match="certificate is not trusted") as caught:
            connect(fake).resolve()
        assert f"/etc/docker/certs.d/{fake.host}/ca.crt" in caught.value.hint
        assert len(fake.seen) == 0
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
        assert connect(fake).resolve().layers[0].size == 1


@pytest.mark.usefixtures("nothing_is_loopback")
def test_ca_of_one_registry(
    certificate: tuple[str, str], connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_CERTS_D", (str(tmp_path),))
    with FakeRegistry(certificate=certificate) as fake:
        fake.add_image("team/app", "1.0", [b"x"])
        (tmp_path / fake.host).mkdir()
        (tmp_path / fake.host / "ca.crt").write_bytes(Path(certificate[0]).read_bytes())
        assert connect(fake).resolve().layers[0].size == 1


@pytest.mark.usefixtures("nothing_is_loopback")
def test_plain_http_where_tls_was_expected(fake: FakeRegistry, connect: Connect) -> None:
    with pytest.raises(RegistryUnreachable, match="TLS failed") as caught:
        connect(fake, credentials=Credentials("a", "b")).resolve()
    assert "plain_http" in caught.value.hint
    assert connect(fake, plain_http=True).resolve().platform == "linux/amd64"


@pytest.mark.usefixtures("nothing_is_loopback")
def test_no_redirect_from_tls_to_plain_http(
    certificate: tuple[str, str], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate[0])
    with FakeRegistry(certificate=certificate) as fake:
        fake.add_image("team/app", "1.0", [b"x"])
        fake.fault("redirect", "http://127.0.0.1:1", times=-1)
        with pytest.raises(BadResponse, match="from TLS to plain HTTP at 127"):
            connect(fake).resolve()


def test_name_that_does_not_resolve() -> None:
    reference = Reference.parse("no-such-host.invalid/a")
    with pytest.raises(RegistryUnreachable, match="cannot be resolved"):
        Registry(reference, attempts=1).resolve()


def test_proxies_are_not_asked_for_this_machine(
    fake: FakeRegistry, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert connect(fake).resolve().platform == "linux/amd64"


def test_remembered_redirects_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_REMEMBERED", 10)
    made = Transport(Reference.parse("a.example/b"))
    for number in range(100):
        made._remember(str(number), "x")
    assert len(made._targets) <= 10


def test_cookies_are_not_kept(fake: FakeRegistry, connect: Connect) -> None:
    fake.fault("headers", headers={"Set-Cookie": "sid=1"}, times=-1, on="/v2/")
    connect(fake).resolve()
    assert not any("Cookie" in seen.headers for seen in fake.seen)


def test_a_body_of_less_than_was_asked_for_ends_at_once(
    fake: FakeRegistry, connect: Connect
) -> None:
    """Who waits for bytes that do not come waits as long as the connection is kept."""
    of_registry = connect(fake)._transport
    response = of_registry.get(of_registry.blob_url(DIGEST), headers={})
    begun = time.monotonic()
    assert b"".join(of_registry.pieces(response, 1 << 30)) == DATA
    assert time.monotonic() - begun < 3


def test_every_read_is_announced_with_what_is_left_of_the_body(
    fake: FakeRegistry, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noted(Arrivals):
        def __init__(self, sock: socket.socket | None) -> None:
            assert sock is not None
            super().__init__(sock)

        def before(self, left: int) -> None:
            noted.append(left)
            super().before(left)

    noted: list[int] = []
    monkeypatch.setattr(transport, "Arrivals", Noted)
    registry = connect(fake)
    sizes = [len(piece) for piece in registry.stream(DIGEST, len(DATA))]
    assert noted == [sum(sizes[number:]) for number in range(len(sizes))]
