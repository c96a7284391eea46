from __future__ import annotations

import pytest

from clip_runc.config import Settings
from clip_runc.images.trust import trusted


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("127.0.0.1:5000/team/app", None, True),
        ("localhost/app", None, True),
        ("[::1]:5000/app", None, True),
        ("[::1]/app", None, True),
        ("docker.io/library/debian", None, False),
        ("localhost.example/app", None, False),
        ("registry.example/team/app", ["registry.example/team"], True),
        ("registry.example/team/app", ["registry.example/team/"], True),
        ("registry.example/teams/app", ["registry.example/team"], False),
        ("registry.example/app", ["registry.example/team"], False),
        ("registry.example:443/team/app", ["registry.example/team"], True),
        ("registry.example:443/team/app", ["registry.example:444"], False),
        ("registry.example/team/app", ["registry.example:443"], False),
        ("registry.example/team/app", [], False),
        ("registry.example/team/app", [""], False),
        ("", ["localhost"], False),
    ],
)
def test_trusted(name: str, entries: list[str] | None, expected: bool) -> None:
    settings = Settings() if entries is None else Settings(trusted_registries=entries)
    assert trusted(settings, name) is expected
