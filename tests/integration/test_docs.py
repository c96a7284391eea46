"""Documents say what the code does: generated ones are current, links and blocks hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from clip_runc import errors
from clip_runc.cli.main import COMMANDS, clipctl
from clip_runc.config import load
from scripts import make_docs
from tests.integration.documents import DOCUMENTS, REPOSITORY, anchors, blocks, name, prose


@pytest.mark.parametrize("which", make_docs.documents())
def test_generated_documents_are_current(which: str) -> None:
    wanted = make_docs.documents()[which]
    assert (REPOSITORY / "docs" / which).read_text() == wanted, "run python scripts/make_docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        place = (document.parent / path) if path else document
        assert place.exists(), target
        if anchor:
            assert place.suffix == ".md" and anchor in anchors(place), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_paths_of_the_repository_are_there(document: Path) -> None:
    """Files that the text names in code or in passing: `scripts/check`, tests/…/test_x.py."""
    top = r"(?:bench|docs|scripts|tests|packaging|hooks|clip_runc|seed)"
    for path in re.findall(rf"(?<![\w/.-]){top}/[\w/.-]*\w", prose(document)):
        assert "__pycache__" in path or (REPOSITORY / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_document_can_be_found(document: Path) -> None:
    """From README.md by links."""
    seen, pending = set(), [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md"]
    while pending:
        one = pending.pop()
        if one in seen or one.suffix != ".md":
            continue
        seen.add(one)
        links = re.findall(r"\]\(([^)\s#]+)", prose(one))
        pending += [(one.parent / link).resolve() for link in links if "://" not in link]
    assert document in seen


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_blocks_are_shell_and_name_what_there_is(document: Path) -> None:
    for block in (one.text for one in blocks(document) if one.language == "sh"):
        subprocess.run(["sh", "-n"], input=block, text=True, check=True)
        for words in calls(block):
            assert words[0] in COMMANDS, f"clipctl {words[0]}"
            known = options(words)
            for word in words[1:]:
                option = word.partition("=")[0]
                if option == "--":
                    break
                assert not re.fullmatch(r"--[a-z][a-z-]*", option) or option in known, word


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_settings_in_blocks_can_be_used(document: Path, tmp_path: Path) -> None:
    for block in (one.text for one in blocks(document) if one.language == "toml"):
        tables = any(isinstance(value, dict) for value in tomllib.loads(block).values())
        if not tables:  # containerd's or podman's have some, ours has none
            (tmp_path / "config.toml").write_text(block)
            load(str(tmp_path / "config.toml"))


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
        key
        for key, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.ClipError)
    ]
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == classes


@pytest.mark.parametrize("page", ["clip-runc.8", "clipctl.8"])
def test_man_pages_have_no_warnings(page: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("prerequisite groff: it is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(REPOSITORY / "docs/man" / page)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
