"""Our runtime in Docker's daemon.json: in, and out again to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_runc.cli.setup import docker
from clip_runc.errors import ConfigError

BINARY = "/usr/local/bin/clip-runc"
OURS = {"path": BINARY}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=5,
)
KEYS = st.text(max_size=5) | st.sampled_from(["runtimes", "clip-runc"])
RUNTIMES = st.dictionaries(
    st.text(max_size=4), st.fixed_dictionaries({"path": st.text()}), max_size=3
)


def place(root: Path, text: str) -> Path:
    path = root / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def round_trip(root: Path, text: str) -> dict[str, object]:
    path = place(root, text)
    docker.install(BINARY, str(root)).make()
    found: dict[str, object] = json.loads(path.read_text())
    assert not docker.install(BINARY, str(root)).needed()
    for undo in docker.uninstall(str(root)):
        undo.make()
    assert path.read_text() == text
    assert docker.uninstall(str(root)) == []
    return found


@settings(deadline=None)  # files are written and read
@given(
    document=st.dictionaries(KEYS.filter(lambda key: key != "runtimes"), VALUES, max_size=4),
    runtimes=st.none() | RUNTIMES,
    first=st.booleans(),
    indent=st.sampled_from([None, 0, 2, 4, "\t"]),
)
def test_in_and_out(
    tmp_path_factory: pytest.TempPathFactory,
    document: dict[str, object],
    runtimes: dict[str, object] | None,
    first: bool,
    indent: int | str | None,
) -> None:
    if runtimes is not None:
        document = (
            {"runtimes": runtimes, **document} if first else {**document, "runtimes": runtimes}
        )
    text = json.dumps(document, indent=indent) + "\n"
    found = round_trip(tmp_path_factory.mktemp("docker"), text)
    assert found == {**document, "runtimes": {**(runtimes or {}), "clip-runc": OURS}}


@pytest.mark.parametrize(
    "text",
    [
        '{"data-root": "/srv",\n "runtimes" : {\n\n  "kata": {"path": "/k"} } }',
        '{"x": {"runtimes": {"clip-runc": 1}}, "runtimes": {}}',
        "{}",
        " {\n}\n\n",
    ],
)
def test_what_somebody_wrote_by_hand(tmp_path: Path, text: str) -> None:
    assert round_trip(tmp_path, text)["runtimes"]["clip-runc"] == OURS  # type: ignore[index]


def test_a_new_file_goes_again(tmp_path: Path) -> None:
    change = docker.install(BINARY, str(tmp_path))
    assert json.loads(change.text or "") == {"runtimes": {"clip-runc": OURS}}
    change.make()
    (undo,) = docker.uninstall(str(tmp_path))
    assert undo.text is None


def test_another_place_replaces_the_old_one(tmp_path: Path) -> None:
    path = place(tmp_path, '{"debug": true}\n')
    docker.install("/old/clip-runc", str(tmp_path)).make()
    docker.install("/new/clip-runc", str(tmp_path)).make()
    assert json.loads(path.read_text())["runtimes"]["clip-runc"] == {"path": "/new/clip-runc"}
    assert "/old/" not in path.read_text()


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"runtimes": 1}', '{"runtimes": {"clip-runc": {"path": "/x", "options": {}}}}'],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    place(tmp_path, text)
    with pytest.raises(ConfigError, match=r"daemon\.json"):
        docker.install(BINARY, str(tmp_path))
