"""``tests/versions/run``: the lines of a table in the README, over each release's programs."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.integration.clip_machine import REPOSITORY
from tests.versions.programs import programs

SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13", "forky": "testing"}
CELL_SECONDS = 300
_CONTAINERD = ("tests/integration/test_containerd.py", "tests/integration/test_stub.py")
_PODS = "pod or handler"
_BY_HAND = ("tests/integration/test_runtime_crun.py",)


class Line(NamedTuple):
    """A line of the table: what runs lazily, and pytest's arguments; ``least`` is a version."""

    program: str
    what: str
    tests: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = ()
    least: int = 0

    @property
    def name(self) -> str:
        return f"{self.program}: {self.what}"


LINES = (
    Line("runc", "`create` to `delete`, `run`", _BY_HAND),
    Line("crun", "`create` to `delete`, `run`", _BY_HAND),
    Line("containerd", "`ctr run`, stub images", (*_CONTAINERD, "-k", "ctr or plain")),
    Line("containerd", "pods", (*_CONTAINERD, "-k", _PODS)),
    Line(
        "containerd", "pods, configuration version 3", (*_CONTAINERD, "-k", _PODS),
        (("CLIP_TEST_CONTAINERD_CONFIG", "3"),), least=2,
    ),
    Line(
        "containerd", "a pod, `clipctl install --containerd`",
        ("tests/versions/containerd_default.py",),
    ),
    Line("podman", "`run` to `rm`", ("tests/integration/test_podman.py",)),
    Line("docker", "`run` to `rm`, stub images", ("tests/others/docker_daemon.py",)),
)  # fmt: skip
BEGIN, END = "<!-- tests/versions/run: begin -->", "<!-- tests/versions/run: end -->"
_CELL = re.compile(r"(?P<version>[\d.]+)(?P<failed> failed, last passed)?:? (?P<passed>[\w-]+)")


class Cell(NamedTuple):
    """What became of a line with one release's version of its program."""

    version: str
    passed: str  # the day when it last did, or "never"
    why: str = ""  # it did not this time

    def text(self) -> str:
        return f"{self.version}{' failed, last passed' * bool(self.why)}: {self.passed}"


def version(program: str, path: str) -> str:
    """The version that a program says it has."""
    found = shutil.which("dockerd" if program == "docker" else program, path=path)
    if not found:
        return ""
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"\d+\.\d+[0-9.]*", done.stdout.replace("github.com", ""))
    return number[0] if number else ""


def search_path(suite: str) -> str:
    """A PATH that has the release's programs first; this machine's own where it is of it."""
    own = f"VERSION_CODENAME={suite}\n" in Path("/etc/os-release").read_text()
    found = [] if own else [str(programs(suite))]
    return ":".join([*found, os.environ["PATH"], "/usr/sbin", "/sbin"])


def attempt(line: Line, path: str, log: Path) -> str:
    """Run a line's tests; empty when they passed, or the first thing that says why not."""
    environ = {
        **os.environ, **dict(line.environ), "PATH": path, "CI": "1",
        "CLIP_TEST_CRUN": shutil.which(line.program, path=path) or "",
        "CONTAINERS_HELPER_BINARY_DIR": path.partition(":")[0],
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *line.tests]
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        said = child.communicate(timeout=CELL_SECONDS)[0]
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)  # its fixtures end their daemons
        said = child.communicate(timeout=CELL_SECONDS)[0]
    with log.open("a") as out:
        out.write(f"{line.name} with {path.partition(':')[0]}\n{said}\n")
    # what is all skipped, or none at all, has not passed
    if child.returncode == 0 and re.search(r"\b[1-9]\d* passed", said):
        return ""
    wrong = re.search(r"^E\s+(.+)$", said, re.MULTILINE)
    return wrong[1][:120] if wrong else f"pytest exited with {child.returncode}"


def former(readme: str) -> dict[str, list[str]]:
    """The cells that an earlier run wrote, by the line's name."""
    table = readme.partition(BEGIN)[2].partition(END)[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:2] == "| "]
    return {f"{row[0]}: {row[1]}": row[2:] for row in rows if len(row) == 2 + len(SUITES)}


def last_passed(cell: str, number: str) -> str:
    """The day when this version last passed, by a cell of the table; ``never``."""
    found = _CELL.fullmatch(cell.strip())
    return found["passed"] if found and found["version"] == number else "never"


def write(readme: Path, cells: dict[tuple[str, str], Cell]) -> None:
    """The table again: cells of this run, and those of earlier ones that it did not run."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        raise SystemExit(f"tests/versions: {readme} has no {BEGIN}")
    known = former(text)
    kernel = ".".join(platform.release().split(".")[:2])
    table = [
        BEGIN, f"Versions, and when they last passed; the last run was on Linux {kernel}.", "",
        f"| program | what starts lazily | {' | '.join(SUITES.values())} |",
        "|---" * (2 + len(SUITES)) + "|",
    ]  # fmt: skip
    for line in LINES:
        old = known.get(line.name, [""] * len(SUITES))
        row = [
            cells[line.name, suite].text() if (line.name, suite) in cells else old[place]
            for place, suite in enumerate(SUITES)
        ]
        table.append("| " + " | ".join([line.program, line.what, *(x or "–" for x in row)]) + " |")
    readme.write_text(before + "\n".join([*table, END]) + rest.partition(END)[2])


def main() -> int:
    """0 when every cell that was run passed."""
    parser = argparse.ArgumentParser(prog="tests/versions/run")
    parser.add_argument("word", nargs="*")
    parser.add_argument("--no-readme", action="store_true")
    given = parser.parse_args()
    lacking = [one for one in ("mmdebstrap", "patchelf", "dockerd") if not shutil.which(one)]
    if os.geteuid() or lacking:
        raise SystemExit(f"tests/versions: needs {', '.join(lacking) or 'root'}")
    readme = REPOSITORY / "README.md"
    known, cells = former(readme.read_text()), {}
    log = Path(f"/var/tmp/clip-versions-{os.getpid()}.log")
    for line in LINES:
        for place, suite in enumerate(SUITES):
            path = search_path(suite)
            number = version(line.program, path)
            title = f"{line.program} {number}: {line.what}"
            older = not number or int(number.partition(".")[0]) < line.least
            if older or not all(word in title for word in given.word):
                continue
            why = attempt(line, path, log)
            old = known.get(line.name, [""] * len(SUITES))[place]
            passed = last_passed(old, number) if why else time.strftime("%Y-%m-%d")
            cells[line.name, suite] = Cell(number, passed, why)
            print(f"{title}: {f'failed: {why}' if why else 'passed'}", flush=True)
    if cells and not given.no_readme:
        write(readme, cells)
    failed = sum(bool(cell.why) for cell in cells.values())
    print(f"{len(cells) - failed} passed, {failed} failed" + (f": {log}" if failed else ""))
    if not failed:
        log.unlink(missing_ok=True)
    return 0 if cells and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
