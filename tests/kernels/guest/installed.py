"""clip-runc installed as its user would, a registry with two images, and an index of one."""

from __future__ import annotations

import glob
import json
from pathlib import Path
from typing import Any

from tests.kernels.guest.commands import DATA, run, wait_for

VENV = "/opt/clip-runc/venv"
RUNTIME = "/usr/local/bin/clip-runc"
HOST = "127.0.0.1:5000"
LAZY = f"{HOST}/team/lazy:1"
PLAIN = f"{HOST}/team/plain:1"
# In LAZY: a file that takes a while, whose SHA-256 is in expected.json; a command and its output.
BIG = "srv/big"
COMMAND = "cat /srv/data/a"
WANTED = "one\n"
_STORAGE = "/var/lib/clip-test-registry"
_REGISTRY = f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {_STORAGE}}}}}
http: {{addr: "{HOST}", secret: none}}
"""
_REGISTRY_UNIT = """\
[Service]
ExecStart=docker-registry serve /etc/test-registry.yml
[Install]
WantedBy=multi-user.target
"""


def install() -> str:
    """The wheel by pip, then the launcher: what the README says."""
    (wheel,) = glob.glob(f"{DATA}/*.whl")
    run(f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    run(f"{VENV}/bin/clipctl", "install", "--podman", "--systemd")
    return run("clipctl", "--version").strip()


def units() -> str:
    """systemd starts clipd: what install says comes next."""
    said = run(f"{VENV}/bin/clipctl", "install", "--systemd")
    (line,) = [line for line in said.splitlines() if line.startswith("next: systemctl")]
    run("sh", "-ec", line.removeprefix("next: "))
    return line.rpartition("--now ")[2]


def registry() -> str:
    """docker-registry, whose blobs came on the disk."""
    if not Path(_STORAGE).exists():
        run("cp", "-r", f"{DATA}/registry", _STORAGE)
    Path("/etc/test-registry.yml").write_text(_REGISTRY)
    Path("/etc/systemd/system/test-registry.service").write_text(_REGISTRY_UNIT)
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "test-registry.service")
    listens = ("ss", "--no-header", "--listening", "--numeric", "--tcp", "sport = :5000")
    wait_for(lambda: run(*listens), "docker-registry listens")
    return "serves"


def index() -> str:
    """It keeps no byte of the layers: what follows is fetched as it is read."""
    run("clipctl", "index", "--quiet", LAZY)
    return ""


def status() -> dict[str, Any]:
    """What clipctl says of clipd."""
    found: dict[str, Any] = json.loads(run("clipctl", "status", "--json"))
    return found


def write_bundle(path: str, *command: str, reference: str = LAZY, **linux: object) -> None:
    """A bundle whose process is ``command``; ``linux`` goes into that part of its config.json."""
    run("clipctl", "bundle", reference, path)
    config = Path(path, "config.json")
    spec = json.loads(config.read_text())
    spec["process"]["args"] = list(command)
    spec["linux"].update(linux)
    config.write_text(json.dumps(spec))


def cgroup(pid: int) -> str:
    """The cgroup (v2) of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def processes() -> dict[int, str]:
    """Of ours: the command line of each."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        for text in _text_of(path):
            if "clip_runc/" in text or "clip-runc" in text:
                found[int(path.split("/")[2])] = text
    return found


def left() -> list[str]:
    """Mounts, loop devices, processes, directories of containers: after ``stop`` there is none."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [f"mount {one}" for one in mounts if one.startswith(("/run/clip/", "/var/lib/clip/"))]
    for backing in glob.glob("/sys/block/loop*/loop/backing_file"):
        found += [f"loop over {text}" for text in _text_of(backing)]
    found += [f"process {line[:100]}" for line in processes().values()]
    found += glob.glob("/var/lib/clip/containers/*") + glob.glob("/run/clip/leases/*/*")
    return found


def _text_of(path: str) -> list[str]:
    """None where it has gone in this moment."""
    try:
        return [Path(path).read_text().replace("\0", " ").strip()]
    except OSError:
        return []
