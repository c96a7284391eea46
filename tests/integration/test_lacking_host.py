"""``create`` where the machine lacks something: one line says what, and nothing is left behind.

Devices are taken away in a mount namespace: no node, or no driver behind it. What
this kernel has and another may not is refused to the shim by strace.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clip_machine import ClipMachine, Done
from tests.integration.prerequisites import need

# /dev without $MISSING, with a number that no driver has for $DEAD
DEVICES = """
set -e
mkdir "$1"
mount --rbind /dev "$1"
mount -t tmpfs tmpfs /dev
for path in "$1"/*; do
    name=${path##*/}
    case " $MISSING $DEAD " in *" $name "*) continue ;; esac
    if [ -L "$path" ]; then cp -P "$path" /dev/
    elif [ -d "$path" ]; then mkdir "/dev/$name"; mount --rbind "$path" "/dev/$name"
    else : > "/dev/$name"; mount --bind "$path" "/dev/$name"
    fi
done
for name in $DEAD; do mknod "/dev/$name" c 10 250; done
shift
exec "$@"
"""


def without(clip: ClipMachine, missing: str, dead: str, bundle: Path) -> Done:
    """``clip-runc run`` in a /dev of its own."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", DEVICES, "sh"]
    command = [clip.runtime, "--root", clip.root, "run", "--bundle", bundle, "c1"]
    where = clip.directory / f"dev{time.monotonic_ns()}"
    return clip.call([*argv, where, *command], environ={"MISSING": missing, "DEAD": dead})


def injected(clip: ClipMachine, bundle: Path, *options: str) -> Done:
    """``clip-runc run`` of a warm clipd, with calls of the shim alone refused."""
    need("strace")
    argv = ["strace", "-o", "/dev/null", "-e", "trace=fsopen,mount,ioctl,mknod,mknodat", *options]
    return clip.call([*argv, clip.runtime, "--root", clip.root, "run", "--bundle", bundle, "c1"])


def refused(clip: ClipMachine, bundle: Path, done: Done, *words: str) -> None:
    """One line with these words, the bundle as it was, and nothing else."""
    assert done.returncode == 1 and done.stdout == "", done.stderr
    (line,) = done.stderr.splitlines()
    assert "runc run failed: " in line
    for word in words:
        assert word in line, line
    assert line.count("(") == line.count(")") and "))" not in line, line
    assert "clip" not in json.loads((bundle / "config.json").read_text())["root"]["path"]
    assert clip.containers_left() == []
    assert not (clip.root / "c1").exists()


@pytest.fixture
def bundle_of(busybox_ref: str) -> Callable[[ClipMachine], Path]:
    return lambda clip: clip.bundle(busybox_ref, "/bin/echo", "works")


@pytest.mark.parametrize(
    ("missing", "dead", "words"),
    [
        ("fuse", "", ("/dev/fuse: No such file or directory", "modprobe fuse", "--device")),
        ("", "fuse", ("/dev/fuse: No such device", "the kernel has no FUSE", "CONFIG_FUSE_FS")),
    ],
)
def test_no_fuse(
    clip: ClipMachine, bundle_of: Callable[[ClipMachine], Path], missing: str, dead: str,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    bundle = bundle_of(clip)
    refused(clip, bundle, without(clip, missing, dead, bundle), "clipd did not start", *words)
    done = clip.runc("run", "--bundle", bundle, "c1", check=True)
    assert done.stdout == "works\n", "with the device the same id can be created"


@pytest.mark.parametrize(("missing", "dead"), [("loop-control", ""), ("", "loop-control")])
def test_no_loop_devices(
    clip_with: Callable[..., ClipMachine], bundle_of: Callable[[ClipMachine], Path],
    missing: str, dead: str,
) -> None:  # fmt: skip
    """Only where they are asked for: ``auto`` has other ways."""
    clip = clip_with(layer_mode="loop")
    bundle = bundle_of(clip)
    reason = "/dev/loop-control: No such " + ("file or directory" if missing else "device")
    words = ('layer_mode = \\"loop\\" does not work here', reason, "modprobe loop")
    refused(clip, bundle, without(clip, missing, dead, bundle), *words)
    clip.ctl("stop", check=True)  # it was of a mount namespace that is gone
    clip.configure(layer_mode="auto")
    assert without(clip, missing, dead, bundle).stdout == "works\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("-P", "/dev/loop-control", "-e", "inject=ioctl:error=ENOSPC"),
            ("No space left on device", "all loop devices are in use"),
        ),
        (("-e", "inject=fsopen:error=ENODEV"), ("ENODEV", "modprobe erofs", "CONFIG_EROFS_FS")),
    ],
)
def test_a_pool_that_is_exhausted_and_no_erofs(
    clip_with: Callable[..., ClipMachine], bundle_of: Callable[[ClipMachine], Path],
    options: tuple[str, ...], words: tuple[str, ...],
) -> None:  # fmt: skip
    clip = clip_with(layer_mode="loop")
    bundle = bundle_of(clip)
    _warm(clip)
    refused(clip, bundle, injected(clip, bundle, *options), *words, 'layer_mode = \\"auto\\"')
    assert _loops(clip) == []


def test_auto_goes_on_without_erofs(
    clip: ClipMachine, bundle_of: Callable[[ClipMachine], Path]
) -> None:
    """Neither on files nor on devices: the tree it is, and that is remembered."""
    bundle = bundle_of(clip)
    _warm(clip)
    done = injected(clip, bundle, "-e", "inject=fsopen:error=ENODEV:when=1..2")
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr
    assert (clip.run_dir / "mode").read_text() == "tree"
    assert _loops(clip) == []


@pytest.mark.parametrize("mode", ["erofs", "loop", "tree"])
def test_no_overlay(
    clip_with: Callable[..., ClipMachine], bundle_of: Callable[[ClipMachine], Path], mode: str
) -> None:
    """The image is mounted, the container's root cannot be: in each mode."""
    clip = clip_with(layer_mode=mode)
    bundle = bundle_of(clip)
    _warm(clip)
    second = "" if mode == "tree" else ":when=2+"
    done = injected(clip, bundle, "-e", f"inject=fsopen:error=ENODEV{second}")
    refused(clip, bundle, done, "mount overlay", "modprobe overlay", "CONFIG_OVERLAY_FS")
    assert _loops(clip) == []


def test_a_kernel_without_the_new_mount_api(
    clip: ClipMachine, bundle_of: Callable[[ClipMachine], Path]
) -> None:
    """Before Linux 5.2, or a seccomp profile of that time: mount(2) does."""
    bundle = bundle_of(clip)
    _warm(clip)
    done = injected(clip, bundle, "-e", "inject=fsopen:error=ENOSYS")
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr


def test_a_runtime_that_is_too_old(
    clip: ClipMachine, bundle_of: Callable[[ClipMachine], Path]
) -> None:
    """A time namespace: runc before 1.2 says that there is none, and not what would help."""
    bundle = bundle_of(clip)
    clip.edit(bundle, lambda spec: spec["linux"]["namespaces"].append({"type": "time"}))
    version = _runc_version()
    done = clip.runc("run", "--bundle", bundle, "c1")
    if version >= (1, 2):
        assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr
        return
    refused(clip, bundle, done, "a time namespace", "runc 1.2.0 or newer")


def _runc_version() -> tuple[int, ...]:
    said = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    assert found is not None
    return int(found[1]), int(found[2])


def _warm(clip: ClipMachine) -> None:
    """A clipd that runs, with no image mounted."""
    from clip_runc.fs.client import ensure_clipd

    ensure_clipd(clip.settings).close()


def _loops(clip: ClipMachine) -> list[str]:
    """Backing files of loop devices of the machine, once the last had time to go."""
    end = time.monotonic() + 10
    while True:
        found: list[Any] = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                found.append(path.read_text().strip())
            except OSError:
                continue
        found = [one for one in found if one.startswith(str(clip.directory))]
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)
