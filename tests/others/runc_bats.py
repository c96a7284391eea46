"""Runs the bats tests of a runc source tree with two runtimes and compares what they say.

The tests' images are made here of what the machine has: busybox, a static ``hello``, and the
Debian that our own tests keep.  With ``--annotated`` every bundle that ``runc spec`` writes names
an image of ours with the same files, so that the containers run from an index.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import termios
from collections.abc import Iterable
from pathlib import Path

from tests.integration.busybox_images import BUSYBOX, directory, entry, symlink, tar
from tests.integration.clip_machine import ClipMachine
from tests.integration.daemons import DockerRegistry
from tests.integration.debian_images import debian
from tests.integration.image_maker import Image, unpacked, write_image, write_layer
from tests.integration.pushing import push

CACHE = Path("/var/cache/clip-runc-tests")
RUNC = shutil.which("runc", path=f"{os.environ.get('PATH')}:/usr/sbin") or "runc"
RESULT = re.compile(r"^(ok|not ok) \d+ (.*?)(?: # skip.*)?$")
HELLO = '#include <stdio.h>\nint main(void) { puts("Hello World"); return 0; }\n'
# ``runc spec`` of the tests, and then the annotation; what the bundle holds says which image.
ANNOTATING = """\
#!/bin/sh
{launcher} "$@" || exit
command=; skip=
for word in "$@"; do
    [ -n "$skip" ] && skip= && continue
    case $word in --root) skip=1 ;; -*) ;; *) command=$word; break ;; esac
done
[ "$command" = spec ] && [ -f config.json ] || exit 0
image={busybox}
[ -e rootfs/hello ] && image={hello}
[ -e rootfs/etc/debian_version ] && image={debian}
jq --arg image "$image" '.annotations["dev.clip-runc.image"] = $image' config.json > .annotated &&
    cat .annotated > config.json && rm .annotated
"""


def busybox_tar() -> bytes:
    """The applets below /bin, and the directories of the image that runc's tests fetch."""
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
    names = "bin dev etc home root sbin tmp usr usr/bin usr/sbin var"
    modes = {"tmp": 0o1777, "root": 0o700}
    return tar(
        [
            *(directory(f"./{name}", modes.get(name, 0o755)) for name in names.split()),
            entry("./bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
            *(symlink(f"./bin/{name}", "busybox") for name in listed.split() if name != "busybox"),
            entry("./etc/passwd", b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"),
            entry("./etc/group", b"root:x:0:\ndaemon:x:1:\n"),
        ]
    )


def hello_tar(scratch: Path) -> bytes:
    (scratch / "hello.c").write_text(HELLO)
    subprocess.run(["gcc", "-static", "-o", "hello", "hello.c"], cwd=scratch, check=True)
    return tar([entry("./hello", (scratch / "hello").read_bytes(), mode=0o755)])


def debian_tar(scratch: Path) -> bytes:
    """Our Debian as one archive."""
    tree = scratch / "debian"
    tree.mkdir()
    for layer in debian(CACHE).layers:
        with subprocess.Popen(["tar", "-xpC", tree], stdin=subprocess.PIPE) as child:
            assert child.stdin is not None
            for piece in unpacked(layer):
                child.stdin.write(piece)
    done = subprocess.run(["tar", "-cC", tree, "."], stdout=subprocess.PIPE, check=True)
    shutil.rmtree(tree)
    return done.stdout


class Suite:
    """A copy of the tests that finds its images here."""

    def __init__(self, tree: Path, scratch: Path, archives: dict[str, bytes]) -> None:
        self.tests = scratch / "tests/integration"
        shutil.copytree(tree / "tests/integration", self.tests)
        (scratch / "contrib").symlink_to(tree.resolve() / "contrib")
        lines = ["#!/bin/sh"]
        for name, data in archives.items():
            path = scratch / f"{name}.tar"
            path.write_bytes(data)
            lines.append(f"echo {name.upper()}_IMAGE={path}")
        (self.tests / "get-images.sh").write_text("\n".join(lines) + "\n")
        self.programs = scratch / "programs"
        self.programs.mkdir()
        if not shutil.which("gawk"):  # its \\< in regular expressions is busybox's too
            gawk = self.programs / "gawk"
            gawk.write_text(f'#!/bin/sh\nexec {BUSYBOX} awk "$@"\n')
            gawk.chmod(0o755)
        self.scratch = scratch

    def files(self, wanted: Iterable[str]) -> list[Path]:
        names = sorted(path.name for path in self.tests.glob("*.bats"))
        return [self.tests / name for name in names if not wanted or name in wanted]

    def run(
        self, file: Path, runtime: Path, environ: dict[str, str], seconds: int
    ) -> tuple[dict[str, str], str]:
        """Each test's result by name, and what was printed."""
        path = f"{self.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        temporary = Path(tempfile.mkdtemp(dir=self.scratch))
        temporary.chmod(0o755)
        command = [
            "timeout",
            "--foreground",
            "--kill-after=10",
            str(seconds),
            "bats",
            "--tap",
            str(file),
        ]
        master, slave = pty.openpty()  # some tests open /dev/tty
        done = subprocess.run(
            command, check=False, stdin=slave, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.tests,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, **environ, "PATH": path, "RUNC": str(runtime),
                 "TMPDIR": str(temporary), "BATS_TMPDIR": str(temporary)},
        )  # fmt: skip
        os.close(master)
        os.close(slave)
        found = {}
        for line in done.stdout.splitlines():
            match = RESULT.match(line)
            if match:
                found[match[2]] = "skip" if "# skip" in line else match[1]
        if done.returncode in (124, 137):
            found["(the file in time)"] = "not ok"
        return found, done.stdout


def compare(suite: Suite, parties: dict[str, Path], environ: dict[str, str], given: object) -> int:
    """Run every file with both; the number of tests that differ."""
    different = 0
    totals: dict[str, dict[str, int]] = {name: {} for name in parties}
    for file in suite.files(given.files):  # type: ignore[attr-defined]  # argparse
        results, outputs = {}, {}
        for name, runtime in parties.items():
            seconds = given.seconds  # type: ignore[attr-defined]
            results[name], outputs[name] = suite.run(file, runtime, environ, seconds)
            for value in results[name].values():
                totals[name][value] = totals[name].get(value, 0) + 1
        first, second = results.values()
        odd = [x for x in {**first, **second} if first.get(x) != second.get(x)]
        print(f"{file.name}: {len(first)} tests, {len(odd)} differ", flush=True)
        for test in odd:
            print(f"  {test}: {first.get(test)} / {second.get(test)}", flush=True)
        for name, text in outputs.items():
            Path(f"{given.logs}/{file.stem}.{name}").write_text(text)  # type: ignore[attr-defined]
        different += len(odd)
    for name, counts in totals.items():
        print(name, ", ".join(f"{count} {value}" for value, count in sorted(counts.items())))
    print(f"{different} differ; outputs are in {given.logs}")  # type: ignore[attr-defined]
    return different


def annotating(machine: ClipMachine, registry: DockerRegistry, archives: dict[str, bytes]) -> Path:
    """The wrapper of clip-runc that annotates, with its images indexed."""
    references = {}
    for name, data in archives.items():
        image = image_of(machine.directory / f"layout-{name}", data)
        references[name] = push(image, registry.host, f"bats/{name}", "latest")
        machine.index(references[name])
    path = machine.directory / "annotating"
    path.write_text(ANNOTATING.format(launcher=machine.runtime, **references))
    path.chmod(0o755)
    return path


def image_of(layout: Path, data: bytes) -> Image:
    """One layer; without /dev/*, as the tests unpack it."""
    kept = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=kept, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in old:
            if not member.name.startswith("./dev/"):
                new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return write_image(layout, [write_layer(layout, [kept.getvalue()])], {})


def main() -> int:
    parser = argparse.ArgumentParser(prog="runc_bats", description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--annotated", action="store_true")
    parser.add_argument("--seconds", type=int, default=240, help="for a file (%(default)s)")
    parser.add_argument("--logs", default="/var/tmp/runc-bats")
    given = parser.parse_intermixed_args()
    Path(given.logs).mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and clean up
    scratch = Path(tempfile.mkdtemp(prefix="clip-bats-", dir="/var/tmp"))
    scratch.chmod(0o755)  # a user namespace of a test has to get through
    indexes = scratch / "indexes"
    indexes.mkdir()
    archives = {
        "busybox": busybox_tar(), "hello": hello_tar(scratch), "debian": debian_tar(scratch),
    }  # fmt: skip
    suite = Suite(given.tree, scratch, archives)
    machine = ClipMachine(scratch, indexes, image_linger=3600)
    machine.directory.chmod(0o755)
    registry = DockerRegistry(scratch / "registry")
    try:
        runtime = machine.runtime
        if given.annotated:
            runtime = annotating(machine, registry, archives)
        parties = {"runc": Path(RUNC), "clip-runc": runtime}
        different = compare(suite, parties, machine.environ, given)
    finally:
        registry.stop()
        for line in machine.sweep():
            print(f"left behind: {line}")
        shutil.rmtree(scratch, ignore_errors=True)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
