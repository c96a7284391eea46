"""The command around the checks: lines, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from clip_runc.cli import doctor
from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding, worst


@pytest.mark.parametrize(
    ("levels", "code"), [([], 0), ([OK], 0), ([OK, WARN], 1), ([FAIL, OK, WARN], 2)]
)
def test_the_exit_code_says_the_worst(levels: list[int], code: int) -> None:
    assert worst(Finding(level, "x", "y") for level in levels) == code


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    def findings(registry: str | None, *, self_test: bool) -> Iterator[Finding]:
        yield Finding(OK, "one", "well", "not to be shown")
        yield Finding(WARN, "two", "to know", "look")
        yield Finding(FAIL, "three", f"{registry} {self_test}", "mend it")

    monkeypatch.setattr(doctor, "findings", findings)


@pytest.mark.usefixtures("three")
def test_lines_with_what_to_do() -> None:
    done = CliRunner().invoke(doctor.command, ["host"], standalone_mode=False)
    assert done.return_value == 2
    assert done.output == (
        "✓ one: well\n! two: to know\n    look\n✗ three: host True\n    mend it\n"
    )


@pytest.mark.usefixtures("three")
def test_json() -> None:
    done = CliRunner().invoke(doctor.command, ["--json", "--no-self-test"], standalone_mode=False)
    found = json.loads(done.output)
    assert [one["level"] for one in found] == ["ok", "warning", "failure"]
    assert found[2]["text"] == "None False"


def test_a_configuration_that_cannot_be_used_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('layer_mode = "fast"\n')
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(config))
    found = list(doctor.findings(None, self_test=False))
    assert (found[0].level, found[0].subject) == (FAIL, "configuration")
    assert "layer_mode" in found[0].text
    assert len(found) > 5, "the others are looked at with the defaults"
