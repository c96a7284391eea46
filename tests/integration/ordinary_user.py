"""An ordinary user of this machine, who is in no file of it: a mount namespace shows them one.

There ``/etc/passwd``, ``group``, ``subuid`` and ``subgid`` are ours, ``/dev/fuse`` is
open to everybody as udev makes it, and this repository and the interpreter's environment are at
paths that the user can reach.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.integration.clip_machine import REPOSITORY, Done, settings_text

# of this process: another that runs the tests on this machine has users of its own
UID = 70_000 + os.getpid() % 20_000
SUBORDINATE = 10_000_000 + os.getpid() % 10_000 * 65_536
NAME = "clip-ruth"
FUSE = os.makedev(10, 229)
ENTER = """
set -e
mount --bind "$1/etc/passwd" /etc/passwd
mount --bind "$1/etc/group" /etc/group
for name in subuid subgid; do
    [ -e /etc/$name ] || : > /etc/$name
    mount --bind "$1/etc/$name" /etc/$name
done
mount --bind "$1/fuse" /dev/fuse
mount --bind "$2" "$1/repository"
mount --bind "$3" "$1/venv"
echo ready
exec sleep 100000
"""


class OrdinaryUser:
    """Commands of the user; ``ids`` is how many subordinate ids they have."""

    def __init__(self, scratch: Path, ids: int = 65536) -> None:
        # podman refuses a runtime directory of more than 50 bytes
        self.directory = Path(tempfile.mkdtemp(prefix="u", dir=scratch))
        self.directory.chmod(0o755)
        self.home, self.xdg = self.directory / "home", self.directory / "x"
        for path in (self.home, self.xdg):
            path.mkdir(mode=0o700)
            os.chown(path, UID, UID)
        self._write_etc(ids)
        os.mknod(self.directory / "fuse", 0o020666, FUSE)
        (self.directory / "fuse").chmod(0o666)
        for name in ("repository", "venv"):
            (self.directory / name).mkdir()
        self.state = self.home / ".local/share/clip-runc"
        self.bin = self.home / "bin"
        self.runtime = self.bin / "clip-runc"
        self._holder = self._hold()
        self.ctl("install", "--bin-dir", self.bin, check=True)

    def _write_etc(self, ids: int) -> None:
        etc = self.directory / "etc"
        etc.mkdir()
        passwd = f"{NAME}:x:{UID}:{UID}::{self.home}:/bin/sh\n"
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + passwd)
        (etc / "group").write_text(Path("/etc/group").read_text() + f"{NAME}:x:{UID}:\n")
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"{NAME}:{SUBORDINATE}:{ids}\n" if ids else "")
        for path in etc.iterdir():
            path.chmod(0o644)

    def _hold(self) -> subprocess.Popen[str]:
        script = ["sh", "-c", ENTER, "sh", self.directory, REPOSITORY, sys.prefix]
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", *script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        return holder

    @property
    def python(self) -> Path:
        """The interpreter, where the user reaches it."""
        return self.directory / "venv" / Path(sys.executable).relative_to(sys.prefix)

    def argv(self, *command: str | Path, env: dict[str, str] | None = None) -> list[str]:
        """What root calls to have the user call ``command``."""
        variables = {
            "HOME": self.home,
            "USER": NAME,
            "LOGNAME": NAME,
            "PATH": f"{self.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "XDG_RUNTIME_DIR": self.xdg,
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        return [
            "nsenter", "--mount", f"--target={self._holder.pid}",
            "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all",
            "env", "--ignore-environment", f"--chdir={self.home}",
            *(f"{name}={value}" for name, value in variables.items()),
            *map(str, command),
        ]  # fmt: skip

    def call(
        self,
        *command: str | Path,
        check: bool = False,
        env: dict[str, str] | None = None,
        seconds: float = 120,
    ) -> Done:
        """Run a command as the user, in their home."""
        done = subprocess.run(
            self.argv(*command, env=env), stdin=subprocess.DEVNULL, capture_output=True,
            check=False, text=True, timeout=seconds,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{command} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
            )
        return done

    def ctl(self, *arguments: str | Path, check: bool = False, **options: dict[str, str]) -> Done:
        """Run clipctl."""
        repository = {"PYTHONPATH": f"{self.directory}/repository", **options.get("env", {})}
        program = [self.python, "-m", "clip_runc.cli.main"]
        return self.call(*program, *arguments, check=check, env=repository)

    def podman(self, *arguments: str | Path, check: bool = False) -> Done:
        """Run podman, with clip-runc for its runtime."""
        options = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        return self.call("podman", *options, "--runtime", self.runtime, *arguments, check=check)

    def configure(self, directory: Path | None = None, **settings: object) -> None:
        """Write the user's own file of settings."""
        place = (directory or self.home / ".config") / "clip-runc"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.toml").write_text(settings_text(settings))

    def processes(self) -> dict[int, str]:
        """Living processes of the user and of their subordinate ids."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                uid = int((entry / "status").read_text().partition("\nUid:")[2].split()[0])
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, IndexError, ValueError):
                continue
            if line and (uid == UID or SUBORDINATE <= uid < SUBORDINATE + 65536):
                found[int(entry.name)] = line.strip()
        return found

    def containers_left(self) -> list[str]:
        """Directories, mount points and leases of containers that are still there."""
        left = [str(path) for path in self.state.glob("containers/[!.]*")]
        for run_dir in self.xdg.glob("clip-runc/*"):
            left += [str(path) for path in run_dir.glob("containers/*")]
            left += [str(path) for path in run_dir.glob("leases/*/*")]
        return left

    def logs(self) -> str:
        """The logs of each clipd, for who looks why a test failed."""
        paths: Iterable[Path] = self.xdg.glob("clip-runc/*/clipd.log")
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in paths)

    def sweep(self) -> list[str]:
        """End everything of the user; what should not have been there any more."""
        left = self.containers_left()
        while self.ctl("stop").stdout != "clipd is not running\n":
            continue
        end = time.monotonic() + 20
        while (found := self._of_clip_runc()) and time.monotonic() < end:
            time.sleep(0.1)
        left += found
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.communicate()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            left.append(f"{self.directory} cannot be removed")
        return left

    def _of_clip_runc(self) -> list[str]:
        return [line for line in self.processes().values() if "clip_runc" in line]
