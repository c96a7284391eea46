"""prepare, teardown and gc with real overlays, over a directory that stands for the image.

Needs root; no clipd and no registry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_runc.config import Settings
from clip_runc.containers import state as states
from clip_runc.containers.gc import gc
from clip_runc.containers.key import key
from clip_runc.containers.prepare import Prepared, prepare
from clip_runc.containers.state import lock_path
from clip_runc.containers.teardown import teardown
from clip_runc.errors import BundleError, MountFailed, StorageRefused, StoreError
from clip_runc.images import local
from clip_runc.images.mount import MountedImage
from clip_runc.linux.files import lock
from clip_runc.linux.mount import unmount
from clip_runc.linux.mountinfo import mounts

HEX = "ab" * 32


class Machine:
    """Directories of our own on a disk, and an image that is mounted already."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.settings = Settings(state_dir=f"{base}/state", run_dir=f"{base}/run")
        self.root = base / "runc"
        self.root.mkdir()
        self.lower = base / "lower"
        (self.lower / "etc").mkdir(parents=True)
        (self.lower / "etc/hostname").write_text("image\n")
        self.image = local.at(self.settings, HEX)
        monkeypatch.setattr(
            "clip_runc.containers.prepare.mount_image",
            lambda settings, image, *more: MountedImage(str(self.lower), "tree"),
        )

    def key(self, name: str = "c1") -> str:
        return key(str(self.root), name)

    def prepare(self, name: str = "c1", *, nosuid: bool = True) -> Prepared:
        return prepare(
            self.settings, self.key(name), self.image, nosuid=nosuid,
            root=str(self.root), container_id=name, bundle="/bundle",
        )  # fmt: skip

    def mounted(self) -> list[str]:
        return [x.target for x in mounts() if x.target.startswith(f"{self.base}/")]

    def left(self) -> list[str]:
        """What is there of containers: mounts, directories, leases, locks."""
        found = self.mounted()
        for directory in (self.settings.container_dir, self.settings.rootfs_dir):
            if os.path.isdir(directory):
                found += [name for name in os.listdir(directory) if name != ".trash"]
        trash = f"{self.settings.container_dir}/.trash"
        found += os.listdir(trash) if os.path.isdir(trash) else []
        leases = f"{self.settings.lease_dir}/{HEX}"
        found += os.listdir(leases) if os.path.isdir(leases) else []
        locks = self.settings.lock_dir
        return found + (os.listdir(locks) if os.path.isdir(locks) else [])

    def forget_creator(self, name: str = "c1") -> None:
        """As if the process that made the container had ended."""
        state = states.load(self.settings, self.key(name))
        assert state is not None
        state.creator = (1, 1)
        states.save(self.settings, state, durable=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    base = Path(tempfile.mkdtemp(prefix="clip-containers-", dir="/var/tmp"))
    found = Machine(base, monkeypatch)
    try:
        yield found
    finally:
        for target in reversed(found.mounted()):
            unmount(target)
        shutil.rmtree(base)


def test_a_container_gets_a_writable_root_of_its_own(machine: Machine) -> None:
    one, other = machine.prepare("c1"), machine.prepare("c2")
    assert (one.mode, one.lower) == ("tree", str(machine.lower))
    Path(one.rootfs, "etc/hostname").write_text("mine\n")
    assert Path(other.rootfs, "etc/hostname").read_text() == "image\n"
    assert (machine.lower / "etc/hostname").read_text() == "image\n"
    assert set(os.listdir(f"{machine.settings.lease_dir}/{HEX}")) == {one.key, other.key}
    for name in ("c1", "c2"):
        problems: list[str] = []
        assert teardown(machine.settings, machine.key(name), problems)
        assert problems == []
        assert not teardown(machine.settings, machine.key(name))
    assert machine.left() == []


@pytest.mark.parametrize("nosuid", [True, False])
def test_mount_options(machine: Machine, nosuid: bool) -> None:
    prepared = machine.prepare(nosuid=nosuid)
    (mount,) = [x for x in mounts() if x.target == prepared.rootfs]
    options = mount.options.split(",")
    assert "nodev" in options
    assert ("nosuid" in options) == nosuid
    shown = mount.super_options.split(",")
    # what is a default of this kernel is not shown; the other value would be
    assert "index=on" not in shown and "metacopy=on" not in shown
    assert {"volatile", "fsync=volatile"} & set(shown)


def test_the_root_looks_like_that_of_the_image(machine: Machine) -> None:
    os.chown(machine.lower, 1234, 4321)
    os.chmod(machine.lower, 0o1751)
    os.setxattr(machine.lower, "user.from", b"image")
    os.utime(machine.lower, ns=(10**18, 10**18 + 123))
    status = os.stat(machine.prepare().rootfs)
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 4321, 0o1751)
    assert status.st_mtime_ns == 10**18 + 123
    assert os.getxattr(machine.prepare("c2").upper, "user.from") == b"image"


def test_a_user_namespace_can_get_to_its_root(machine: Machine) -> None:
    prepared = machine.prepare()
    path = Path(prepared.rootfs)
    while path != machine.base:
        assert path.stat().st_mode & 0o001, path
        path = path.parent
    private = Path(machine.settings.container_dir)
    assert private.stat().st_mode & 0o777 == 0o700


def test_an_existing_container_is_not_touched(machine: Machine) -> None:
    prepared = machine.prepare()
    (machine.root / "c1").mkdir()
    with pytest.raises(BundleError, match="already exists"):
        machine.prepare()
    assert machine.mounted() == [prepared.rootfs]


def test_a_container_that_another_process_makes_is_not_touched(machine: Machine) -> None:
    prepared = machine.prepare()
    with subprocess.Popen(["sleep", "60"]) as process:
        prepared.state.creator = (process.pid, states.start_time(process.pid))
        states.save(machine.settings, prepared.state, durable=False)
        with pytest.raises(BundleError, match=f"being made by process {process.pid}"):
            machine.prepare()
        assert machine.mounted() == [prepared.rootfs]
        process.kill()
    machine.prepare()
    assert machine.mounted() == [prepared.rootfs], "not stacked"


@pytest.mark.parametrize("what", ["state.json", "upper", "work", "everything but the mount"])
def test_leftovers_of_a_crash_are_swept(machine: Machine, what: str) -> None:
    prepared = machine.prepare()
    Path(prepared.rootfs, "old").write_text("old")
    machine.forget_creator()
    base = Path(states.directory(machine.settings, prepared.key))
    if what == "state.json":
        (base / what).unlink()
    elif what == "everything but the mount":
        base.rename(machine.base / "away")
    else:
        (base / what).rename(machine.base / "away")
    again = machine.prepare()
    assert machine.mounted() == [again.rootfs]
    assert not Path(again.rootfs, "old").exists()


def test_a_reboot_empties_run_and_keeps_the_state(machine: Machine) -> None:
    prepared = machine.prepare()
    Path(prepared.rootfs, "old").write_text("old")
    (machine.root / "c1").mkdir()
    unmount(prepared.rootfs)
    shutil.rmtree(machine.settings.run_dir)
    shutil.rmtree(machine.root)
    state = states.load(machine.settings, prepared.key)
    assert state is not None
    state.boot = "the boot before"
    states.save(machine.settings, state, durable=False)
    again = machine.prepare()
    assert os.listdir(again.rootfs) == ["etc"]


@pytest.mark.parametrize("failing", ["mount_image", "mount_rootfs", "_make_upper"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MountFailed("no"), MountFailed),
        (OSError(28, "No space left on device"), StoreError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_whatever_fails_nothing_stays(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    failing: str,
    error: BaseException,
    expected: type[BaseException],
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(f"clip_runc.containers.prepare.{failing}", fail)
    with pytest.raises(expected):
        machine.prepare()
    assert machine.left() == [os.path.basename(lock_path(machine.settings, machine.key()))]


def test_a_state_directory_in_memory_is_refused(machine: Machine) -> None:
    machine.settings.state_dir = f"/dev/shm/{machine.base.name}"
    with pytest.raises(StorageRefused, match="tmpfs"):
        machine.prepare()
    assert not os.path.exists(machine.settings.state_dir)


def test_busy_in_another_namespace(machine: Machine) -> None:
    """Delete returns at once; the mount is gone when its last user is."""
    prepared = machine.prepare()
    command = ["unshare", "--mount", "sh", "-c", f"cd {prepared.rootfs} && echo in && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None and user.stdin is not None
        assert user.stdout.readline() == b"in\n"
        problems: list[str] = []
        assert teardown(machine.settings, prepared.key, problems)
        assert problems == []
        user.stdin.close()
    assert machine.left() == []


def test_teardown_while_the_lock_is_held(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = machine.prepare()
    monkeypatch.setattr("clip_runc.containers.teardown.LOCK_SECONDS", 0.1)
    problems: list[str] = []
    with lock(lock_path(machine.settings, prepared.key)):
        assert teardown(machine.settings, prepared.key, problems)
    assert "another process" in problems[0]
    assert machine.mounted() == [prepared.rootfs]


class TestGc:
    def test_what_lives_stays(self, machine: Machine) -> None:
        machine.prepare("made now")
        machine.prepare("known")
        machine.forget_creator("known")
        (machine.root / "known").mkdir()
        (machine.root / "known/state.json").touch()
        prepare(machine.settings, machine.key("api"), machine.image, nosuid=True)
        machine.forget_creator("api")
        before = machine.mounted()
        assert gc(machine.settings) == []
        assert machine.mounted() == before

    def test_what_is_dead_goes(self, machine: Machine) -> None:
        machine.prepare("dead")
        machine.forget_creator("dead")
        assert gc(machine.settings) == ["container dead"]
        assert gc(machine.settings) == []
        assert machine.left() == []

    def test_lock_files_of_containers_that_are_gone(self, machine: Machine) -> None:
        kept = machine.prepare("kept")
        Path(lock_path(machine.settings, machine.key("gone"))).touch()
        assert gc(machine.settings) == []
        assert os.listdir(machine.settings.lock_dir) == [f"container-{kept.key}"]

    def test_gvisor_keeps_files_and_no_directories(self, machine: Machine) -> None:
        machine.prepare()
        machine.forget_creator()
        (machine.root / "pod_sandbox:c1.state").touch()
        assert gc(machine.settings) == []

    def test_what_is_of_another_boot_goes(self, machine: Machine) -> None:
        prepared = machine.prepare()
        (machine.root / "c1").mkdir()
        prepared.state.boot = "another"
        states.save(machine.settings, prepared.state, durable=False)
        assert gc(machine.settings) == ["container c1"]

    def test_what_is_being_made_stays(self, machine: Machine) -> None:
        prepared = machine.prepare()
        os.unlink(f"{states.directory(machine.settings, prepared.key)}/state.json")
        with lock(lock_path(machine.settings, prepared.key)):
            assert gc(machine.settings) == []
        assert gc(machine.settings) == [f"container {prepared.key}"]

    def test_strange_names_are_not_ours(self, machine: Machine) -> None:
        machine.prepare()
        strange = Path(machine.settings.container_dir, "somebody's")
        strange.mkdir()
        assert gc(machine.settings) == []
        assert strange.is_dir()

    def test_lost_leases_and_trash(self, machine: Machine) -> None:
        machine.prepare()
        Path(machine.settings.lease_dir, HEX, machine.key("gone")).touch()
        Path(machine.settings.container_dir, ".trash/old").mkdir(parents=True)
        assert gc(machine.settings) == [
            f"lease of {machine.key('gone')} on {HEX[:12]}",
            "files of old",
        ]

    def test_another_judge(self, machine: Machine) -> None:
        machine.prepare()
        assert gc(machine.settings, alive=lambda state: False) == ["container c1"]


KILLED = """
import os, signal, sys
from clip_runc.config import Settings
from clip_runc.containers import prepare as module
from clip_runc.images import local
from clip_runc.images.mount import MountedImage
base, count = sys.argv[1], int(sys.argv[2])
lines = 0
def trace(frame, event, argument):
    global lines
    if "clip_runc" not in frame.f_code.co_filename:
        return None
    lines += 1
    if lines == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return trace
settings = Settings(state_dir=f"{base}/state", run_dir=f"{base}/run")
module.mount_image = lambda settings, image, *more: MountedImage(f"{base}/lower", "tree")
image = local.at(settings, "ab" * 32)
import clip_runc.linux.mount, clip_runc.containers.teardown, clip_runc.linux.storage
sys.settrace(trace)
from clip_runc.containers.key import key
module.prepare(settings, key(f"{base}/runc", "c1"), image, nosuid=True,
               root=f"{base}/runc", container_id="c1", bundle="/bundle")
sys.settrace(None)
print(lines)
"""


def test_killed_at_any_line_the_same_id_can_be_made_again(machine: Machine, tmp_path: Path) -> None:
    """Every 29th line that runs in prepare, by a tracer that kills its own process."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    run: Callable[[int], Any] = lambda count: subprocess.run(  # noqa: E731
        [sys.executable, str(program), str(machine.base), str(count)],
        env={**os.environ, "PYTHONPATH": str(Path(local.__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for _ in range(2):  # the first makes the directories, which takes more lines
        whole = run(0)
        assert whole.returncode == 0, whole.stderr
        assert teardown(machine.settings, machine.key())
    for count in range(1, int(whole.stdout), 29):
        assert run(count).returncode == -9
        prepared = machine.prepare()
        assert machine.mounted() == [prepared.rootfs]
        problems: list[str] = []
        assert teardown(machine.settings, machine.key(), problems)
        assert (problems, machine.left()) == ([], [])
