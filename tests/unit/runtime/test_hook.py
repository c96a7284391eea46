from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.config import Settings
from clip_runc.runtime import hook, launcher, poststop

KEY = "c1-0123456789abcdef01234567"
HOOKS = Path(__file__).resolve().parents[3] / "hooks"


def settings_of(path: Path) -> Settings:
    return Settings(state_dir=str(path / "state"), run_dir=str(path / "run"))


def test_arguments_are_taken_apart_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    arguments = hook.arguments_for(settings, KEY, (12, 345))
    assert hook.parse_arguments(arguments) == (settings.state_dir, settings.run_dir, KEY, (12, 345))


@given(st.lists(st.text(max_size=8), max_size=5))
def test_strange_arguments_are_none(arguments: list[str]) -> None:
    assert hook.parse_arguments(arguments) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("state", "/r", KEY, "1:2"),
        ("/s", "/r", "../../etc", "1:2"),
        ("/s", "/r", KEY, "1"),
        ("/s", "/r", KEY, "-1:2"),
        ("/s", "/r", KEY, "1:²"),
        ("/s", "/r", KEY, "1:2", "more"),
    ],
)
def test_arguments_that_are_not_ours(arguments: tuple[str, ...]) -> None:
    assert hook.parse_arguments(arguments) is None
    assert poststop.run(list(arguments)) == [
        "usage: clip-runc-poststop STATE_DIR RUN_DIR KEY PID:START"
    ]


def test_the_hook_beside_the_launcher(tmp_path: Path) -> None:
    paths = launcher.install(str(tmp_path / "bin"))
    assert hook.find_hook(settings_of(tmp_path), paths[0]) == paths[1]


def test_a_hook_is_written_where_none_is_installed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    path = Path(hook.find_hook(settings, str(tmp_path / "clip-runc")))
    assert path == Path(settings.state_dir) / "bin/clip-runc-poststop"
    first = path.stat()
    assert first.st_mode & 0o7777 == 0o755
    assert hook.find_hook(settings, "") == str(path)
    assert path.stat().st_ino == first.st_ino
    path.write_text("of another version")
    hook.find_hook(settings, "")
    assert launcher.is_launcher(str(path))


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "as in the source tree"])
def test_nothing_to_do_is_no_error(tmp_path: Path, installed: bool) -> None:
    """With an empty environment, a state on stdin, and a container that is long gone."""
    path = launcher.install(str(tmp_path))[1] if installed else HOOKS / hook.NAME
    settings = settings_of(tmp_path)
    state = json.dumps({"ociVersion": "1.0.2", "id": "c1", "bundle": "/nope", "x": "y" * 200_000})
    done = subprocess.run(
        [path, *hook.arguments_for(settings, KEY, (1, 1))],
        input=state.encode(), env={}, cwd="/", capture_output=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not os.path.lexists(settings.state_dir)
    assert not os.path.lexists(settings.run_dir)


@pytest.mark.parametrize("left", ["", "state/containers", "run/containers"])
def test_python_is_started_only_where_there_is_something_to_do(tmp_path: Path, left: str) -> None:
    path = tmp_path / hook.NAME
    launcher.write_launcher(str(path), module=launcher.POSTSTOP, interpreter="/bin/false")
    if left:
        (tmp_path / left / KEY).mkdir(parents=True)
    done = subprocess.run(
        [path, *hook.arguments_for(settings_of(tmp_path), KEY, (1, 1))],
        input=bytes(100_000), env={}, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == (1 if left else 0)
    assert subprocess.run([path, "x"], stdin=subprocess.DEVNULL, check=False).returncode == 1


def test_an_interpreter_that_a_shell_would_take_apart_gets_no_shell() -> None:
    text = launcher.launcher_text(launcher.POSTSTOP, interpreter="/opt/$x/python3").decode()
    assert text.startswith("#!/opt/$x/python3 -IS\n")


def test_a_wrong_call_is_told_and_is_no_failure_either() -> None:
    done = subprocess.run(
        [HOOKS / hook.NAME, "x"], env={}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr.startswith(b"clip-runc-poststop: usage")


def test_closed_stdio(tmp_path: Path) -> None:
    arguments = " ".join(hook.arguments_for(settings_of(tmp_path), KEY, (1, 1)))
    script = f"exec {HOOKS / hook.NAME} {arguments} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", script], check=False).returncode == 0


def test_the_hook_in_the_tree_names_an_isolated_interpreter() -> None:
    with open(HOOKS / hook.NAME, encoding="utf-8") as file:
        assert file.readline() == "#!/usr/bin/python3 -IS\n"
