"""What the self-test makes of failures; with real mounts it is in tests/integration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.cli.checks import self_test
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings
from clip_runc.errors import MountFailed


def levels(
    monkeypatch: pytest.MonkeyPatch, base: Path, outcomes: dict[str, str | None]
) -> list[int]:
    def outcome(own: Settings, reference: str) -> str:
        text = outcomes[own.layer_mode]
        if text is None:
            raise MountFailed("the kernel said no")
        return text

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(self_test, "_mount_and_read", outcome)
    settings = Settings(state_dir=f"{base}/state")
    found = [one.level for one in self_test.check(settings)]
    assert list(base.iterdir()) == [], "nothing is left"
    return found


def test_one_mode_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"erofs": None, "loop": None, "tree": ""}
    assert levels(monkeypatch, tmp_path, outcomes) == [WARN, WARN, OK]


def test_no_mode_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = dict.fromkeys(self_test.MODES)
    assert levels(monkeypatch, tmp_path, outcomes) == [WARN, WARN, WARN, FAIL]


def test_wrong_bytes_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"erofs": "wrong", "loop": "", "tree": ""}
    assert levels(monkeypatch, tmp_path, outcomes) == [FAIL, OK, OK]
