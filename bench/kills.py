"""Killed at every point; see bench/kills."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.machine import RUNC
from bench.warm import Party, parties
from clip_runc.containers.gc import gc
from tests.integration.clip_machine import ClipMachine, processes_of

CALL = re.compile(r"^(\w+)\(")
HOOK = "clip-runc-poststop"
STEPS = ("create", "delete", "hook", "runc")
WRAPPER = """\
#!/bin/sh
exec strace -o {trace} {inject} {real} "$@"
"""


class Scene:
    """A warm machine, and what it holds when no container is there."""

    def __init__(self, party: Party, machine: ClipMachine) -> None:
        self.party = party
        self.machine = machine
        self.trace = machine.directory / "trace"
        self.config = party.bundle / "config.json"
        self.before = self.config.read_bytes()
        self.daemons = set(processes_of([str(machine.directory)]))
        self.hook = machine.bin / HOOK
        self.real_hook = machine.bin / "real-hook"
        self.hook.rename(self.real_hook)
        self.wrap("")

    def wrap(self, inject: str) -> None:
        """The hook runs under strace."""
        text = WRAPPER.format(trace=self.trace if not inject else os.devnull, inject=inject,
                              real=self.real_hook)  # fmt: skip
        self.hook.write_text(
            text if inject != "plain" else f'#!/bin/sh\nexec {self.real_hook} "$@"\n'
        )
        self.hook.chmod(0o755)

    def call(self, *arguments: str, strace: list[str] | None = None) -> int:
        command = [*(strace or []), *self.party.program, *arguments]
        return subprocess.run(
            command, env={**os.environ, **self.party.environ}, check=False, timeout=120,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode  # fmt: skip

    def create(self, strace: list[str] | None = None) -> int:
        return self.call("create", "--bundle", str(self.party.bundle), "k1", strace=strace)

    def delete(self, strace: list[str] | None = None) -> int:
        return self.call("delete", "--force", "k1", strace=strace)

    def delete_by_hook(self) -> int:
        """By runc alone: the shim's delete leaves its hook nothing to do."""
        command = [RUNC, "--root", str(self.machine.root), "delete", "--force", "k1"]
        return subprocess.run(
            command, check=False, timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode

    def left(self) -> list[str]:
        """What ``delete --force`` and gc leave behind."""
        self.delete()
        end = time.monotonic() + 20
        while found := self._found():
            if time.monotonic() > end:
                break
            gc(self.machine.settings)
            time.sleep(0.05)
        return found

    def _found(self) -> list[str]:
        found = self.machine.containers_left()
        if self.config.read_bytes() != self.before:
            found.append("config.json is not as it was")
        found += [f"file {one.name}" for one in self.party.bundle.glob(".config*")]
        found += [f"cgroup {one}" for one in Path("/sys/fs/cgroup").glob("*/k1")]
        running = processes_of([str(self.machine.directory)])
        clipd = {self.machine.status()[part]["pid"] for part in ("supervisor", "server", "keeper")}
        found += [f"process {running[pid]}" for pid in running.keys() - clipd - self.daemons]
        locks = self.machine.run_dir / "locks"
        return found + [f"lock {one.name}" for one in locks.glob("container-k1*")]


def calls_of(trace: Path, mark: str) -> list[tuple[str, int]]:
    """Each call of a trace and the how-manieth of its name it is, from the one with ``mark`` on."""
    counts: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    seen = False
    # the first is the execve of strace itself, which is none that it can inject at
    for line in trace.read_text(errors="replace").splitlines()[1:]:
        match = CALL.match(line)
        if match is None:
            continue
        counts[match[1]] += 1
        seen = seen or mark in line
        if seen:
            found.append((match[1], counts[match[1]]))
        if seen and match[1] == "execve":
            break
    return found


def tracing(trace: Path) -> list[str]:
    return ["strace", "-o", str(trace)]


def killing(call: str, number: int) -> list[str]:
    inject = f"inject={call}:signal=KILL:when={number}"
    return ["strace", "-o", os.devnull, "-e", f"trace={call}", "-e", inject]


def points(scene: Scene, step: str) -> list[tuple[str, int]]:
    """Where a step can be killed, from a run in which it is not."""
    if step == "create":
        assert scene.create(tracing(scene.trace)) == 0
        found = calls_of(scene.trace, "config.json")
        assert scene.delete() == 0
    else:
        assert scene.create() == 0
        ended = scene.delete(tracing(scene.trace)) if step == "delete" else scene.delete_by_hook()
        assert ended == 0
        found = calls_of(scene.trace, "state.json")
    assert scene.left() == []
    return found


def kill_at(scene: Scene, step: str, call: str, number: int) -> None:
    if step == "create":
        scene.create(killing(call, number))
        return
    if step == "hook":
        scene.wrap(" ".join(killing(call, number)[3:]))
    assert scene.create() == 0
    if step == "delete":
        scene.delete(killing(call, number))
    else:
        scene.delete_by_hook()
        scene.wrap("plain")


def kill_runc(scene: Scene, milliseconds: int) -> None:
    """The process that was the shim, so long after it was started."""
    process = subprocess.Popen(
        [*scene.party.program, "create", "--bundle", str(scene.party.bundle), "k1"],
        env={**os.environ, **scene.party.environ},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGKILL)
    process.wait(60)


def sweep(scene: Scene, step: str, every: int) -> Iterator[tuple[str, list[str]]]:
    """What each kill left, and, of every second one, whether the id could be had at once."""
    if step == "runc":
        kills = [(f"{ms} ms", ms) for ms in range(0, 300, 2 * every)]
    else:
        scene.wrap("" if step == "hook" else "plain")
        kills = [(f"{call} {n}", (call, n)) for call, n in points(scene, step)[::every]]  # type: ignore[misc]
        scene.wrap("plain")
    for number, (name, where) in enumerate(kills):
        if isinstance(where, int):
            kill_runc(scene, where)
        else:
            kill_at(scene, step, *where)
        problems = []
        if number % 2 and step == "create" and scene.create() != 0:
            problems.append("the id cannot be created again")
        yield f"{step} {name}", problems + scene.left()


def main() -> None:
    parser = argparse.ArgumentParser(prog="kills")
    parser.add_argument("steps", nargs="*", help=", ".join(STEPS))
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    if unknown := set(given.steps) - set(STEPS):
        parser.error(f"no step {', '.join(unknown)}")
    bad = 0
    with parties() as (_, ours, machine):
        scene = Scene(ours, machine)
        for step in given.steps or STEPS:
            count, started = 0, time.monotonic()
            for name, problems in sweep(scene, step, given.every):
                count += 1
                for problem in problems:
                    bad += 1
                    print(f"  {name}: {problem}", flush=True)
            print(f"{step}: {count} kills in {time.monotonic() - started:.0f} s", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
