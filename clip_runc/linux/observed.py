"""What another process may do, as /proc shows it (proc(5): status, limits, environ)."""

from __future__ import annotations

import os

# include/uapi/linux/capability.h, by number
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
    "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
    "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
    "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
    "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
    "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
)  # fmt: skip
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
SECCOMP = {0: "none", 1: "strict", 2: "filter"}


class Observed:
    """One process.  ``OSError`` from ``look`` where it is gone, or may not be looked at."""

    def __init__(self, pid: int, status: dict[str, str]) -> None:
        """``status`` as in /proc/PID/status; fields of kernels that have them not are absent."""
        self.pid = pid
        self.name = status.get("Name", "")
        self.uids = _numbers(status.get("Uid", ""))
        self.gids = _numbers(status.get("Gid", ""))
        self.groups = _numbers(status.get("Groups", ""))
        self.capabilities = {name: int(status.get(name, "0"), 16) for name in _SETS}
        self.no_new_privs = status.get("NoNewPrivs") == "1"
        self.seccomp = SECCOMP.get(int(status.get("Seccomp", "0")), "unknown")
        self.argv: list[str] = []
        self.environment: dict[str, str] = {}
        self.dumps_core = True
        self.dumpable = True

    @classmethod
    def look(cls, pid: int) -> Observed:
        """Look at a process now."""
        found = cls(pid, parse_status(_read(pid, "status")))
        found.argv = _read(pid, "cmdline").rstrip("\0").split("\0")
        pairs = (one.partition("=") for one in _read(pid, "environ").split("\0") if one)
        found.environment = {name: value for name, _, value in pairs}
        found.dumps_core = core_limit(_read(pid, "limits")) != "0"
        # files there are root's where the process cannot be dumped (the directory is not): proc(5)
        owner = os.stat(f"/proc/{pid}/environ").st_uid
        found.dumpable = owner == found.uids[1] if found.uids[1] else True
        return found

    def effective(self) -> str:
        """The effective capabilities in words."""
        names = capability_names(self.capabilities["CapEff"])
        if len(names) >= len(CAPABILITIES) - 1:
            return "every capability"
        return f"capabilities {', '.join(names)}" if names else "no capability"

    def as_dict(self) -> dict[str, object]:
        """For JSON; neither argv nor environment, which may hold what is secret."""
        sets = {key: capability_names(value) for key, value in self.capabilities.items()}
        return {
            "pid": self.pid,
            "uids": self.uids,
            "gids": self.gids,
            "groups": self.groups,
            "capabilities": sets,
            "no_new_privs": self.no_new_privs,
            "seccomp": self.seccomp,
            "dumpable": self.dumpable,
            "dumps_core": self.dumps_core,
        }


def parse_status(text: str) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, colon, value in pairs if colon}


def core_limit(text: str) -> str:
    """The hard limit of core files in /proc/PID/limits: a number or ``unlimited``."""
    for line in text.splitlines():
        if line.startswith("Max core file size"):
            return line.split()[5]
    return "unlimited"


def capability_names(bits: int) -> list[str]:
    """Names of the bits that are set; numbers for those younger than this list."""
    return [
        CAPABILITIES[n] if n < len(CAPABILITIES) else str(n)
        for n in range(bits.bit_length())
        if bits >> n & 1
    ]


def pids() -> list[int]:
    """Every process."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> list[str]:
    """Its argv; empty for one that is gone, and for the kernel's own."""
    try:
        text = _read(pid, "cmdline")
    except OSError:
        return []
    return text.rstrip("\0").split("\0") if text else []


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
