from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.runtime.argv import OURS, parse


def read(line: str) -> tuple[str, str, str, str]:
    found = parse(["runc", *line.split()])
    return found.command, found.root, found.bundle, found.id


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("create c1", ("create", "", ".", "c1")),
        ("create -b /b c1", ("create", "", "/b", "c1")),
        ("create -bundle /b c1", ("create", "", "/b", "c1")),
        ("create --bundle=/b c1", ("create", "", "/b", "c1")),
        ("create -b=/b c1", ("create", "", "/b", "c1")),
        ("create c1 --bundle /b", ("create", "", "/b", "c1")),
        ("run -d c1 -b /b", ("run", "", "/b", "c1")),
        ("create --bundle create create", ("create", "", "create", "create")),
        ("create --pid-file run -- delete", ("create", "", ".", "delete")),
        ("create --bundle --debug c1", ("create", "", "--debug", "c1")),
        ("--root /r create c1", ("create", "/r", ".", "c1")),
        ("-root=/r run c1", ("run", "/r", ".", "c1")),
        ("--debug --systemd-cgroup --root /r restore c1", ("restore", "/r", ".", "c1")),
        ("--debug=false run c1", ("run", "", ".", "c1")),
        ("--root -- create c1", ("create", "--", ".", "c1")),
        ("-- create c1", ("create", "", ".", "c1")),
        ("create -- -c1", ("create", "", ".", "-c1")),
        ("create -- --help", ("create", "", ".", "--help")),
        ("create --preserve-fds 3 --no-pivot --console-socket /s c1", ("create", "", ".", "c1")),
        ("create --pidfd-socket /s c1", ("create", "", ".", "c1")),
        ("create --keep c1", ("create", "", ".", "c1")),
        ("delete --force c1", ("delete", "", ".", "c1")),
        ("delete -f c1", ("delete", "", ".", "c1")),
        ("delete c1 -f", ("delete", "", ".", "c1")),
        # an option of a later release: the id comes last
        ("create --frob x c1", ("create", "", ".", "c1")),
        ("create --frob=x -b /b c1", ("create", "", "/b", "c1")),
        ("checkpoint --image-path /i --leave-running c1", ("checkpoint", "", ".", "c1")),
        (
            "checkpoint --status-fd 5 --page-server a:1 --tcp-established c1",
            ("checkpoint", "", ".", "c1"),
        ),
        ("checkpoint --parent-path create c1", ("checkpoint", "", ".", "c1")),
        ("checkpoint --pre-dump c1", ("", "", ".", "")),
        ("checkpoint --pre-dump=false c1", ("checkpoint", "", ".", "c1")),
        (
            "restore --image-path /i --work-path /w --empty-ns network --lsm-profile p c1",
            ("restore", "", ".", "c1"),
        ),
        # crun
        ("restore --network-lock skip --tcp-close c1", ("restore", "", ".", "c1")),
        ("--cgroup-manager systemd --log-level=error create c1", ("create", "", ".", "c1")),
        ("--cgroup-manager=create state c1", ("", "", ".", "")),
        ("--cgroup-m cgroupfs create --bund /b c1", ("create", "", "/b", "c1")),
        ("run -db /b c1", ("run", "", "/b", "c1")),
        ("run -d -b/b c1", ("run", "", "/b", "c1")),
        ("delete -rf c.*", ("", "", ".", "")),
        ("create -f other.json c1", ("", "", ".", "")),
        ("create --config=other.json c1", ("", "", ".", "")),
    ],
)
def test_reads(line: str, expected: tuple[str, str, str, str]) -> None:
    assert read(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--help",
        "-h",
        "--version create c1",
        "-v",
        "help create",
        "create",
        "create --help",
        "create -h c1",
        "create c1 c2",
        "create --bundle",
        "create -b /b",
        "delete",
        "delete -f",
        "kill create",
        "state create",
        "--root create state c1",
        "--root create",
        "--root",
        "--log create --log-format run list",
        "exec c1 create c2",
        "--no-such-option create c1",
        "--no-such-option=x create c1",
        "- create c1",
        "Create c1",
        "features",
    ],
)
def test_passes_through(line: str) -> None:
    assert read(line) == ("", "", ".", "")


def test_an_empty_id_or_bundle_is_the_runtimes_to_judge() -> None:
    assert parse(["runc", "create", ""]).command == ""
    assert parse(["runc", "create", "--bundle", "", "c1"]).bundle == "."
    assert parse(["runc", "create", "--bundle=", "c1"]).bundle == "."


def test_log_options() -> None:
    found = parse(
        ["runc", "--log", "/l", "--log-format=json", "--debug", "run", "--detach", "--keep", "c1"]
    )
    assert (found.log, found.log_format, found.debug) == ("/l", "json", True)
    assert (found.detach, found.keep, found.force) == (True, True, False)


def test_the_images_of_a_checkpoint() -> None:
    assert parse(["runc", "checkpoint", "--image-path=/i", "c1"]).images == "/i"
    assert parse(["runc", "checkpoint", "c1"]).images == ""


def test_force_is_not_crun_creates_config_file() -> None:
    assert parse(["runc", "delete", "-f", "c1"]).force
    assert parse(["runc", "delete", "--force=false", "c1"]).force is False


@pytest.mark.parametrize(
    ("line", "certain"),
    [
        ("delete --force c1", True),
        ("--root /r --log /l --log-format json --debug delete -f c1", True),
        ("--root=/r --systemd-cgroup=true delete -force=1 -- c1", True),
        ("delete c1", False),
        ("delete --force=no c1", False),
        ("delete --force --no-such c1", False),
        ("delete --forc c1", False),
        ("--roo /r delete --force c1", False),
        ("--log-format yaml delete --force c1", False),
        ("--rootless perhaps delete --force c1", False),
        ("--debug=maybe delete --force c1", False),
        ("run -f /f c1", False),
    ],
)
def test_a_force_that_nothing_on_the_line_puts_in_doubt(line: str, certain: bool) -> None:
    """What runc refuses must not have been killed by us."""
    assert parse(["runc", *line.split()]).certain_force is certain


WORDS = st.sampled_from(
    [
        *OURS,
        "state",
        "--root",
        "--root=/r",
        "-b",
        "--bundle=/b",
        "--",
        "-",
        "",
        "--help",
        "-d",
        "-f",
    ]
) | st.text(max_size=6)


@given(st.lists(WORDS, max_size=8))
def test_never_raises(arguments: list[str]) -> None:
    found = parse(["runc", *arguments])
    assert found.command in ("", *OURS)
    assert bool(found.id) == bool(found.command)
    if found.command:
        assert found.id in arguments
        assert found.command in arguments


@given(st.lists(WORDS, max_size=6))
def test_the_command_is_the_first_word_that_is_no_option(arguments: list[str]) -> None:
    """A value that looks like a command is none: with ``state`` first nothing is ours."""
    assert parse(["runc", "--root", "create", "state", *arguments]).command == ""


def test_no_arguments_at_all() -> None:
    assert parse([]).command == ""
