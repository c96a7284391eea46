from __future__ import annotations

from pathlib import Path

import pytest

from clip_runc.registry.reference import Reference
from clip_runc.registry.session import container_of, new_session, registry_ca, system_ca


def test_certificates_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = system_ca()
    assert found is True or Path(str(found)).exists()
    monkeypatch.setenv("SSL_CERT_FILE", __file__)
    assert system_ca() == __file__


def test_no_ca_of_its_own() -> None:
    assert registry_ca("no-such-host.invalid") == ""


@pytest.mark.parametrize(
    ("text", "namespace", "repository"),
    [
        ("ubuntu", "library", "ubuntu"),
        ("h.example/a", "", "a"),
        ("h.example/my.org/image", "my.org", "image"),
        ("localhost/a/b/c", "a/b", "c"),
    ],
)
def test_container(text: str, namespace: str, repository: str) -> None:
    reference = Reference.parse(text)
    container = container_of(reference)
    assert (container.namespace, container.repository) == (namespace, repository)
    assert container.api_prefix == reference.repository
    assert container.registry == reference.host


def test_session_names_itself_and_holds_no_password() -> None:
    session = new_session(trust_env=False)
    assert str(session.headers["User-Agent"]).startswith("clip-runc/")
    assert "Authorization" not in session.headers
    assert not session.trust_env
