"""What the shim costs and changes when it passes a command through, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_runc.runtime import launcher

OWN = {
    "clip_runc",
    "clip_runc.runtime",
    "clip_runc.runtime.argv",
    "clip_runc.runtime.execute",
    "clip_runc.runtime.locate",
    "clip_runc.runtime.main",
}
SHOW = """#!/bin/sh
echo "0=$0 pid=$$"
for argument; do echo "arg=$argument"; done
"""


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    """A launcher over a script that shows how it was called."""
    fake = tmp_path / "runc"
    fake.write_text(SHOW)
    fake.chmod(0o755)
    path = tmp_path / "clip-runc"
    launcher.write_launcher(str(path), real_runtime=str(fake))
    return path


COUNT = """import sys, posix
before = set(sys.modules)
def shown(*_):
    posix.write(1, " ".join(sorted(set(sys.modules) - before)).encode())
    posix._exit(0)
posix.execve = shown
"""


def test_passing_through_imports_next_to_nothing(shim: Path) -> None:
    """Counted where it matters: at the exec."""
    shim.write_text(shim.read_text().replace("import sys\n", COUNT, 1))
    done = subprocess.run([shim, "state", "x"], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"__future__", "gc"} == OWN


def test_arguments_and_name_of_the_program(shim: Path) -> None:
    done = subprocess.run(
        [shim, "exec", "c1", "create", "", "a b", b"\xff\xfe"], capture_output=True, check=True
    )
    lines = done.stdout.split(b"\n")
    assert lines[0].startswith(b"0=" + os.fsencode(shim.parent / "runc"))
    assert lines[1:-1] == [
        b"arg=exec", b"arg=c1", b"arg=create", b"arg=", b"arg=a b", b"arg=\xff\xfe"
    ]  # fmt: skip


def test_the_process_becomes_the_runtime(shim: Path) -> None:
    with subprocess.Popen([shim, "state", "x"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"pid={process.pid}\n" in process.stdout.read()


def test_signals_and_environment_are_those_of_the_caller(shim: Path) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, and sets LC_CTYPE in the C locale."""
    (shim.parent / "runc").write_text("#!/bin/sh\ncat /proc/self/status; cat /proc/self/environ\n")
    for environ in ({}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}, {"A": "b"}):
        said = [
            subprocess.run(
                [program, "list"], env=environ, capture_output=True, text=True, check=True
            ).stdout.splitlines()
            for program in (shim, shim.parent / "runc")
        ]
        ignored = [next(x for x in lines if x.startswith("SigIgn")) for lines in said]
        assert ignored[0] == ignored[1]
        end = said[0][-1]
        given = {pair for pair in end.split("\0") if pair and not pair.startswith("PWD=")}
        assert given == {f"{key}={value}" for key, value in environ.items()}


def test_a_wrapper_that_leads_back_is_an_error_and_no_loop(shim: Path, tmp_path: Path) -> None:
    """nvidia-container-runtime as our runtime, and we as one of its own."""
    wrapper = tmp_path / "nvidia-container-runtime"
    wrapper.write_text(f'#!/bin/sh\nexec {shim} "$@"\n')
    wrapper.chmod(0o755)
    for environ in ({"CLIP_RUNC_RUNTIME": str(wrapper)}, {"CLIP_RUNC_CAME_FROM": "1"}):
        done = subprocess.run(
            [shim, "state", "x"], env=environ, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
        looped = "CLIP_RUNC_RUNTIME" in environ
        assert done.returncode == looped
        assert (f"{wrapper} leads back to clip-runc" in done.stderr) is looped


def test_descriptors_are_those_of_the_caller(shim: Path, tmp_path: Path) -> None:
    (shim.parent / "runc").write_text("#!/bin/sh\nls /proc/self/fd\n")
    extra = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run(
            [shim, "list"], pass_fds=[extra], capture_output=True, text=True, check=True
        )
    finally:
        os.close(extra)
    # one more than ours: the directory that ls reads
    assert len(done.stdout.split()) == 5
    assert str(extra) in done.stdout.split()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_stdio_stays_closed(shim: Path, closed: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (shim.parent / "runc").write_text(f"#!/bin/sh\nls -l /proc/$$/fd > {out} 2>/dev/null\n")
    command = f"{shim} list {closed}"
    subprocess.run(["/bin/sh", "-c", command], check=True)
    ours = [line.split()[-3] for line in out.read_text().splitlines()[1:]]
    (shim.parent / "direct").write_bytes((shim.parent / "runc").read_bytes())
    (shim.parent / "direct").chmod(0o755)
    subprocess.run(["/bin/sh", "-c", f"{shim.parent}/direct list {closed}"], check=True)
    theirs = [line.split()[-3] for line in out.read_text().splitlines()[1:]]
    assert ours == theirs


def test_no_runtime_is_an_error_in_runcs_words(tmp_path: Path) -> None:
    path = tmp_path / "clip-runc"
    launcher.write_launcher(str(path), real_runtime=str(tmp_path / "none"))
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert " level=error msg=" in done.stderr
    assert "cannot be executed" in done.stderr
    assert "Traceback" not in done.stderr


def test_as_a_module(tmp_path: Path) -> None:
    """Without a launcher, as pip's own script calls it."""
    done = subprocess.run(
        [sys.executable, "-m", "clip_runc.runtime.main", "a", "b"],
        env={**os.environ, "CLIP_RUNC_RUNTIME": "/bin/echo"},
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "a b\n"
