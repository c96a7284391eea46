"""clip-runc on a machine of its own: directories, settings, launcher, and who swept up after it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from clip_runc.config import Settings, load
from clip_runc.images.local import add
from tests.integration.daemons import alive

REPOSITORY = Path(__file__).resolve().parent.parent.parent
Done = subprocess.CompletedProcess[str]


def settings_text(settings: dict[str, object]) -> str:
    """The settings as TOML (strings, numbers, booleans and lists of strings are JSON there)."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def mounts_below(directory: Path) -> list[str]:
    """Mount points below the directory, the last mounted first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    targets = [line.split()[4] for line in lines]
    return [one for one in reversed(targets) if one.startswith(f"{directory}/")]


def processes_of(marks: Iterable[str]) -> dict[int, str]:
    """Living processes but this one with a mark in their command line or environment."""
    wanted = [os.fsencode(mark) for mark in marks]
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            seen = line + (entry / "environ").read_bytes()
        except OSError:
            continue
        if any(mark in seen for mark in wanted) and alive(int(entry.name)):
            found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


class ClipMachine:
    """State, settings and launcher below one directory; commands run with these settings."""

    def __init__(self, scratch: Path, index_cache: Path, **settings: object) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="m-", dir=scratch))
        self.index_cache = index_cache
        self.state = self.directory / "state"
        self.run_dir = self.directory / "run"
        self.config = self.directory / "config.toml"
        self.root = self.directory / "runc"
        self.chosen: dict[str, object] = {
            "state_dir": str(self.state),
            "run_dir": str(self.run_dir),
            "image_linger": 0,
            "read_timeout": 20,
            **settings,
        }
        self.configure()
        self.environ = {"CLIP_RUNC_CONFIG": str(self.config), "PYTHONPATH": str(REPOSITORY)}
        self.bin = self.directory / "bin"
        self.runtime = self.bin / "clip-runc"
        self.ctl("install", "--bin-dir", str(self.bin), check=True)
        self.pids: set[int] = set()

    def configure(self, **settings: object) -> None:
        """Write the configuration file; ``settings`` replace those chosen so far."""
        self.chosen.update(settings)
        self.config.write_text(settings_text(self.chosen))

    def call(
        self,
        command: list[str | Path],
        *,
        check: bool = False,
        seconds: float = 120,
        cwd: Path | None = None,
        environ: dict[str, str] | None = None,
    ) -> Done:
        """Run a command with this machine's settings; with ``check`` a failure shows its output."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True, check=False, text=True, timeout=seconds, cwd=cwd,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def ctl(self, *arguments: str | Path, check: bool = False, **options: Any) -> Done:
        """Run clipctl."""
        program = [sys.executable, "-m", "clip_runc.cli.main"]
        return self.call([*program, *arguments], check=check, **options)

    def runc(self, *arguments: str | Path, check: bool = False, **options: Any) -> Done:
        """Run the installed clip-runc with a ``--root`` of this machine."""
        return self.call([self.runtime, "--root", self.root, *arguments], check=check, **options)

    @property
    def settings(self) -> Settings:
        """The settings in force on this machine."""
        return load(str(self.config))

    def index(self, reference: str) -> Path:
        """Have the image in this machine's index store; its index, made once a session."""
        name = hashlib.sha256(reference.encode()).hexdigest()[:16]
        kept = self.index_cache / f"{name}.clip"
        if not kept.exists():
            self.ctl("index", "--quiet", "--no-store", "-o", kept, reference, check=True)
        add(self.settings, str(kept), [reference])
        return kept

    def bundle(self, reference: str, *command: str, name: str = "bundle") -> Path:
        """A bundle of an image, indexed here first; ``command`` is the process's whole argv."""
        self.index(reference)
        path = self.directory / name
        self.ctl("bundle", reference, path, check=True)
        self.edit(path, lambda spec: command and spec["process"].update(args=list(command)))
        return path

    @staticmethod
    def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the bundle's config.json."""
        config = bundle / "config.json"
        spec = json.loads(config.read_text())
        change(spec)
        config.write_text(json.dumps(spec))

    def status(self) -> dict[str, Any]:
        """What ``clipctl status --json`` says."""
        found: dict[str, Any] = json.loads(self.ctl("status", "--json").stdout)
        for part in ("supervisor", "server"):
            if part in found:
                self.pids.add(found[part]["pid"])
        return found

    def clipd_log(self) -> str:
        """The end of clipd's log."""
        log = self.run_dir / "clipd.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def containers_left(self) -> list[str]:
        """Mounts and directories of containers that are still there."""
        left = [f"mount {one}" for one in mounts_below(self.run_dir / "containers")]
        for directory in (self.state / "containers", self.run_dir / "containers"):
            if directory.exists():
                left += [f"directory {one}" for one in directory.glob("[!.]*")]
        leases = self.run_dir / "leases"
        if leases.exists():
            left += [f"lease {one}" for one in leases.glob("*/*")]
        return left

    def sweep(self) -> list[str]:
        """Stop clipd and remove everything; returns what should not have been there.

        Containers must have been torn down before; clipd's own mounts are its own to remove.
        """
        left = self.containers_left()
        self.configure(image_linger=0)
        self.ctl("gc")
        self.ctl("stop")
        left += [f"mount {one} after clipctl stop" for one in self._still(self._mounts)]
        left += [f"process {one} after clipctl stop" for one in self._still(self._processes)]
        for target in self._mounts():
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
        for pid in processes_of([str(self.directory)]):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            left.append(f"directory {self.directory} cannot be removed")
        return left

    def _mounts(self) -> list[str]:
        return mounts_below(self.directory)

    def _processes(self) -> list[str]:
        found = processes_of([str(self.directory)])
        return [f"{pid} {line}" for pid, line in found.items()] + [
            str(pid) for pid in self.pids if alive(pid) and pid not in found
        ]

    @staticmethod
    def _still(look: Any, seconds: float = 30) -> list[str]:
        """What ``look`` still finds after a while."""
        end = time.monotonic() + seconds
        while (found := look()) and time.monotonic() < end:
            time.sleep(0.1)
        return list(found)
