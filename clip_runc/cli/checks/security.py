"""``clipctl doctor --security``: what our processes may do, and who may touch our paths.

Nothing here asks a process what it thinks of itself: it is looked up in /proc, in file modes and,
for a secret, in the places where one must not be.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from urllib.parse import urlsplit

from clip_runc.cli.checks.finding import FAIL, OK, WARN, Finding
from clip_runc.cli.checks.storage import permissions
from clip_runc.config import DEFAULTS, Settings, config_files, is_rootless
from clip_runc.errors import ClipError
from clip_runc.fs.client import Client
from clip_runc.linux import observed
from clip_runc.linux.confine import landlock_version
from clip_runc.linux.observed import Observed
from clip_runc.linux.privileges import attainable

_START = "/clip_runc/fs/start.py"
_ROLES = ("supervisor", "keeper", "server")
# modules that fs/start.py runs as root: the rest of them gives privileges up
_ROOT = {"supervisor": "supervisor", "keeper": "keeper", "containers.gc": "gc"}
_OVERFLOW_UID = 65534
_STEERING = re.compile(r"LD_|PYTHON|GLIBC_TUNABLES|GCONV_PATH|BASH_ENV$|IFS$")
_SECRET = re.compile(r"PASSW|TOKEN|SECRET|CREDENTIAL|PRIVATE_KEY|_AUTH$", re.IGNORECASE)
_HINT = "clipctl upgrade replaces clipd's processes; if it stays so, report it"


def check(settings: Settings, root: str = "") -> list[Finding]:
    """Processes, then paths.  ``root`` stands before the paths of programs and configuration."""
    return [*processes(settings), *permissions(settings), *files(settings), *programs(root)]


def processes(settings: Settings) -> list[Finding]:
    """A line or more for each process of ours."""
    if os.geteuid():
        hint = "run it again with sudo, or where a user namespace can be made"
        return [Finding(FAIL, "processes", "not root: those of root cannot be looked at", hint)]
    found: list[Finding] = []
    for role, pid in sorted(ours(settings)):
        try:
            seen = Observed.look(pid)
        except OSError:
            continue  # it ended meanwhile
        found += judge(role, seen, attainable(settings.server_uid))
    if not found:
        text = "none runs; the first container starts them"
        found.append(Finding(OK, "processes", text))
    return [*found, _landlock()]


def ours(settings: Settings) -> set[tuple[str, int]]:
    """(role, pid) of clipd's processes, and of others that our way of starting has started."""
    found: dict[int, str] = {}
    for pid in observed.pids():
        role = role_of(observed.command_line(pid), settings)
        if role:
            found[pid] = role
    status: dict[str, object] = {}
    with contextlib.suppress(ClipError), Client.connect(settings) as client:
        status = client.status()
    for role in _ROLES:
        part = status.get(role)
        number = part.get("pid") if isinstance(part, dict) else None
        if isinstance(number, int) and number > 0:
            found[number] = role
    return {(role, pid) for pid, role in found.items()}


def role_of(argv: list[str], settings: Settings) -> str:
    """What a command line of ``fs/start.py`` is for, with these settings; else ``""``."""
    for place, word in enumerate(argv[:-2]):
        if not word.endswith(_START):
            continue
        try:
            chosen = json.loads(argv[place + 2])["settings"]
            run_dir = chosen.get("run_dir", DEFAULTS["run_dir"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return ""
        return argv[place + 1] if run_dir == settings.run_dir else ""
    return ""


def judge(role: str, seen: Observed, server_uid: int) -> list[Finding]:
    """What is wrong with a process, or one line that says how it is."""
    subject = f"{_ROOT.get(role, role)} {seen.pid}"
    problems = [*_environment(seen), *_argv(seen)]
    if role not in _ROOT:
        problems += _unprivileged(seen, server_uid)
    elif role == "supervisor" and seen.dumps_core:
        problems.append((FAIL, "may leave a core with credentials in it", _HINT))
    privs = "no_new_privs" if seen.no_new_privs else "may gain privileges by exec"
    text = f"uid {seen.uids[1]}, {seen.effective()}, {privs}, seccomp {seen.seccomp}"
    if not seen.dumpable and not seen.dumps_core:
        text += ", cannot be dumped"
    lines = [Finding(level, subject, said, hint) for level, said, hint in problems]
    return lines or [Finding(OK, subject, text)]


def _unprivileged(seen: Observed, uid: int) -> Iterator[tuple[int, str, str]]:
    """What ``linux/privileges.drop_privileges`` promises."""
    if set(seen.uids) != {uid} or set(seen.gids) != {uid}:
        text = f"has uids {seen.uids} and gids {seen.gids}, wanted {uid} alone"
        yield FAIL, text, _HINT
    if seen.groups and uid:  # a user namespace of one id has no right to leave groups
        yield FAIL, f"is in the groups {seen.groups}", _HINT
    for name, bits in seen.capabilities.items():
        if bits:
            names = ", ".join(observed.capability_names(bits))
            yield FAIL, f"has capabilities in {name}: {names}", _HINT
    if not seen.no_new_privs:
        yield FAIL, "may gain privileges by exec (no no_new_privs)", _HINT
    if seen.seccomp != "filter":
        level = FAIL if os.uname().machine in ("x86_64", "aarch64") else WARN
        yield (
            level,
            "may make every system call (no seccomp filter)",
            "a kernel with CONFIG_SECCOMP",
        )
    if seen.dumpable or seen.dumps_core:
        yield FAIL, "can be dumped or traced by its own uid", _HINT


def _environment(seen: Observed) -> Iterator[tuple[int, str, str]]:
    """Names only: a value that is secret is not for the screen either."""
    for name, value in seen.environment.items():
        if _STEERING.match(name):
            hint = "systemctl restart clipd, or clipctl stop, without it"
            yield FAIL, f"has {name} in its environment, which steers what it loads", hint
        elif _SECRET.search(name):
            yield FAIL, f"has {name} in its environment", "give credentials by docker's config.json"
        elif _has_password(value):
            hint = "a proxy without a password, or one that knows this host"
            yield WARN, f"has a password in {name} of its environment", hint


def _argv(seen: Observed) -> Iterator[tuple[int, str, str]]:
    for word in seen.argv:
        if _has_password(word):
            yield FAIL, "has an address with a password in its command line", _HINT
            return


def _has_password(text: str) -> bool:
    """Is it an address with a password in it?"""
    if "://" not in text:
        return False
    try:
        return bool(urlsplit(text).password)
    except ValueError:
        return False


def _landlock() -> Finding:
    """/proc does not show it of a process: whether this kernel lets the server use it."""
    version = landlock_version()
    if version:
        return Finding(OK, "Landlock", f"version {version}: the server writes only to the store")
    text = "the kernel has none: a server taken over can write where its uid can"
    return Finding(WARN, "Landlock", text, "CONFIG_SECURITY_LANDLOCK, and landlock in lsm=")


def files(settings: Settings) -> list[Finding]:
    """Modes of single files: what only root may read or write."""
    wanted = [
        (f"{settings.run_dir}/clipd.json", 0o600),
        (f"{settings.run_dir}/clipd.log", 0o600),
        (settings.events_file, 0o600),
        (settings.metrics_socket, 0o600),
    ]
    wanted += [(path, 0o644) for path in config_files()]
    if settings.credentials_dir:
        wanted.append((settings.credentials_dir, 0o700))
        wanted += [(path, 0o600) for path in _below(settings.credentials_dir)]
    found = []
    for path, most in wanted:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if status.st_uid:
            text = f"{path} belongs to uid {status.st_uid}, wanted root"
            found.append(Finding(FAIL, "permissions", text, f"chown root:root {path}"))
        elif (mode := stat.S_IMODE(status.st_mode)) & ~most:
            text = f"{path} has mode {mode:04o}, wanted {most:04o}"
            found.append(Finding(FAIL, "permissions", text, f"chmod {most:o} {path}"))
    return found


def _below(directory: str) -> list[str]:
    return [os.path.join(at, name) for at, _, names in os.walk(directory) for name in names]


def programs(root: str) -> list[Finding]:
    """Whoever can write a program of ours, or a directory above it, is root on this host."""
    from clip_runc.runtime.launcher import package_directory, real_interpreter

    places = [f"{package_directory()}/clip_runc", real_interpreter()]
    places += [f"{root}/usr/local/bin/{name}" for name in ("clip-runc", "clip-runc-poststop")]
    found = []
    # in a user's namespace those of the machine's root are nobody's
    owners = (0, _OVERFLOW_UID) if is_rootless() else (0,)
    for place in places:
        for path in _upwards(os.path.realpath(place), root):
            status = os.stat(path)
            sticky = status.st_mode & stat.S_ISVTX
            if status.st_uid not in owners or (status.st_mode & 0o022 and not sticky):
                text = f"{path} can be written by others than root, and {place} runs as root"
                hint = f"chown root:root {path} && chmod go-w {path}"
                found.append(Finding(FAIL, "programs", text, hint))
    if found:
        return list(dict.fromkeys(found))
    return [Finding(OK, "programs", "only root can write what runs as root")]


def _upwards(path: str, root: str) -> Iterator[str]:
    """``path`` and what is above it up to ``root``, as far as it is there."""
    top = root or "/"
    while True:
        if os.path.lexists(path):
            yield path
        if path in (top, "/"):
            return
        path = os.path.dirname(path)
