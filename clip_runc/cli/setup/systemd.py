"""Units: clipd, a timer that tidies up, and what Prometheus reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals

DIRECTORY = "/etc/systemd/system"
NEXT = "systemctl daemon-reload && systemctl enable --now clipd.service clip-runc-gc.timer"

# No ExecStop: SIGTERM ends clipd in good order.  KillMode=process: when the supervisor crashes, the
# server and the keeper live on, and reads go on while the next one takes the mount over.
#
# The hardening is what a process can bear that mounts file systems for the host: nothing that
# systemd does by a mount namespace (Protect…=, Private…=), for mounts made there are seen by nobody
# else.  Capabilities: SYS_ADMIN mounts; SETUID, SETGID, SETPCAP give up privileges of children;
# CHOWN, FOWNER, DAC_OVERRIDE make the store the server's; KILL ends it; SYS_PTRACE takes
# descriptors over from it (pidfd_getfd); SYS_RESOURCE lowers the OOM score.
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
UMask=0077
CapabilityBoundingSet={capabilities}
DevicePolicy=closed
DeviceAllow=/dev/fuse rw
LockPersonality=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

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
CapabilityBoundingSet={capabilities}
LockPersonality=yes
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
"""
# It reads what clipd and the containers' states say, sizes what containers wrote (whoever owns it),
# and nothing else: no network, no device.
_METRICS = """\
# {mark}, removed by clipctl uninstall
[Unit]
Description=clip-runc: metrics for Prometheus at a unix socket
After=clipd.service

[Service]
Type=exec
ExecStart={clipctl} metrics --serve
Restart=on-failure
RestartSec=5
UMask=0077
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
DevicePolicy=closed
IPAddressDeny=any
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateNetwork=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
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
UNITS = {
    "clipd.service": _CLIPD,
    "clip-runc-gc.service": _GC,
    "clip-runc-gc.timer": _TIMER,
    "clip-runc-metrics.service": _METRICS,
}
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
)  # fmt: skip


def install(state_dir: str, root: str) -> list[Change]:
    """The units.  Raises ``ConfigError``."""
    values = {
        "mark": MARK,
        "state_dir": _escape(state_dir),
        "capabilities": " ".join(CAPABILITIES),
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
