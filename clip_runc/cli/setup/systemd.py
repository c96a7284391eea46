"""Units: clipd and its socket, a timer that tidies up, and what Prometheus reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clip_runc.cli.setup.changes import MARK, Change, own_file, removals
from clip_runc.config import Settings
from clip_runc.errors import ConfigError
from clip_runc.fs.managed import HOPELESS, LEAVE, SOCKET

DIRECTORY = "/etc/systemd/system"
SERVING = ("clipd.socket", "clipd.service")
NEXT = "systemctl daemon-reload && systemctl enable --now clipd.socket clip-runc-gc.timer"

# The first container starts clipd.  Its directory is made here, for root alone; clipd opens what is
# above it to those who only pass through.
_SOCKET = """\
# {mark}, removed by clipctl uninstall
[Unit]
Description=clip-runc: where clipd is asked

[Socket]
ListenSequentialPacket={socket}
FileDescriptorName={socket_name}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""
# No ExecStop: SIGTERM ends clipd in good order.  A restart sends another signal, at which clipd
# ends and leaves its mount in the file descriptor store; a crash leaves it there too.  So nothing
# else in the cgroup has to survive: KillMode=mixed.  The store is not kept over a stop
# (FileDescriptorStorePreserve=): whoever stops clipd wants the mount to end, and readers with an
# error, not hung.  FDSTORE is what systemd 254 sets by itself.  Restarts go on for ever, for
# readers wait; but for what clipd says is hopeless, with no mount to lose.
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
Requires=clipd.socket
After=clipd.socket
Before=containerd.service crio.service
RequiresMountsFor={state_dir}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={clipd}
ExecReload={clipctl} upgrade
KillMode=mixed
RestartKillSignal={leave}
TimeoutStopSec=30
FileDescriptorStoreMax=4
Environment=FDSTORE=4
Restart=on-failure
RestartSec=200ms
RestartPreventExitStatus={hopeless}
WatchdogSec=30
WatchdogSignal=SIGKILL
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
Also=clipd.socket
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
    "clipd.socket": _SOCKET,
    "clipd.service": _CLIPD,
    "clip-runc-gc.service": _GC,
    "clip-runc-gc.timer": _TIMER,
    "clip-runc-metrics.service": _METRICS,
}
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETPCAP",
    "CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
)  # fmt: skip


def install(settings: Settings, root: str) -> list[Change]:
    """The units.  Raises ``ConfigError``."""
    clipd = program("clipd", "clip_runc.fs.supervisor")
    found = texts(settings, MARK, clipd, program("clipctl", "clip_runc.cli.main"))
    return [own_file(f"{DIRECTORY}/{name}", text, root) for name, text in found.items()]


def texts(settings: Settings, mark: str, clipd: str, clipctl: str) -> dict[str, str]:
    """The units by name; ``clipd`` and ``clipctl`` are command lines."""
    values = {
        "mark": mark,
        "state_dir": _escape(settings.state_dir),
        "socket": settings.socket.replace("%", "%%"),  # the rest of the line, whatever is in it
        "socket_name": SOCKET,
        "leave": LEAVE.name,
        "hopeless": HOPELESS,
        "capabilities": " ".join(CAPABILITIES),
        "clipd": clipd,
        "clipctl": clipctl,
    }
    return {name: text.format(**values) for name, text in UNITS.items()}


def uninstall(root: str, *, serving: bool = False) -> list[Change]:
    """Without them; ``serving``: but for those that containers need."""
    names = [name for name in UNITS if not (serving and name in SERVING)]
    return removals([f"{DIRECTORY}/{name}" for name in names], root)


def stop(changes: list[Change]) -> list[str]:
    """Stop and disable the units that ``changes`` take away; which they are.

    Raises ``ConfigError`` with what systemctl says.
    """
    names = [Path(one.path).name for one in changes if one.path.startswith(f"{DIRECTORY}/")]
    if names and is_running():
        _systemctl("disable", "--now", *names)
    return names


def forget() -> None:
    """Have systemd forget units whose files are gone."""
    if is_running():
        _systemctl("daemon-reload")


def is_running() -> bool:
    """Is systemd the first process of this machine (sd_booted(3))?"""
    return os.path.isdir("/run/systemd/system")


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(
        ["systemctl", *arguments], check=False, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise ConfigError(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")


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
