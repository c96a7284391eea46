"""Documents say what the code does: generated ones are current, links and blocks hold."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clip_runc import errors
from clip_runc.cli.main import COMMANDS, clipctl
from scripts import make_docs

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
IDS = [str(path.relative_to(REPOSITORY)) for path in DOCUMENTS]


@pytest.mark.parametrize("name", make_docs.documents())
def test_generated_documents_are_current(name: str) -> None:
    wanted = make_docs.documents()[name]
    assert (REPOSITORY / "docs" / name).read_text() == wanted, "run python scripts/make_docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            assert (document.parent / target.partition("#")[0]).exists(), target


def blocks(document: Path) -> list[str]:
    """The fenced ``sh`` blocks."""
    return re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_blocks_are_shell_and_name_what_there_is(document: Path) -> None:
    for block in blocks(document):
        subprocess.run(["sh", "-n"], input=block, text=True, check=True)
        for words in calls(block):
            assert words[0] in COMMANDS, f"clipctl {words[0]}"
            known = options(words)
            for word in words[1:]:
                name = word.partition("=")[0]
                if name == "--":
                    break
                assert not re.fullmatch(r"--[a-z][a-z-]*", name) or name in known, word


def calls(block: str) -> Iterator[list[str]]:
    """The words after ``clipctl`` in each line that calls it."""
    for line in block.replace("\\\n", " ").splitlines():
        words = line.partition(" #")[0].split()
        if words[:1] == ["sudo"]:
            words = words[1:]
        if words[:1] == ["clipctl"] and len(words) > 1 and words[1][0] != "-":
            yield words[1:]


def options(words: list[str]) -> set[str]:
    """The options of a command, those of its subcommand included."""
    command = clipctl.get_command(click.Context(clipctl), words[0])
    assert command is not None
    found = [command]
    if isinstance(command, click.Group) and len(words) > 1:
        assert words[1] in command.commands, " ".join(words[:2])
        found.append(command.commands[words[1]])
    return {"--help"} | {name for one in found for option in one.params for name in option.opts}


def test_the_runbook_has_every_class_of_errors() -> None:
    text = (REPOSITORY / "docs/runbook.md").read_text()
    classes = [
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.ClipError)
    ]
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == classes


@pytest.mark.parametrize("name", ["clip-runc.8", "clipctl.8"])
def test_man_pages_have_no_warnings(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("prerequisite groff: it is not installed")
    page = REPOSITORY / "docs/man" / name
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(page)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
