"""What is held against a process, a file, a directory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clip_runc.cli.checks import security
from clip_runc.cli.checks.finding import FAIL, OK, WARN
from clip_runc.config import Settings
from clip_runc.linux.observed import Observed

UID = 65533
GOOD = {
    "Uid": f"{UID}\t" * 4,
    "Gid": f"{UID}\t" * 4,
    "CapEff": "0",
    "NoNewPrivs": "1",
    "Seccomp": "2",
}


def process(**changes: str) -> Observed:
    found = Observed(5, {**GOOD, **changes})
    found.dumpable = found.dumps_core = False
    return found


def test_one_that_has_given_everything_up() -> None:
    (line,) = security.judge("server", process(), UID)
    assert line.level == OK and line.subject == "server 5"
    assert line.text == ("uid 65533, no capability, no_new_privs, seccomp filter, cannot be dumped")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Uid": f"{UID} 0 {UID} {UID}"}, "has uids"),
        ({"Gid": "0 0 0 0"}, "gids"),
        ({"Groups": "27"}, "groups"),
        ({"CapBnd": "200000"}, "CapBnd: sys_admin"),
        ({"CapAmb": "1"}, "CapAmb: chown"),
        ({"NoNewPrivs": "0"}, "no_new_privs"),
        ({"Seccomp": "0"}, "system call"),
    ],
)
@pytest.mark.parametrize("role", ["server", "images.builder"])
def test_each_thing_that_is_not_given_up(changes: dict[str, str], said: str, role: str) -> None:
    (line,) = security.judge(role, process(**changes), UID)
    assert line.level in (WARN, FAIL)
    assert said in line.text


def test_one_that_can_be_dumped() -> None:
    for name in ("dumpable", "dumps_core"):
        seen = process()
        setattr(seen, name, True)
        assert security.judge("server", seen, UID)[0].level == FAIL


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("LD_PRELOAD", "/x.so", FAIL),
        ("PYTHONPATH", "/x", FAIL),
        ("REGISTRY_PASSWORD", "hunter2", FAIL),
        ("GITHUB_TOKEN", "hunter2", FAIL),
        ("HTTPS_PROXY", "http://me:hunter2@proxy:3128", WARN),
        ("HTTPS_PROXY", "http://proxy:3128", OK),
        ("REGISTRY_AUTH_FILE", "/run/auth.json", OK),
        ("NO_PROXY", "http://[", OK),
    ],
)
def test_environment(name: str, value: str, level: int) -> None:
    seen = process(Uid="0 0 0 0", CapEff="ffff")
    seen.environment = {"PATH": "/bin", name: value}
    (line,) = security.judge("supervisor", seen, UID)
    assert line.level == level
    assert "hunter2" not in line.text + line.remedy


def test_a_supervisor_that_may_leave_a_core() -> None:
    seen = process(Uid="0 0 0 0")
    assert security.judge("supervisor", seen, UID)[0].level == OK
    seen.dumps_core = True
    (line,) = security.judge("supervisor", seen, UID)
    assert line.level == FAIL and "core" in line.text


def test_a_password_in_the_command_line() -> None:
    seen = process()
    seen.argv = ["x", "https://me:hunter2@registry.example/"]
    (line,) = security.judge("server", seen, UID)
    assert line.level == FAIL
    assert "hunter2" not in line.text


def test_whose_process_it_is() -> None:
    settings = Settings(run_dir="/run/other")
    begin = ["/usr/bin/python3", "-I", "-S", "/site/clip_runc/fs/start.py", "server"]
    ours = json.dumps({"paths": [], "settings": {"run_dir": "/run/other"}})
    assert security.role_of([*begin, ours], settings) == "server"
    default = json.dumps({"paths": [], "settings": {}})
    assert security.role_of([*begin, default], settings) == ""
    assert security.role_of([*begin, default], Settings()) == "server"
    for payload in ("{", "[]", '{"settings": 1}', '"x"'):
        assert security.role_of([*begin, payload], settings) == ""
    assert security.role_of(["sh", "-c", "sleep"], settings) == ""


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.touch(0o644)
    monkeypatch.setenv("CLIP_RUNC_CONFIG", str(config))
    secrets = tmp_path / "credentials"
    (secrets / "registry").mkdir(parents=True)
    secrets.chmod(0o700)
    (secrets / "registry/config.json").touch(0o600)
    log = tmp_path / "clipd.log"
    log.touch(0o600)
    settings = Settings(run_dir=str(tmp_path), credentials_dir=str(secrets))
    mine = os.geteuid() == 0
    assert [one.level for one in security.files(settings)] == ([] if mine else [FAIL] * 4)
    for path, mode in ((log, 0o644), (config, 0o666), (secrets / "registry/config.json", 0o640)):
        path.chmod(mode)
    found = security.files(settings)
    assert {one.level for one in found} == {FAIL}
    assert len(found) == 3 if mine else 4


def test_programs(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("prerequisite root: not running as root")
    directory = tmp_path / "usr/local/bin"
    directory.mkdir(parents=True)
    (directory / "clip-runc").touch(0o755)
    assert [one.level for one in security.programs(str(tmp_path))] == [OK]
    directory.chmod(0o775)
    found = [one for one in security.programs(str(tmp_path)) if str(tmp_path) in one.text]
    assert {one.level for one in found} == {FAIL}
    assert all(str(directory) in one.remedy for one in found)
