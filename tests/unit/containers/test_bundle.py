from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.containers import bundle, teardown
from clip_runc.containers import state as states
from clip_runc.containers.state import State
from clip_runc.errors import BundleError
from tests.unit.containers.conftest import state_of

SPEC: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs", "readonly": True},
    "hooks": {"prestart": [{"path": "/theirs"}]},
    "vendor": {"zeta": 18446744073709551615, "alpha": None},
}
TEXT = json.dumps(SPEC, indent=3).replace('"alpha": null', '"alpha": 1.50e3')
HOOK = {"path": "/usr/lib/clip-runc/hook", "args": ["hook", "KEY"]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "bundle"
    directory.mkdir()
    (directory / "config.json").write_text(TEXT)
    return directory


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    found = bundle.open_bundle(str(path))
    yield found
    os.close(found)


def edit_for(settings: Settings, state: State) -> Any:
    def edit(spec: Any) -> None:
        spec["root"] = {**spec["root"], "path": f"{settings.rootfs_dir}/{state.key}/rootfs"}
        hook = {**HOOK, "args": ["hook", state.key]}
        spec.setdefault("hooks", {}).setdefault("poststop", []).append(hook)

    return edit


def written(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


def test_what_we_do_not_understand_stays(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    original = bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert original.spec["root"] == SPEC["root"]
    found = written(path)
    assert list(found) == list(SPEC)
    assert found["root"] == {"path": f"{settings.rootfs_dir}/{state.key}/rootfs", "readonly": True}
    assert found["hooks"]["prestart"] == [{"path": "/theirs"}]
    assert '"zeta": 18446744073709551615' in (path / "config.json").read_text()
    assert '"alpha": 1.50e3' in (path / "config.json").read_text()
    assert os.listdir(path) == ["config.json"]


def test_owner_and_mode_stay(settings: Settings, state: State, path: Path, fd: int) -> None:
    os.chmod(path / "config.json", 0o640)
    os.chown(path / "config.json", 1234, 4321)
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    status = (path / "config.json").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)
    bundle.restore(settings, state)
    status = (path / "config.json").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)


def test_restore_gives_the_same_bytes(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    found = states.load(settings, state.key)
    assert found is not None
    assert bundle.restore(settings, found) == "restored"
    assert (path / "config.json").read_text() == TEXT
    assert bundle.restore(settings, found) == "foreign"


def test_the_state_is_there_before_the_file_changes(
    settings: Settings, state: State, path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed between the two leaves a bundle as it was, and a restore that knows it."""

    def die(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_replace", die)
    with pytest.raises(KeyboardInterrupt):
        bundle.rewrite(settings, state, fd, edit_for(settings, state))
    monkeypatch.undo()
    found = states.load(settings, state.key)
    assert found is not None and found.config_sha256
    assert bundle.restore(settings, found) == "foreign"
    assert (path / "config.json").read_text() == TEXT


def test_a_file_that_somebody_changed_is_only_mended(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    spec = written(path)
    spec["hostname"] = "changed"
    spec["root"]["readonly"] = False
    (path / "config.json").write_text(json.dumps(spec))
    assert bundle.restore(settings, state) == "mended"
    found = written(path)
    assert found["hostname"] == "changed"
    assert found["root"] == {"path": "rootfs", "readonly": False}
    assert found["hooks"] == SPEC["hooks"]


def test_a_hook_that_was_written_again_without_its_empty_members(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    """As nvidia-container-runtime does, behind us."""

    def edit(spec: Any) -> None:
        edit_for(settings, state)(spec)
        spec["hooks"]["poststop"] = [{"path": "/h", "args": ["/h", state.key], "env": []}]

    bundle.rewrite(settings, state, fd, edit)
    spec = written(path)
    other = {"path": "/h", "args": ["/h", "another"]}
    spec["hooks"]["poststop"] = [{"path": "/h", "args": ["/h", state.key]}, other]
    (path / "config.json").write_text(json.dumps(spec))
    assert bundle.restore(settings, state) == "mended"
    assert written(path)["hooks"]["poststop"] == [other]


def test_a_file_that_is_no_longer_ours_is_left_alone(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    (path / "config.json").write_text('{"root": {"path": "/other"}}')
    assert bundle.restore(settings, state) == "foreign"
    assert (path / "config.json").read_text() == '{"root": {"path": "/other"}}'


@pytest.mark.parametrize("target", ["../elsewhere.json", "{outside}"])
def test_a_symlink_out_of_the_bundle(
    settings: Settings, state: State, path: Path, fd: int, target: str
) -> None:
    """Read through, replaced by a file, and a symlink again afterwards."""
    outside = path.parent / "elsewhere.json"
    (path / "config.json").rename(outside)
    outside.chmod(0o604)
    target = target.format(outside=outside)
    (path / "config.json").symlink_to(target)
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert not (path / "config.json").is_symlink()
    assert (path / "config.json").stat().st_mode & 0o7777 == 0o604
    assert written(path)["root"]["path"].startswith(settings.rootfs_dir)
    other = state_of(settings, "c2")
    bundle.rewrite(settings, other, fd, edit_for(settings, other))
    for one in (other, state):
        bundle.restore(settings, one)
        teardown.sweep(settings, one.key)
    assert os.readlink(path / "config.json") == target
    assert outside.read_text() == TEXT
    assert os.listdir(path) == ["config.json"]


def test_what_a_killed_rewriting_left_in_the_bundle_goes_with_the_container(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    dead = (1 << 22) + 1  # beyond the largest pid
    for name in (f".config.json.{dead}.clip", ".config.json.mine.clip", ".config.json.1.clip"):
        (path / name).touch()
    bundle.restore(settings, state)
    left = sorted(os.listdir(path))
    assert left == [".config.json.1.clip", ".config.json.mine.clip", "config.json"]


def test_annotations_of_ours_are_taken_out(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    """Also where somebody has written the file since."""
    edit = edit_for(settings, state)

    def annotate(spec: Any) -> None:
        edit(spec)
        spec["annotations"] = {"dev.clip-runc.state.mode": "erofs"}

    bundle.rewrite(settings, state, fd, annotate)
    spec = {**written(path), "hostname": "changed"}
    (path / "config.json").write_text(json.dumps(spec))
    assert bundle.restore(settings, state) == "mended"
    assert written(path)["hostname"] == "changed"
    assert "annotations" not in written(path)


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
def test_two_containers_of_one_bundle(
    settings: Settings, path: Path, fd: int, order: tuple[str, str]
) -> None:
    both = {name: state_of(settings, name) for name in ("c1", "c2")}
    for state in both.values():
        assert bundle.read_original(settings, fd).data.decode() == TEXT
        bundle.rewrite(settings, state, fd, edit_for(settings, state))
        found = written(path)
        assert found["root"]["path"] == f"{settings.rootfs_dir}/{state.key}/rootfs"
        assert [hook["args"][1] for hook in found["hooks"]["poststop"]] == [state.key]
    for name in order:
        bundle.restore(settings, both[name])
        teardown.sweep(settings, both[name].key)
    assert (path / "config.json").read_text() == TEXT


def test_the_second_container_where_the_file_was_changed_in_between(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    spec = written(path)
    spec["hostname"] = "changed"
    (path / "config.json").write_text(json.dumps(spec))
    other = state_of(settings, "c2")
    original = bundle.rewrite(settings, other, fd, edit_for(settings, other))
    assert original.spec["root"] == SPEC["root"]
    bundle.restore(settings, other)
    found = written(path)
    assert (found["hostname"], found["root"], found["hooks"]) == (
        "changed",
        SPEC["root"],
        SPEC["hooks"],
    )


def test_a_root_of_ours_whose_state_is_lost(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    os.unlink(f"{states.directory(settings, state.key)}/state.json")
    assert bundle.read_original(settings, fd).spec["root"] == SPEC["root"]


def test_a_bundle_that_is_gone(settings: Settings, state: State, path: Path, fd: int) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    (path / "config.json").unlink()
    assert bundle.restore(settings, state) == "gone"
    path.rmdir()
    assert bundle.restore(settings, state) == "gone"


def test_a_bundle_that_was_never_rewritten(settings: Settings, state: State) -> None:
    assert bundle.restore(settings, state) == "foreign"


@pytest.mark.parametrize("text", ["", "[]", '{"a":', '"x"', "\udcff"])
def test_what_is_no_spec_is_refused(path: Path, fd: int, text: str) -> None:
    (path / "config.json").write_bytes(os.fsencode(text))
    with pytest.raises(BundleError, match=r"config\.json"):
        bundle.read_config(fd)


def test_what_is_no_file_is_refused(path: Path, fd: int) -> None:
    config = path / "config.json"
    config.rename(path / "elsewhere")
    with pytest.raises(BundleError, match="No such file"):
        bundle.read_config(fd)
    config.symlink_to("nowhere")
    with pytest.raises(BundleError, match="No such file"):
        bundle.read_config(fd)
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(BundleError, match="regular"):
        bundle.read_config(fd)
    config.unlink()
    with config.open("wb") as file:
        file.truncate(bundle.SIZE_LIMIT + 1)
    with pytest.raises(BundleError, match="larger"):
        bundle.read_config(fd)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="missing"):
        bundle.open_bundle(str(tmp_path / "missing"))


@pytest.mark.parametrize("root", [None, [], "rootfs", {"path": 1}, {}])
def test_odd_roots_are_read_as_they_are(
    settings: Settings, path: Path, fd: int, root: object
) -> None:
    (path / "config.json").write_text(json.dumps({"root": root}))
    assert bundle.read_original(settings, fd).spec == {"root": root}


def test_a_bundle_where_nothing_can_be_written(
    settings: Settings, state: State, path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr("clip_runc.linux.storage.keeps_order", lambda _: False)
    with pytest.raises(BundleError, match="No space"):
        bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert (path / "config.json").read_text() == TEXT
    assert os.listdir(path) == ["config.json"]


@pytest.mark.parametrize("in_order", [True, False])
def test_what_a_journal_keeps_in_order_is_not_waited_for(
    settings: Settings,
    state: State,
    fd: int,
    monkeypatch: pytest.MonkeyPatch,
    in_order: bool,
) -> None:
    """The state is renamed over the one before, which is what ext4 looks for."""
    monkeypatch.setattr("clip_runc.linux.storage.keeps_order", lambda _: in_order)
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    states.save(settings, state, durable=False)  # as prepare does
    rename = os.rename

    def renamed(old: str, new: str, **fds: int) -> None:
        target = f"/proc/self/fd/{fds['dst_dir_fd']}/{new}" if fds else new
        assert os.path.lexists(target)
        calls.append(os.path.basename(new))
        rename(old, new, **fds)

    monkeypatch.setattr(os, "rename", renamed)
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert calls == [*([] if in_order else ["fsync"]), "state.json", "config.json"]


def inode(path: Path) -> tuple[int, int]:
    status = (path / "config.json").stat()
    return status.st_ino, status.st_mtime_ns


def test_the_very_file_comes_back(settings: Settings, state: State, path: Path, fd: int) -> None:
    before = inode(path)
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert inode(path) != before
    assert bundle.restore(settings, state) == "restored"
    assert inode(path) == before
    assert (path / "config.json").stat().st_nlink == 1


def test_a_bundle_on_another_file_system(
    settings: Settings, state: State, path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    monkeypatch.setattr(os, "rename", lambda *names, **fds: (
        refuse() if str(names[0]).startswith(settings.container_dir)
        else os.replace(*names, **fds)
    ))  # fmt: skip
    assert bundle.restore(settings, state) == "restored"
    assert (path / "config.json").read_text() == TEXT


def test_a_file_that_a_power_cut_made_empty(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    assert not bundle.revive(settings, fd)
    (path / "config.json").write_text("")
    assert bundle.revive(settings, fd)
    assert (path / "config.json").read_text() == TEXT
    assert not bundle.revive(settings, fd)


def test_another_mode_that_somebody_gave_it_stays(
    settings: Settings, state: State, path: Path, fd: int
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    (path / "config.json").chmod(0o604)
    assert bundle.restore(settings, state) == "restored"
    assert (path / "config.json").read_text() == TEXT
    assert (path / "config.json").stat().st_mode & 0o777 == 0o604


@pytest.mark.parametrize("kept", [True, False])
def test_a_state_that_is_lost(
    settings: Settings, state: State, path: Path, fd: int, kept: bool
) -> None:
    bundle.rewrite(settings, state, fd, edit_for(settings, state))
    (Path(states.directory(settings, state.key)) / "state.json").write_text("")
    if not kept:
        (Path(states.directory(settings, state.key)) / "config.json").unlink()
    found = bundle.read_original(settings, fd)
    assert found.spec["root"] == SPEC["root"]
    assert found.spec["hooks"] == SPEC["hooks"]
    assert (found.data.decode() == TEXT) is kept
