"""A directory of logins: which files count, in which order, and which are refused."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from clip_runc.registry.credentials import lookup
from clip_runc.registry.credentials_dir import SECRET, read


def config(host: str, password: str) -> str:
    auth = base64.b64encode(f"user:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": auth}}, "credsStore": "evil"})


def found(directory: Path, warnings: list[str] | None = None) -> dict[str, object]:
    said: list[str] = [] if warnings is None else warnings
    value = read(str(directory), said.append)
    assert list(value) == ["auths"]
    if warnings is None:
        assert said == []
    auths = value["auths"]
    assert isinstance(auths, dict)
    return auths


def test_files_and_volumes_of_secrets(tmp_path: Path) -> None:
    assert found(tmp_path / "none") == {}
    (tmp_path / "b.json").write_text(config("b.example", "1"))
    volume = tmp_path / "team"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..data").symlink_to("..2026")
    (volume / "..2026" / SECRET).write_text(config("t.example", "2"))
    (volume / SECRET).symlink_to(f"..data/{SECRET}")
    (tmp_path / ".b.json.new").write_text("{ half")
    (tmp_path / SECRET).write_text(config("top.example", "3"))
    assert sorted(found(tmp_path)) == ["b.example", "t.example", "top.example"]


def test_the_last_of_equals_and_the_longest_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "1.json").write_text(config("r.example", "old"))
    (tmp_path / "2.json").write_text(config("r.example", "new"))
    (tmp_path / "3.json").write_text(config("r.example/team", "teams"))
    passwords = [
        credentials.password if (credentials := lookup("r.example", name, str(tmp_path))) else None
        for name in ("other", "team/app", "teams/app")
    ]
    assert passwords == ["new", "teams", "new"]
    assert lookup("elsewhere.example", "team/app", str(tmp_path)) is None, "and no helper is run"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{ secret", "not JSON"),
        ("[1]", "no docker config"),
        ('{"auths": 1}', "no docker config"),
        (" " * (1 << 20) + "{}", "larger than"),
    ],
)
def test_what_is_no_docker_config_is_skipped(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "b.json").write_text(config("b.example", "1"))
    warnings: list[str] = []
    assert list(found(tmp_path, warnings)) == ["b.example"]
    assert len(warnings) == 1 and "a.json" in warnings[0] and reason in warnings[0]
    assert "secret" not in warnings[0]


def test_what_others_may_write_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(config("a.example", "1"))
    path.chmod(0o622)
    os.mkfifo(tmp_path / "pipe")
    warnings: list[str] = []
    assert found(tmp_path, warnings) == {}
    assert ["others than root" in warnings[0], "regular" in warnings[1]] == [True, True]
    if os.geteuid() == 0:
        path.chmod(0o600)
        os.chown(path, 12345, 12345)
        assert found(tmp_path, warnings) == {}
