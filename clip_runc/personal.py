"""Where an ordinary user's settings and state are: the XDG base directories.

Of concern where we are not root, and where we are root of a user namespace whose ``/`` is the
machine's (rootless podman, rootlesskit, ``clipctl unshare``).  Root of a container of its own, to
whom ``/`` belongs, has the directories of any root.

podman gives its runtime HOME and XDG_RUNTIME_DIR at most, so each has to be found without.
Imported by the shim, and only there where it serves no root.
"""

from __future__ import annotations

import os

FILE = "clip-runc/config.toml"
# what an administrator sets for root's own clip-runc, in files that users read as well
OF_ROOT = ("state_dir", "run_dir", "credentials_dir")


def values() -> dict[str, object]:
    """The defaults that differ from root's.

    The run directory is that of a mount namespace: no mount of one is seen in another, so each has
    a clipd of its own, while indexes and layers are everybody's.
    """
    return {
        "state_dir": f"{_base('XDG_DATA_HOME', '.local/share')}/clip-runc",
        "run_dir": f"{run_base()}/{namespace()}",
        "credentials_dir": f"{config_home()}/clip-runc/credentials.d",
    }


def config_file() -> str:
    """The user's own file of settings, read after those below ``/etc``."""
    return f"{config_home()}/{FILE}"


def config_home() -> str:
    """``$XDG_CONFIG_HOME``, or ``~/.config``."""
    return _base("XDG_CONFIG_HOME", ".config")


def run_base() -> str:
    """The directory that holds the run directory of each of the user's mount namespaces."""
    return f"{runtime_dir()}/clip-runc"


def namespace(process: str = "self") -> str:
    """The name of a process's mount namespace: ``mnt-4026531841``.  Raises ``OSError``."""
    return os.readlink(f"/proc/{process}/ns/mnt").translate({58: "-", 91: None, 93: None})


def runtime_dir() -> str:
    """``$XDG_RUNTIME_DIR``, or what systemd-logind would have made."""
    return _given("XDG_RUNTIME_DIR") or f"/run/user/{outer_uid()}"


def outer_uid() -> int:
    """The user's id outside of the user namespace that we may be in."""
    own = os.geteuid()
    fd = os.open("/proc/self/uid_map", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 1 << 16).splitlines()
    finally:
        os.close(fd)
    for line in lines:
        inside, outside, count = map(int, line.split())
        if inside <= own < inside + count:
            return outside + own - inside
    return own


def home() -> str:
    """``$HOME``, or what the user database says."""
    given = _given("HOME")
    if given:
        return given
    import pwd

    try:
        return pwd.getpwuid(outer_uid()).pw_dir
    except KeyError:
        return "/"


def _base(name: str, default: str) -> str:
    return _given(name) or f"{home()}/{default}"


def _given(name: str) -> str:
    """A directory that the environment names; relative ones are to be ignored (XDG specification).

    And all of them where a set-uid program called us: its caller chose the environment.
    """
    given = os.environ.get(name, "") if os.getuid() == os.geteuid() else ""
    return given if given.startswith("/") else ""
