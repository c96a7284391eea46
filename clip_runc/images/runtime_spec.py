"""From an image config to a runtime spec: what ``clipctl bundle`` writes as config.json.

Pure.  The mapping is that of the OCI image spec, conversion.md; what it leaves open
(namespaces, capabilities, mounts) is what ``runc spec`` and Docker give a container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clip_runc.config import ANNOTATION_IMAGE
from clip_runc.errors import BundleError
from clip_runc.images.users import resolve_user

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Docker's default set: what unmodified images expect to have.
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the person who makes the bundle may set beside the image's config.

    ``user_namespace``: the container is for root of a user namespace (``clipctl`` of a user).
    """

    args: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    cwd: str = ""
    hostname: str = "clip"
    terminal: bool = False
    host_network: bool = False
    user_namespace: bool = False
    mounts: Sequence[Mapping[str, Any]] = field(default=())


def runtime_spec(
    image: Mapping[str, Any],
    reference: str,
    choices: Choices,
    *,
    passwd: bytes = b"",
    group: bytes = b"",
) -> dict[str, Any]:
    """A config.json (OCI runtime spec 1.0) for a container of ``image``.

    ``image`` is the parsed image config, ``reference`` goes into our image annotation,
    ``passwd`` and ``group`` are the image's files.  Raises ``BundleError`` where the image names
    no command or a user that it does not have.
    """
    config = image.get("config") or {}
    user = resolve_user(choices.user or config.get("User") or "", passwd, group)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": choices.terminal,
            "user": {
                "uid": user.uid,
                "gid": user.gid,
                **({"additionalGids": list(user.additional_gids)} if user.additional_gids else {}),
            },
            "args": _args(config, choices.args),
            "env": _environment(config, choices, user.home),
            "cwd": choices.cwd or config.get("WorkingDir") or "/",
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": False,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": choices.hostname,
        "mounts": [*_mounts(choices), *map(dict, choices.mounts)],
        "annotations": _annotations(image, config, reference),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind}
                for kind in ("pid", "ipc", "uts", "mount", "network")
                if not (kind == "network" and choices.host_network)
            ],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def _args(config: Mapping[str, Any], given: Sequence[str]) -> list[str]:
    args = [*(config.get("Entrypoint") or ()), *(given or config.get("Cmd") or ())]
    if not args:
        raise BundleError(
            "the image names no command (neither Entrypoint nor Cmd)",
            "give one after the reference",
        )
    return args


def _environment(config: Mapping[str, Any], choices: Choices, home: str) -> list[str]:
    variables: dict[str, str] = {}
    defaults = [DEFAULT_PATH, f"HOME={home}", *(["TERM=xterm"] if choices.terminal else [])]
    for item in [*defaults, *(config.get("Env") or ()), *choices.env]:
        name = item.partition("=")[0]
        variables[name] = item
    return list(variables.values())


def _annotations(
    image: Mapping[str, Any], config: Mapping[str, Any], reference: str
) -> dict[str, str]:
    # Labels are the image's own words: one that begins with our prefix would let an image
    # choose which index or mount options it is started with.
    labels = config.get("Labels") or {}
    annotations = {
        str(key): str(value)
        for key, value in labels.items()
        if not str(key).startswith("dev.clip-runc.")
    }
    for key, source in (("os", image), ("architecture", image), ("author", image)):
        if source.get(key):
            annotations[f"org.opencontainers.image.{key}"] = str(source[key])
    if config.get("StopSignal"):
        annotations["org.opencontainers.image.stopSignal"] = str(config["StopSignal"])
    if config.get("ExposedPorts"):
        ports = ",".join(sorted(config["ExposedPorts"]))
        annotations["org.opencontainers.image.exposedPorts"] = ports
    annotations[ANNOTATION_IMAGE] = reference
    return annotations


def _mounts(choices: Choices) -> list[dict[str, Any]]:
    def tmpfs(path: str, *options: str) -> dict[str, Any]:
        return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": list(options)}

    # a namespace of one id has no group tty, and sysfs belongs to whoever owns the network
    tty = [] if choices.user_namespace else ["gid=5"]
    sysfs = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    }
    if choices.user_namespace and choices.host_network:
        sysfs.update(type="bind", source="/sys", options=[*sysfs["options"], "rbind"])
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        tmpfs("/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty],
        },
        tmpfs("/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        sysfs,
    ]
    if choices.host_network:
        mounts += [
            {
                "destination": path,
                "type": "bind",
                "source": path,
                "options": ["rbind", "ro", "nosuid", "nodev", "noexec"],
            }
            for path in ("/etc/resolv.conf", "/etc/hosts")
        ]
    return mounts
