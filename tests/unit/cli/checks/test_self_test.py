"""What the self-test makes of failures; with real mounts it is in tests/integration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.cli.checks import self_test
from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.config import Settings
from clip_runc.errors import MountFailed


def check(
    monkeypatch: pytest.MonkeyPatch,
    base: Path,
    outcomes: dict[str, str | None],
    wanted: str = "auto",
) -> list[Finding]:
    def outcome(own: Settings, reference: str) -> tuple[str, bool]:
        text = outcomes[own.layer_mode]
        if text is None:
            raise MountFailed("the kernel said no")
        return text, own.layer_mode == "tree"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(self_test, "_mount_and_read", outcome)
    settings = Settings(state_dir=f"{base}/state", layer_mode=wanted)
    found = self_test.check(settings)
    assert list(base.iterdir()) == [], "nothing is left"
    return found


def levels(found: list[Finding]) -> list[int]:
    return [one.level for one in found]


def test_one_mode_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, tmp_path, {"erofs": None, "loop": None, "tree": ""})
    assert levels(found) == [WARN, WARN, OK, OK]
    assert found[-1].text == "tree, the first of erofs, loop, tree that works here"
    assert "a container may mount an overlay" in found[-2].text


def test_no_mode_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, tmp_path, dict.fromkeys(self_test.MODES))
    assert levels(found) == [WARN, WARN, WARN, FAIL]


def test_wrong_bytes_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, tmp_path, {"erofs": "wrong", "loop": "", "tree": ""})
    assert levels(found) == [FAIL, OK, OK, OK]
    assert "no container can mount an overlay" in found[1].text


@pytest.mark.parametrize(
    ("wanted", "level", "text"),
    [
        ("auto", OK, "loop, the first of erofs, loop, tree that works here"),
        ("loop", OK, "loop, by configuration"),
        ("tree", OK, "tree, by configuration; auto would take loop"),
        ("erofs", FAIL, "layer_mode = erofs does not work here"),
    ],
)
def test_the_mode_that_a_container_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, level: int, text: str
) -> None:
    outcomes = {"erofs": None, "loop": "", "tree": ""}
    found = check(monkeypatch, tmp_path, outcomes, wanted)[-1]
    assert (found.subject, found.level, found.text) == ("layer mode", level, text)
