"""``tests/versions/run``: a test for each program of each release; a table in the README."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.integration.clip_machine import REPOSITORY
from tests.versions.programs import programs

SUITES = ("bookworm", "trixie", "forky")
LINE_SECONDS = 300
_INTEGRATION = "tests/integration"
TESTS = {
    "runc": "tests/versions/by_hand.py",
    "crun": "tests/versions/by_hand.py",
    "containerd": f"{_INTEGRATION}/test_containerd.py::test_ctr_run_with_our_binary",
    "containerd CRI": f"{_INTEGRATION}/test_containerd.py::test_pod_with_our_annotation",
    "podman": f"{_INTEGRATION}/test_podman.py::test_exec_inspect_stop_and_remove",
    "docker": "tests/others/docker_daemon.py::test_a_stub_image",
}
WHAT = {
    "runc": "`run`, `create` to `delete`, by hand",
    "crun": "`run`, `create` to `delete`, by hand",
    "containerd": "`ctr run`",
    "containerd CRI": "a pod (configuration version 2)",
    "podman": "`run` to `rm`",
    "docker": "a stub image, `run` to `rm`",
}
BEGIN, END = "<!-- tests/versions/run: begin -->", "<!-- tests/versions/run: end -->"
_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


class Row(NamedTuple):
    """A line of the table."""

    program: str
    version: str
    what: str
    result: str
    passed: str

    def text(self) -> str:
        return "| " + " | ".join(self) + " |"


def version(program: str, path: str) -> str:
    """The version that a program says it has."""
    found = shutil.which("dockerd" if program == "docker" else program, path=path)
    if not found:
        return ""
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"\d+\.\d+[0-9.]*", done.stdout.replace("github.com", ""))
    return number[0] if number else ""


def attempt(kind: str, path: str, scratch: Path) -> str:
    """Run a line's test; empty when it passed, or the first line that says why not."""
    program = kind.split()[0]
    environ = {**os.environ, "PATH": path, "CI": "1"}
    environ["CLIP_TEST_RUNTIME"] = shutil.which(program, path=path) or program
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", TESTS[kind]]
    with scratch.open("ab") as log:
        try:
            child = subprocess.run(
                command, check=False, cwd=REPOSITORY, env=environ, timeout=LINE_SECONDS,
                capture_output=True, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"nothing in {LINE_SECONDS} s"
        log.write(child.stdout.encode())
    if child.returncode == 0:
        return ""
    wrong = re.search(r"^E\s+(.+)$", child.stdout, re.MULTILINE)
    return (wrong[1] if wrong else f"pytest exited with {child.returncode}")[:120].replace("|", "/")


def former(readme: str) -> dict[tuple[str, str, str], Row]:
    """The rows that an earlier run wrote."""
    table = readme.partition(BEGIN)[2].partition(END)[0]
    rows = [Row(*found.groups()) for found in _ROW.finditer(table)]
    return {row[:3]: row for row in rows if row.program != "program"}


def write(readme: Path, rows: list[Row]) -> None:
    """The table again: rows of this run, and those of earlier ones that it did not run."""
    text = readme.read_text()
    kept = former(text) | {row[:3]: row for row in rows}
    head = [
        BEGIN, "", "| program | version | what ran lazily | result | last passed |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    table = "\n".join([*head, *(row.text() for row in kept.values()), "", END])
    before, _, rest = text.partition(BEGIN)
    readme.write_text(before + table + rest.partition(END)[2])


def main() -> int:
    """0 when every line passed."""
    parser = argparse.ArgumentParser(prog="tests/versions/run")
    parser.add_argument("word", nargs="*")
    parser.add_argument("--no-readme", action="store_true")
    given = parser.parse_args()
    lacking = [one for one in ("mmdebstrap", "patchelf", "dockerd") if not shutil.which(one)]
    if os.geteuid() or lacking:
        raise SystemExit(f"tests/versions: needs {', '.join(lacking) or 'root'}")
    readme = REPOSITORY / "README.md"
    known, rows = former(readme.read_text()), []
    log = Path(f"/var/tmp/clip-versions-{os.getpid()}.log")
    day, kernel = time.strftime("%Y-%m-%d"), ".".join(platform.release().split(".")[:2])
    for kind in TESTS:
        for suite in SUITES:
            path = os.environ["PATH"] + ":/usr/sbin:/sbin"
            if suite != "bookworm":
                path = f"{programs(suite)}:{path}"
            number = version(kind.split()[0], path)
            name = f"{kind} {number}"
            if given.word and not any(word in name for word in given.word):
                continue
            wrong = attempt(kind, path, log)
            old = known.get((kind, number, WHAT[kind]))
            passed = f"{day}, Linux {kernel}" if not wrong else old.passed if old else "never"
            rows.append(
                Row(kind, number, WHAT[kind], f"failed: {wrong}" if wrong else "passed", passed)
            )
            print(rows[-1].text(), flush=True)
    if not given.no_readme:
        write(readme, rows)
    failed = sum(row.result != "passed" for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} failed: {log}")
    else:
        log.unlink(missing_ok=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
