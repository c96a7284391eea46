"""docker-registry and containerd as private daemons: own port, own directories, stopped by pid."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REGISTRY_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: none}}
"""

CONTAINERD_CONFIG = """\
version = {version}
disabled_plugins = [{disabled}]
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[debug]
  level = "info"
"""

# restrict_oom_score_adj: a root without CAP_SYS_RESOURCE cannot lower it to a pod's -998.
CRI_CONFIG = """\
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{directory}/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.clip]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["dev.clip-runc.*"]
      container_annotations = ["dev.clip-runc.*"]
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.clip.options]
        BinaryName = "{binary}"
"""

# the same for configuration version 3, which containerd has from 2.0 on
CRI_CONFIG_3 = """\
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  pinned_images = {{sandbox = "{pause}"}}
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{directory}/cni"]
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.clip]
      runtime_type = "io.containerd.runc.v2"
      pod_annotations = ["dev.clip-runc.*"]
      container_annotations = ["dev.clip-runc.*"]
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.clip.options]
        BinaryName = "{binary}"
"""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll ``ready``; ``TimeoutError`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up in {seconds} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether something accepts connections on the port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class Daemon:
    """A child process with a log file; ``environ`` is added to this process's environment."""

    def __init__(
        self, command: list[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        self.pid = self.process.pid

    def check(self) -> None:
        """``RuntimeError`` with the end of the log when the process has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args!r} ended: {self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class DockerRegistry(Daemon):
    """docker-registry on the loopback interface with its storage below ``directory``.

    ``http`` goes into that part of its configuration, ``more`` beside it.
    """

    def __init__(self, directory: Path, port: int = 0, *, http: str = "", more: str = "") -> None:
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "config.yml"
        storage = directory / "storage"
        text = REGISTRY_CONFIG.format(directory=storage, port=self.port)
        config.write_text(text.replace("secret: none", f"secret: none, {http}") + more)
        super().__init__(["docker-registry", "serve", str(config)], directory / "log")
        wait_for(self._ready, "docker-registry")

    def _ready(self) -> bool:
        self.check()
        return listens(self.port)


class Containerd(Daemon):
    """A containerd of its own; with ``pause`` and ``binary`` also its CRI service.

    ``pause`` is the reference of the sandbox image, ``binary`` goes into the ``BinaryName``
    of the runtime ``clip``; the default is runc.  ``CLIP_TEST_CONTAINERD_CONFIG`` is the version of
    the configuration, 2 by default; ``text`` stands in for all of it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        pause: str = "",
        binary: str = "",
        environ: Mapping[str, str] | None = None,
        text: str = "",
    ) -> None:
        (directory / "cni").mkdir(parents=True, exist_ok=True)
        version = os.environ.get("CLIP_TEST_CONTAINERD_CONFIG", "2")
        disabled = "" if pause else '"io.containerd.grpc.v1.cri"'
        names = {"directory": directory, "pause": pause, "binary": binary}
        if not text:
            text = CONTAINERD_CONFIG.format(**names, version=version, disabled=disabled)
            if pause:
                text += (CRI_CONFIG_3 if version == "3" else CRI_CONFIG).format(**names)
        config = directory / "config.toml"
        config.write_text(text)
        self.directory = directory
        self.socket = directory / "containerd.sock"
        super().__init__(["containerd", "--config", str(config)], directory / "log", environ)
        wait_for(self._ready, "containerd")

    def _ready(self) -> bool:
        self.check()
        return self.socket.exists() and self.ctr("version").returncode == 0

    def ctr(
        self, *arguments: str, seconds: float = 120, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run ctr against this daemon."""
        return subprocess.run(
            ["ctr", "--address", str(self.socket), *arguments],
            check=check, capture_output=True, text=True, timeout=seconds,
        )  # fmt: skip
