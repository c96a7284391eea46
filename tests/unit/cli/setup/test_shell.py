"""Completions, as the shells read them and as clipctl answers; man pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.cli.setup import shell
from clip_runc.cli.setup.changes import MARK


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_shell_takes_it(tmp_path: Path, name: str) -> None:
    text = shell.completion(name)
    assert MARK in text
    assert "_CLIPCTL_COMPLETE" in text
    if name == "zsh":
        assert text.startswith("#compdef clipctl\n")
    if shutil.which(name):
        file = tmp_path / "completion"
        file.write_text(text)
        subprocess.run([name, "-n", str(file)], check=True)


def test_bash_completes(tmp_path: Path) -> None:
    """What bash-completion does: source the file, call the function, look at COMPREPLY."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "clipctl"
    repository = Path(__file__).parents[4]
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(repository)!r})\n"
        "from clip_runc.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)
    file = tmp_path / "completion"
    file.write_text(shell.completion("bash"))
    script = (
        f". {file}; complete -p clipctl >&2; COMP_WORDS=(clipctl config ex) COMP_CWORD=2;"
        '_clipctl_completion clipctl; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "explain", done.stderr


def test_man_pages_of_the_tree(tmp_path: Path) -> None:
    pages = {Path(change.path).name: change.text for change in shell.install(str(tmp_path))}
    for name in shell.MAN:
        first, second = (pages[name] or "").splitlines()[:2]
        assert first == f'.\\" {MARK}'
        assert second.startswith((".TH", '.\\"'))
