"""What the kernel lacks is told with what to do."""

from __future__ import annotations

import os

import pytest

from clip_runc.cli.checks import kernel
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings
from clip_runc.errors import MountFailed
from clip_runc.linux import probe


def levels(monkeypatch: pytest.MonkeyPatch, resend: bool | Exception) -> dict[str, int]:
    def answer() -> bool:
        if isinstance(resend, Exception):
            raise resend
        return resend

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(kernel, "_can_resend", answer)
    return {one.subject: one.level for one in kernel.check(Settings())}


def test_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(levels(monkeypatch, True).values()) == {OK}


def test_before_resend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(monkeypatch, False)["FUSE resend"] == WARN


def test_no_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(monkeypatch, MountFailed("/dev/fuse: No such file"))["FUSE"] == FAIL


def test_no_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "has_pidfd", lambda: False)
    monkeypatch.setattr(probe, "has_openat2", lambda: False)
    found = levels(monkeypatch, True)
    assert (found["pidfd"], found["openat2"]) == (WARN, WARN)


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert kernel.check(Settings())[0].level == FAIL
