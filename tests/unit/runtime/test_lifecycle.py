"""create and delete over rooms of our own making: no mounts, no runtime."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import ANNOTATION_STATE, Settings
from clip_runc.containers import state as states
from clip_runc.containers.key import key as key_of
from clip_runc.errors import BundleError, MountFailed
from clip_runc.images.local import LocalImage
from clip_runc.images.resolve import Resolved
from clip_runc.runtime import cleanup, create, delete, lifecycle
from clip_runc.runtime.argv import Invocation, parse

HEX = "ab" * 32
SPEC = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "annotations": {"x": "y"}}


class Executed(BaseException):
    """The exec that would have been."""


class Machine:
    """Directories, settings, and what the rooms were asked for."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(state_dir=str(path / "state"), run_dir=str(path / "run"))
        self.bundle = path / "bundle"
        self.bundle.mkdir()
        self.config = self.bundle / "config.json"
        self.config.write_text(json.dumps(SPEC))
        self.root = path / "runc"
        self.watched: list[Any] = []
        for directory in (self.settings.lock_dir, self.settings.container_dir):
            os.makedirs(directory)

    def invocation(self, command: str = "create", *options: str) -> Invocation:
        name = [] if command == "delete" else ["--bundle", str(self.bundle)]
        argv = ["runc", "--root", str(self.root), *options, command, *name, "c1"]
        return parse(argv)

    @property
    def key(self) -> str:
        return key_of(str(self.root), "c1")

    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.config.read_text())
        return found

    def prepare(self, *_: object, **values: object) -> Any:
        state = states.State(self.key)
        state.id, state.root, state.image, state.mode = "c1", str(self.root), HEX, "erofs"
        state.creator = (os.getpid(), states.start_time("self"))
        os.makedirs(states.directory(self.settings, self.key))
        states.save(self.settings, state, durable=False)
        self.prepared_with = values
        rootfs = f"{self.settings.rootfs_dir}/{self.key}/rootfs"
        values = {"key": self.key, "state": state, "rootfs": rootfs, "mode": "erofs"}
        return type("P", (), {**values, "layers": "1 complete, 2 lazy"})()

    def clean(self) -> bool:
        """The bundle is as it was, and there is no container; an empty trash may be there."""
        files = Path(self.settings.container_dir).rglob("*")
        left = [path for path in files if path.name != ".trash"]
        return self.spec() == SPEC and not left


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    use = Resolved("use", LocalImage(HEX, "/i", "/e"), "host/image", True, "annotation")
    monkeypatch.setattr("clip_runc.runtime.plain_config.load_settings", lambda: found.settings)
    monkeypatch.setattr("clip_runc.images.resolve.resolve", lambda *_: use)
    monkeypatch.setattr("clip_runc.containers.prepare.prepare", found.prepare)
    monkeypatch.setattr(
        "clip_runc.runtime.watcher.watch", lambda *a, **k: found.watched.append((a, k))
    )
    monkeypatch.setattr(create, "pass_through", executed)
    return found


def executed(path: str) -> None:
    raise Executed(path)


def test_what_runc_sees(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def look(path: str) -> None:
        seen.update(machine.spec(), real=path)
        raise Executed

    monkeypatch.setattr(create, "pass_through", look)
    with pytest.raises(Executed):
        create.create(machine.invocation(), "/real", str(machine.root), "")
    assert seen["real"] == "/real"
    assert seen["root"]["path"].endswith(f"/{machine.key}/rootfs")
    (hook,) = seen["hooks"]["poststop"]
    assert os.access(hook["path"], os.X_OK)
    assert machine.key in hook["args"]
    said = {k.removeprefix(ANNOTATION_STATE): v for k, v in seen["annotations"].items()}
    assert float(said.pop("resolve_ms")) >= 0 and float(said.pop("mount_ms")) >= 0
    assert said == {
        "x": "y", "digest": f"sha256:{HEX}", "image": "host/image", "source": "annotation",
        "mode": "erofs", "layers": "1 complete, 2 lazy",
    }  # fmt: skip
    assert machine.prepared_with["nosuid"] is True
    assert machine.prepared_with["container_id"] == "c1"
    assert [kwargs for _, kwargs in machine.watched] == [{"follow": False}]
    # the exec did not happen after all: everything is as it was
    assert machine.clean()


def test_run_is_followed_until_the_container_is_there(machine: Machine) -> None:
    with pytest.raises(Executed):
        create.create(machine.invocation("run"), "/real", str(machine.root), "")
    assert [kwargs for _, kwargs in machine.watched] == [{"follow": True}]


def test_an_exec_that_fails_undoes_everything(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(create, "pass_through", fail)
    with pytest.raises(SystemExit, match="1"):
        lifecycle.handle(machine.invocation(), "/real", "")
    assert 'msg="runc create failed: /real: Permission denied"' in capfd.readouterr().err
    assert machine.clean()


@pytest.mark.parametrize("error", [MountFailed("no mount", "do this"), ValueError("odd")])
def test_errors_of_rooms_are_told_in_runcs_format(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("clip_runc.containers.prepare.prepare", fail)
    with pytest.raises(SystemExit, match="1"):
        lifecycle.handle(machine.invocation("run"), "/real", "")
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "runc run failed: " in said
    assert str(error) in said
    assert machine.clean()


@pytest.mark.parametrize("spec", ["", "not JSON", "[]"])
def test_a_spec_that_runc_refuses_passes(machine: Machine, spec: str) -> None:
    machine.config.write_text(spec)
    create.create(machine.invocation(), "/real", str(machine.root), "")
    assert machine.config.read_text() == spec


def test_a_bundle_of_others_passes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Resolved("pass", None, "", False, "no annotation")
    monkeypatch.setattr("clip_runc.images.resolve.resolve", lambda *_: none)
    before = machine.config.stat()
    create.create(machine.invocation(), "/real", str(machine.root), "")
    assert machine.config.stat() == before


def test_a_named_image_that_passes_is_warned_of(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the annotation expected a lazy start; the reason is in the log."""
    why = "annotation dev.clip-runc.image: host/image is not indexed here"
    said: list[str] = []
    monkeypatch.setattr("clip_runc.runtime.report.log", lambda *given: said.append(given[2]))
    for explicit in (False, True):
        found = Resolved("pass", None, "host/image", explicit, why)
        monkeypatch.setattr("clip_runc.images.resolve.resolve", lambda *_, it=found: it)
        create.create(machine.invocation(), "/real", str(machine.root), "")
    assert said == [f"clip-runc: not lazy: {why}"]
    assert machine.clean()


ASKS = '{"annotations": {"dev.clip-runc.image": "x/y"}}'


@pytest.mark.parametrize("text", [ASKS, "{}", "["])
def test_an_ordinary_user_is_told_to_make_a_namespace(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Only where the bundle names an image of ours; and never of a delete."""
    said: list[str] = []
    monkeypatch.setattr(lifecycle, "report_error", lambda *given: said.append(given[1]))
    monkeypatch.setattr(os, "geteuid", lambda: 1777)
    machine.config.write_text(text)
    for command in ("create", "run"):
        if text == ASKS:
            with pytest.raises(SystemExit, match="1"):
                lifecycle.handle(machine.invocation(command), "/real", "")
        else:
            lifecycle.handle(machine.invocation(command), "/real", "")
    lifecycle.handle(machine.invocation("delete"), "/real", "")
    machine.config.unlink()
    lifecycle.handle(machine.invocation(), "/real", "")
    assert len(said) == (2 if text == ASKS else 0)
    for line, command in zip(said, ("create", "run"), strict=False):
        assert line.startswith(f"runc {command} failed: annotation dev.clip-runc.image: user 1777")
        assert "clipctl unshare" in line


def test_an_ordinary_user_may_choose_to_go_without(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(lifecycle, "log", lambda *given: said.append(given[2]))
    monkeypatch.setattr(os, "geteuid", lambda: 1777)
    machine.settings.explicit_policy = "pass"
    machine.config.write_text(ASKS)
    lifecycle.handle(machine.invocation(), "/real", "")
    (line,) = said
    assert line.startswith("clip-runc: not lazy: annotation dev.clip-runc.image: user 1777")


@pytest.mark.parametrize(
    ("real", "user", "rootless", "root"),
    [
        ("runc", "root", False, "/run/runc"),
        ("runc", "ruth", False, "/run/runc"),
        ("runc", "root", True, "/run/runc"),
        ("runc", "ruth", True, "/own/runc"),
        ("crun", "root", False, "/own/crun"),
        ("youki", "ruth", True, "/own/youki"),
    ],
)
def test_where_a_runtime_keeps_its_containers(
    monkeypatch: pytest.MonkeyPatch, real: str, user: str, rootless: bool, root: str
) -> None:
    """As the sources of runc (main.go) and crun (status.c) have it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/own")
    monkeypatch.setenv("USER", user)
    monkeypatch.setattr("clip_runc.config.is_rootless", lambda: rootless)
    assert lifecycle.root_of(parse(["runc", "create", "c1"]), f"/usr/bin/{real}") == root
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert lifecycle.root_of(parse(["runc", "create", "c1"]), f"/usr/bin/{real}").startswith("/run")


@pytest.mark.parametrize("explicit", [True, False])
def test_a_bundle_that_cannot_be_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    """Who named our image gets the reason; an ordinary container of the node starts as it is."""
    said: list[str] = []
    monkeypatch.setattr("clip_runc.runtime.report.log", lambda *given: said.append(given[2]))
    found = Resolved("use", LocalImage(HEX, "/i", "/e"), "host/image", explicit, "annotation")
    monkeypatch.setattr("clip_runc.images.resolve.resolve", lambda *_: found)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("clip_runc.containers.bundle._replace", refuse)
    arguments = (machine.invocation(), "/real", str(machine.root), "")
    if explicit:
        with pytest.raises(BundleError, match=r"config\.json: Read-only file system"):
            create.create(*arguments)
    else:
        create.create(*arguments)
        (line,) = said
        assert line.startswith("clip-runc: not lazy: host/image: ")
        assert "Read-only file system" in line
    assert machine.clean()


def test_an_id_in_use_passes(machine: Machine) -> None:
    (machine.root / "c1").mkdir(parents=True)
    (machine.root / "c1/state.json").touch()
    create.create(machine.invocation(), "/real", str(machine.root), "")
    assert machine.clean()


@pytest.mark.parametrize("explicit", [True, False])
def test_an_image_that_cannot_be_indexed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    """An explicit one is an error, an implicit one passes."""

    def fail(*_: object) -> None:
        raise MountFailed("registry down")

    build = Resolved("build", None, "host/image", explicit, "annotation")
    monkeypatch.setattr("clip_runc.images.resolve.resolve", lambda *_: build)
    monkeypatch.setattr("clip_runc.images.request.build", fail)
    if explicit:
        with pytest.raises(MountFailed):
            create.create(machine.invocation(), "/real", str(machine.root), "")
    else:
        create.create(machine.invocation(), "/real", str(machine.root), "")
    assert machine.clean()


def test_strays_of_a_killed_rewrite_are_removed(machine: Machine) -> None:
    # whose number is neither ours nor free, and which ends with its input
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        dead, living = 2**22 + 1, other.pid
        for number in (dead, living, "x"):
            (machine.bundle / f".config.json.{number}.clip").touch()
        with pytest.raises(Executed):
            create.create(machine.invocation(), "/real", str(machine.root), "")
    assert sorted(path.name for path in machine.bundle.iterdir()) == sorted(
        [f".config.json.{living}.clip", ".config.json.x.clip", "config.json"]
    )


def test_delete_takes_down_what_the_runtime_has_forgotten(machine: Machine) -> None:
    state = machine.prepare().state
    state.creator = (1, 1)  # of a process that has ended
    states.save(machine.settings, state, durable=False)
    delete.before_delete(machine.invocation("delete"), str(machine.root))
    assert machine.clean()


@pytest.mark.parametrize("living", ["container", "creator"])
def test_delete_leaves_what_lives_to_the_runtime(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, living: str
) -> None:
    watched: list[object] = []
    monkeypatch.setattr("clip_runc.runtime.watcher.watch", lambda *a, **k: watched.append(a))
    machine.prepare()
    if living == "container":
        (machine.root / "c1").mkdir(parents=True)
        (machine.root / "c1/state.json").touch()
    delete.before_delete(machine.invocation("delete"), str(machine.root))
    assert not machine.clean()
    assert len(watched) == (1 if living == "container" else 0)


def test_nothing_of_ours_keeps_the_runtime_from_deleting(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Settings:
        raise RuntimeError("odd")

    monkeypatch.setattr("clip_runc.runtime.plain_config.load_settings", fail)
    lifecycle.handle(machine.invocation("delete"), "/real", "")


def test_only_the_creators_own_container_is_taken_down(machine: Machine) -> None:
    """A hook of the container before must not take down the one that has its id now."""
    creator = machine.prepare().state.creator
    assert cleanup.take_down(machine.settings, machine.key, (1, 2)) == []
    assert not machine.clean()
    assert cleanup.take_down(machine.settings, machine.key, creator, lambda: True) == []
    assert not machine.clean()
    assert cleanup.take_down(machine.settings, machine.key, creator) == []
    assert machine.clean()
    assert cleanup.take_down(machine.settings, machine.key, creator) == []


def test_what_clipd_has_judged(machine: Machine) -> None:
    """A create has ended: its container is taken down unless the runtime knows it."""
    creator = machine.prepare().state.creator
    told = {"key": machine.key, "root": str(machine.root), "container": "c1"}
    cleanup.run(machine.settings, [], creator=[1, 2], **told)
    known = machine.root / "c1/state.json"
    known.parent.mkdir(parents=True)
    known.touch()
    cleanup.run(machine.settings, [], creator=list(creator), **told)
    assert not machine.clean()
    known.unlink()
    cleanup.run(machine.settings, [], creator=list(creator), **{**told, "key": "../other"})
    assert not machine.clean()
    cleanup.run(machine.settings, [], creator=list(creator), **told)
    assert machine.clean()


def test_the_root_of_each_runtime(tmp_path: Path) -> None:
    for name, root in (("runc", "/run/runc"), ("crun", "/run/crun"), ("youki", "/run/youki")):
        real = tmp_path / name
        real.touch()
        assert lifecycle.root_of(Invocation(), str(real)) == root
    assert lifecycle.root_of(parse(["runc", "--root", "/a/../b", "run", "c"]), "/x/crun") == "/b"
