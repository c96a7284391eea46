"""The protocol side of the fake: uploads, tokens, errors."""

from __future__ import annotations

import pytest
import requests

from clip_runc.registry import image
from clip_runc.registry.credentials import Credentials
from clip_runc.registry.fake import FakeRegistry


def test_base_and_unknown_paths(fake: FakeRegistry) -> None:
    with requests.Session() as session:
        assert session.get(f"{fake.url}/v2/").status_code == 200
        answer = session.get(f"{fake.url}/nowhere")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "NAME_UNKNOWN"


def test_upload_in_two_chunks(fake: FakeRegistry) -> None:
    digest = image.digest_of(b"onetwo")
    with requests.Session() as session:
        start = session.post(f"{fake.url}/v2/a/blobs/uploads/")
        assert start.status_code == 202
        place = fake.url + start.headers["Location"]
        for piece in (b"one", b"two"):
            answer = session.patch(place, data=piece)
            assert answer.status_code == 202
            place = answer.headers["Location"]
        assert session.put(f"{place}&digest=sha256:0", data=b"").status_code == 400
        assert session.put(f"{place}&digest={digest}", data=b"").status_code == 201
        assert session.patch(f"{fake.url}/v2/a/blobs/uploads/00", data=b"").status_code == 404
        head = session.head(f"{fake.url}/v2/a/blobs/{digest}")
    assert head.headers["Content-Length"] == "6"
    assert fake.blobs[digest] == b"onetwo"


@pytest.mark.parametrize(("password", "status"), [("right", 200), ("wrong", 401)])
def test_tokens(password: str, status: int) -> None:
    with FakeRegistry(auth="token", password="right") as fake, requests.Session() as session:
        refused = session.get(f"{fake.url}/v2/a/manifests/x")
        assert refused.status_code == 401
        assert f'realm="{fake.url}/token"' in refused.headers["WWW-Authenticate"]
        assert 'scope="repository:a:pull"' in refused.headers["WWW-Authenticate"]
        headers = {"Authorization": Credentials("user", password).basic()}
        answer = session.get(f"{fake.url}/token", headers=headers)
        assert answer.status_code == status
        if status == 200:
            bearer = {"Authorization": f"Bearer {answer.json()['token']}"}
            assert session.get(f"{fake.url}/v2/", headers=bearer).status_code == 200


def test_tls_is_not_held_up_by_a_silent_client(fake: FakeRegistry) -> None:
    # A connection without a request occupies one thread, not the registry.
    import socket

    host, _, port = fake.host.partition(":")
    with socket.create_connection((host, int(port))), requests.Session() as session:
        assert session.get(f"{fake.url}/v2/", timeout=5).status_code == 200
