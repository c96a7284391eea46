from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BadResponse, RegistryError, Unauthorized
from clip_runc.registry import auth
from clip_runc.registry.auth import Challenge
from clip_runc.registry.client import Registry
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.fake import FakeRegistry

Connect = Callable[..., Registry]
GOOD = Credentials("user", "hunter2")
BAD = Credentials("user", "wr0ng-secret")


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeRegistry]]:
    """Start fakes of ``team/app:1.0`` with the given options."""
    started: list[FakeRegistry] = []

    def start(**options: object) -> FakeRegistry:
        fake = FakeRegistry(**options).__enter__()  # type: ignore[arg-type]
        started.append(fake)
        fake.add_image("team/app", "1.0", [b"layer"])
        return fake

    yield start
    for fake in started:
        fake.stop()


Serve = Callable[..., FakeRegistry]


@pytest.mark.parametrize(
    ("header", "scheme", "fields"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            "bearer",
            {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"},
        ),
        ("BEARER Realm=x", "bearer", {"realm": "x"}),
        ('Basic realm="a b"', "basic", {"realm": "a b"}),
        ("Negotiate, Basic realm=x", "basic", {"realm": "x"}),
        ('Bearer realm="x", error="invalid_token"', "bearer", {"error": "invalid_token"}),
        ("Negotiate", "", {}),
        ("", "", {}),
    ],
)
def test_challenge(header: str, scheme: str, fields: dict[str, str]) -> None:
    challenge = Challenge(header)
    assert challenge.scheme == scheme
    assert challenge.fields.items() >= fields.items()


@given(st.text(max_size=200))
def test_challenge_never_crashes(header: str) -> None:
    assert Challenge(f"Bearer {header}").scheme == "bearer"
    Challenge(header)


def test_basic(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="basic", password="hunter2")
    registry = connect(fake, credentials=GOOD)
    registry.resolve()
    registry.resolve()
    assert len(fake.requests("GET", "/manifests/")) == 3  # one was refused, once


@pytest.mark.parametrize("kind", ["basic", "token"])
@pytest.mark.parametrize("credentials", [None, BAD])
def test_refused(
    serve: Serve, connect: Connect, kind: str, credentials: Credentials | None
) -> None:
    fake = serve(auth=kind, password="hunter2")
    with pytest.raises(Unauthorized) as caught:
        connect(fake, credentials=credentials).resolve()
    assert "docker login" in caught.value.hint
    assert fake.host in str(caught.value)
    assert "wr0ng-secret" not in str(caught.value)
    assert len(fake.seen) < 5


def test_anonymous_token(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    connect(fake).resolve()
    (asked,) = fake.requests("GET", "/token")
    assert "scope=repository%3Ateam%2Fapp%3Apull" in asked.path
    assert "service=fake" in asked.path
    assert "Authorization" not in asked.headers


def test_token_with_password(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token", password="hunter2")
    connect(fake, credentials=GOOD).resolve()
    (asked,) = fake.requests("GET", "/token")
    assert asked.headers["Authorization"] == GOOD.basic()
    assert not any("hunter2" in seen.path for seen in fake.seen)


@pytest.mark.parametrize("status", [404, 405])
def test_token_server_that_wants_post(serve: Serve, connect: Connect, status: int) -> None:
    fake = serve(auth="token", password="hunter2")
    fake.fault("status", status, times=-1, on="/token", method="GET")
    connect(fake, credentials=GOOD).resolve()
    assert len(fake.requests("POST", "/token")) == 1


def test_identity_token(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token", refresh_token="refresh-1")
    connect(fake, credentials=Credentials(identity_token="refresh-1")).resolve()
    assert not any("refresh-1" in seen.path for seen in fake.seen)
    with pytest.raises(Unauthorized):
        connect(fake, credentials=Credentials(identity_token="refresh-2")).resolve()


def test_registry_token(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    token = fake.new_token()
    connect(fake, credentials=Credentials(registry_token=token)).resolve()
    assert fake.requests(on="/token") == []
    fake.expire_tokens()
    with pytest.raises(Unauthorized):
        connect(fake, credentials=Credentials(registry_token=token)).resolve()


def test_expired_token_is_renewed(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    registry = connect(fake)
    layer = registry.resolve().layers[0].digest
    for _ in range(3):
        fake.expire_tokens()
        assert registry.read_range(layer, 0, 5) == b"layer"
    assert len(fake.requests("GET", "/token")) == 4


def test_renewed_on_a_bare_403_as_ecr_answers(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    registry = connect(fake)
    layer = registry.resolve().layers[0].digest
    fake.fault("status", 403)
    assert registry.read_range(layer, 0, 5) == b"layer"
    assert len(fake.requests("GET", "/token")) == 2


def test_403_for_ever(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    fake.fault("status", 403, times=-1, on="/manifests/")
    with pytest.raises(Unauthorized, match=r"\(403\): FAULT"):
        connect(fake).resolve()


def test_token_is_renewed_before_it_expires(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_SHORTEST_LIFE", 0.0)
    fake = serve(auth="token")
    fake.token_life = 0
    connect(fake).resolve()
    assert len([s for s in fake.seen if s.status == 401]) == 1
    assert len(fake.requests("GET", "/token")) >= 2


def test_one_renewal_for_many_threads(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    registry = connect(fake)
    layer = registry.resolve().layers[0].digest
    fake.expire_tokens()
    barrier = threading.Barrier(8)

    def read(_: int) -> bytes:
        barrier.wait()
        return registry.read_range(layer, 0, 5)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [b"layer"] * 8
    assert len(fake.requests("GET", "/token")) == 2


def test_fresh_credentials_are_asked_for(serve: Serve, connect: Connect) -> None:
    for kind in ("basic", "token"):
        fake = serve(auth=kind, password="hunter2")
        asked: list[int] = []

        def renew(asked: list[int] = asked) -> Credentials:
            asked.append(1)
            return GOOD

        connect(fake, credentials=BAD, renew_credentials=renew).resolve()
        assert asked == [1]


def test_fresh_credentials_that_are_the_old_ones(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="basic", password="hunter2")
    with pytest.raises(Unauthorized):
        connect(fake, credentials=BAD, renew_credentials=lambda: BAD).resolve()


def test_set_credentials(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="basic", password="hunter2")
    registry = connect(fake)
    with pytest.raises(Unauthorized):
        registry.resolve()
    registry.set_credentials(GOOD)
    registry.resolve()


def test_token_server_out_of_order(serve: Serve, connect: Connect) -> None:
    fake = serve(auth="token")
    fake.fault("status", 503, times=2, on="/token")
    connect(fake).resolve()
    fake.fault("status", 503, times=-1, on="/token")
    with pytest.raises(RegistryError, match="token for team/app: the registry answered 503"):
        connect(fake, attempts=2).resolve()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"[]", "no JSON object|not a JSON object"),
        (b"rubbish", "not a JSON object"),
        (b"{}", "holds no token"),
        (b'{"token": 3}', "holds no token"),
        (b'{"token": "a\\r\\nX: y"}', "characters that no header may"),
    ],
)
def test_rubbish_from_the_token_server(answer: bytes, reason: str) -> None:
    owner = auth.Authorizer(lambda *a, **k: None, "a/b", None)  # type: ignore[arg-type,return-value]
    with pytest.raises(BadResponse, match=reason):
        auth._token(answer, owner)


@pytest.mark.parametrize(
    "realm", ["http://tokens.example/t", "ftp://127.0.0.1/t", "file:///etc/passwd", "x", "http://["]
)
def test_passwords_go_to_no_such_token_server(realm: str) -> None:
    owner = auth.Authorizer(lambda *a, **k: None, "a/b", GOOD)  # type: ignore[arg-type,return-value]
    with pytest.raises(BadResponse, match="token server"):
        owner.renew("pull", f'Bearer realm="{realm}"', "", None)


def test_a_new_refresh_token_replaces_the_old_one() -> None:
    owner = auth.Authorizer(
        lambda *a, **k: None,  # type: ignore[arg-type,return-value]
        "a/b",
        Credentials(identity_token="one"),
    )
    auth._token(b'{"access_token": "x", "refresh_token": "two", "expires_in": true}', owner)
    assert owner._credentials == Credentials(identity_token="two")


def test_netrc_is_not_read(
    serve: Serve, connect: Connect, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = f"{tmp_path}/netrc"
    with open(netrc, "w") as file:
        file.write("default login me password from-netrc\n")
    monkeypatch.setenv("NETRC", netrc)
    fake = serve(auth="token")
    connect(fake).resolve()
    assert not any("Basic" in seen.headers.get("Authorization", "") for seen in fake.seen)


def test_secrets_are_not_logged(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    fake = serve(auth="token", password="hunter2")
    connect(fake, credentials=GOOD).resolve()
    written = caplog.text + "".join(capfd.readouterr())
    for secret in ("hunter2", GOOD.basic().split()[1], *fake.tokens):
        assert secret not in written
