"""Versions of runc and what is known of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_runc.cli.checks import runtime
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings

OLD = "CVE-2024-21626"
NEW = ["CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"]


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ("1.1.5+ds1", [OLD, *NEW]),
        ("1.1.11", [OLD, *NEW]),
        ("1.1.12", NEW),
        ("1.2.7", NEW),
        ("1.2.8", []),
        ("1.2.8-rc.1", NEW),
        ("1.3.0-rc.1", NEW),
        ("1.3.2", NEW),
        ("1.3.3", []),
        ("1.4.0-rc.2", NEW),
        ("1.4.0-rc.3", []),
        ("1.4.0", []),
        ("1.5.1", []),
        ("2.0.0-rc.1", []),
        ("unknown", []),
    ],
)
def test_versions(version: str, names: list[str]) -> None:
    assert runtime.concerned(version) == names


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("runc version 1.3.3\ncommit: x\n", ("runc", "1.3.3")),
        ("crun version 1.8.1\n", ("crun", "1.8.1")),
        ("runsc release-2024\nspec: 1", ("", "runsc release-2024")),
        ("", ("", "")),
    ],
)
def test_output_of_version(output: str, found: tuple[str, str]) -> None:
    assert runtime.parse(output) == found


@pytest.mark.parametrize(
    ("package", "changes", "level", "words"),
    [
        ("runc", f"* {OLD} {' '.join(NEW)}", OK, "changelog names"),
        ("runc", f"* {OLD}", WARN, "likely"),
        ("runc", "", WARN, "not sure"),
        ("", "", WARN, "sure: by its version"),
    ],
)
def test_how_sure_it_is(
    package: str, changes: str, level: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "changelog", lambda path: (package, changes))
    (found,) = runtime.escapes("/usr/bin/runc", "1.1.5")
    assert found.level == level
    assert words in found.text
    assert (OLD in found.text) or (level == WARN and OLD in changes)


def test_a_runtime_is_asked_for_its_version(tmp_path: Path) -> None:
    program = tmp_path / "runtime"
    program.write_text("#!/bin/sh\necho runc version 1.4.0\n")
    program.chmod(0o755)
    found = runtime.check(Settings(runtime=str(program)))
    assert [one.level for one in found] == [OK, OK]
    assert f"{program}: runc 1.4.0" in found[0].text


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 3\n", None])
def test_a_runtime_that_does_not_work(tmp_path: Path, script: str | None) -> None:
    program = tmp_path / "runtime"
    if script:
        program.write_text(script)
        os.chmod(program, 0o755)
    (found,) = runtime.check(Settings(runtime=str(program)))
    assert found.level == FAIL
    assert found.remedy
