"""A registry that the user names."""

from __future__ import annotations

import pytest

from clip_runc.cli.checks import registry
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings
from clip_runc.registry.fake import FakeRegistry


def level(text: str) -> int:
    (found,) = registry.check(Settings(), text)
    assert found.level == OK or found.remedy or found.text
    return found.level


def test_answers() -> None:
    with FakeRegistry() as fake:
        fake.add_image("team/app", "1", [b"layer"])
        assert level(fake.host) == OK
        assert level(str(fake.reference("team/app", "1"))) == OK
        assert level(str(fake.reference("team/none", "1"))) == FAIL


def test_credentials_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "lookup", lambda host, repository, directory: None)
    with FakeRegistry(auth="basic", password="secret") as fake:
        fake.add_image("team/app", "1", [b"layer"])
        assert level(fake.host) == WARN
        assert level(str(fake.reference("team/app", "1"))) == FAIL


def test_nobody_there_and_no_reference() -> None:
    assert level("127.0.0.1:1") == FAIL
    assert level("oci:/tmp/layout:latest") == FAIL
