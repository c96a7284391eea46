"""Plays systemd for clipd: listens, starts it on the first connection, keeps descriptors, restarts.

What systemd.socket(5), systemd.service(5) and sd_notify(3) say of the units that ``clipctl install
--systemd`` writes; the real one is in ``tests/kernels``.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from clip_runc.fs import managed
from tests.integration.clip_machine import ClipMachine, processes_of

MAIN = [sys.executable, "-c", "from clip_runc.fs.supervisor import main; main()"]
# systemd sets it for the process that it starts, whose pid it is
LISTEN_PID = 'LISTEN_PID=$$ exec "$@"'
_HIGH = 100
_RESTART_SECONDS = 0.2


class PlayedSystemd(threading.Thread):
    """``clipd.socket`` and ``clipd.service``.  A context manager: everything ends with it."""

    def __init__(self, clip: ClipMachine, *, watchdog: float = 0, abstract: bool = False) -> None:
        super().__init__(daemon=True)
        self._clip = clip
        self._watchdog = watchdog
        settings = clip.settings
        Path(settings.control_dir).mkdir(parents=True, exist_ok=True)
        Path(settings.control_dir).chmod(0o700)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        Path(settings.socket).unlink(missing_ok=True)  # whoever has bound it
        before = os.umask(0o177)
        self.listener.bind(settings.socket)
        os.umask(before)
        self.listener.listen(128)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"{clip.directory}/notify"
        self.notify.bind(f"\0{name}" if abstract else name)
        self.address = f"@{name}" if abstract else name
        self.environ: dict[str, str] = {}
        self.store: dict[str, list[int]] = {}
        self.messages: list[dict[str, str]] = []
        self.main = 0
        self.starts = 0
        self.statuses: list[int] = []
        self._handle = -1
        self._former: list[int] = []
        self._wanted: list[Callable[[], None]] = []
        self._heard = time.monotonic()
        self._again = 0.0
        self._over = False

    def __enter__(self) -> PlayedSystemd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._over = True
        self.join(30)
        self.listener.close()
        self.notify.close()

    # What an operator does.

    def restart(self) -> None:
        """``systemctl restart``: returns when the next one was started."""
        self._do(lambda: self._kill(managed.LEAVE, restart=True))

    def stop(self) -> None:
        """``systemctl stop``: returns when it is gone."""
        self._do(lambda: self._kill(signal.SIGTERM, restart=False))

    def told(self, name: str) -> list[str]:
        """The values of a variable that the process that runs now has sent, in order."""
        return [one[name] for one in list(self.messages) if name in one]

    def _do(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._wanted.append(run)
        assert done.wait(60), "no end"

    # What systemd does.

    def run(self) -> None:
        while not self._over:
            watched: list[object] = [self.notify]
            if not self.main and not self._again:
                watched.append(self.listener)
            readable = select.select(watched, [], [], 0.02)[0]
            if self.notify in readable:
                self._receive()
            if self.main and self._ended():
                self._bury()
            waits = self.listener in readable
            if not self.main and (waits or (self._again and time.monotonic() > self._again)):
                self._start()
            late = time.monotonic() - self._heard > self._watchdog
            if self._watchdog and self.main and self.told("READY") and late:
                os.kill(self.main, signal.SIGKILL)
            while self._wanted:
                self._wanted.pop(0)()

    def _start(self) -> None:
        self._again = 0.0
        named = [(managed.SOCKET, self.listener.fileno())]
        named += [(name, fd) for name, fds in self.store.items() for fd in fds]
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for _, fd in named]
        environ = {
            **os.environ, **self._clip.environ, **self.environ,
            "NOTIFY_SOCKET": self.address, "FDSTORE": "4", "LISTEN_FDS": str(len(named)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in named),
        }  # fmt: skip
        if self._watchdog:
            environ["WATCHDOG_USEC"] = str(int(self._watchdog * 1e6))
        log = f"{self._clip.run_dir}/clipd.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        actions = [(os.POSIX_SPAWN_OPEN, 2, log, flags, 0o600)]
        places = [(os.POSIX_SPAWN_DUP2, fd, 3 + n) for n, fd in enumerate(high)]
        self.messages.clear()
        self._heard = time.monotonic()
        argv = ["/bin/sh", "-c", LISTEN_PID, "sh", *MAIN]
        self.main = os.posix_spawn(argv[0], argv, environ, file_actions=[*actions, *places])
        self._handle = os.pidfd_open(self.main)
        self.starts += 1
        for fd in high:
            os.close(fd)

    def _receive(self) -> None:
        data, ancillary, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for _, _, packed in ancillary:
            fds.frombytes(packed)
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        if "FDSTORE" in message:
            self.store.setdefault(message["FDNAME"], []).extend(fds)
        else:
            for fd in fds:  # a barrier's
                os.close(fd)
        if "FDSTOREREMOVE" in message:
            self._drop(message["FDNAME"])
        if "MAINPID" in message:
            self._follow(int(message["MAINPID"]))
        if "WATCHDOG" in message:
            self._heard = time.monotonic()
        self.messages.append(message)

    def _follow(self, pid: int) -> None:
        """Another main process: the old one, our child, is about to end."""
        os.close(self._handle)
        self._former.append(self.main)
        self.main, self._handle = pid, os.pidfd_open(pid)

    def _drop(self, name: str) -> None:
        for fd in self.store.pop(name, []):
            os.close(fd)

    def _ended(self) -> bool:
        return bool(select.select([self._handle], [], [], 0)[0])

    def _bury(self, *, restart: bool = False) -> None:
        """KillMode=mixed, Restart=on-failure; what was kept is let go when nothing follows."""
        while select.select([self.notify], [], [], 0)[0]:
            self._receive()
        os.close(self._handle)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self.main, 0)[1])
        except ChildProcessError:  # a successor is init's here: by what it left
            status = -signal.SIGKILL if self.store else 0
        self.statuses.append(status)
        self.main = 0
        self._sweep()
        if restart:
            return
        if status in (0, managed.HOPELESS):
            for name in list(self.store):
                self._drop(name)
        else:
            self._again = time.monotonic() + _RESTART_SECONDS

    def _sweep(self) -> None:
        """Everything in the cgroup gets SIGKILL."""
        for pid, line in processes_of([str(self._clip.run_dir)]).items():
            if "clip_runc/fs/start.py" in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for pid in self._former:
            with contextlib.suppress(ChildProcessError):  # a successor's
                os.waitpid(pid, 0)
        self._former.clear()

    def _kill(self, number: int, *, restart: bool) -> None:
        if self.main:
            os.kill(self.main, number)
            end = time.monotonic() + 30
            while not self._ended():
                assert time.monotonic() < end, "it does not end"
                if select.select([self.notify], [], [], 0.02)[0]:
                    self._receive()
            self._bury(restart=restart)
        if restart:
            self._start()
