"""Units: clipd, and a timer that tidies up."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals

DIRECTORY = "/etc/systemd/system"
NEXT = "systemctl daemon-reload && systemctl enable --now clipd.service clip-runc-gc.timer"

# No ExecStop: SIGTERM ends clipd in good order.  KillMode=process: when the supervisor crashes, the
# server and the keeper live on, and reads go on while the next one takes the mount over.  The
# hardening is what a process can bear that mounts file systems for the host, starts credential
# helpers and gives up privileges of its children.
_CLIPD = """\
# {mark}, removed by clipctl uninstall
[Unit]
Description=clip-runc: serves image layers as they are read
Before=containerd.service crio.service
RequiresMountsFor={state_dir}

[Service]
Type=exec
ExecStart={clipd}
KillMode=process
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-900
LimitNOFILE=65536
LockPersonality=yes
NoNewPrivileges=yes
RestrictRealtime=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""
_GC = """\
# {mark}, removed by clipctl uninstall
[Unit]
Description=clip-runc: tear down what containers that are gone left behind

[Service]
Type=oneshot
ExecStart={clipctl} gc
"""
_TIMER = """\
# {mark}, removed by clipctl uninstall
[Unit]
Description=clip-runc: tidy up every hour

[Timer]
OnBootSec=10min
OnUnitActiveSec=1h
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
"""
UNITS = {"clipd.service": _CLIPD, "clip-runc-gc.service": _GC, "clip-runc-gc.timer": _TIMER}


def install(state_dir: str, root: str) -> list[Change]:
    """The units.  Raises ``ConfigError``."""
    values = {
        "mark": MARK,
        "state_dir": _escape(state_dir),
        "clipd": program("clipd", "clip_runc.fs.supervisor"),
        "clipctl": program("clipctl", "clip_runc.cli.main"),
    }
    return [
        own_file(f"{DIRECTORY}/{name}", text.format(**values), root) for name, text in UNITS.items()
    ]


def uninstall(root: str) -> list[Change]:
    """Without them."""
    return removals([f"{DIRECTORY}/{name}" for name in UNITS], root)


def program(name: str, module: str) -> str:
    """The command line of an executable of ours: the script beside the interpreter, or ``-c``."""
    beside = str(Path(sys.executable).absolute().parent / name)
    if os.access(beside, os.X_OK):
        return _escape(beside)
    return f"{_escape(sys.executable)} -I -c 'from {module} import main; main()'"


def _escape(path: str) -> str:
    """For a unit file: % and \\ are specifiers and escapes there."""
    text = path.replace("\\", "\\\\").replace("%", "%%")
    return f'"{text}"' if " " in text else text
