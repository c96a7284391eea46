"""Launchers: the executables that ``clipctl install`` writes.

A few lines of Python behind an interpreter line that names the real interpreter with ``-I -S``:
no ``site``, no environment, no virtual environment to find.  What they import comes out of one file
where there is a good one (``runtime/snapshot.py``).  A command that passes through costs
9 to 13 ms over runc (bench/passthrough), where ``site`` alone took an interpreter to 38.  A shim of
pyenv there would fail in a deleted working directory; ``#!/usr/bin/env`` would let PATH choose.
"""

from __future__ import annotations

import os
import sys

from clip_runc.errors import ConfigError
from clip_runc.runtime.locate import MARKER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RUNTIME = "clip_runc.runtime.main"
POSTSTOP = "clip_runc.runtime.poststop"
# linux/binfmts.h BINPRM_BUF_SIZE is 256 since 5.1; 128 before
_LINE_LIMIT = 127
_GROUPS = {RUNTIME: "main", POSTSTOP: "poststop"}
# runtime/preload.py comes out of the file that it is to read; marshal stops at its end
_SNAPSHOT = """\
try:
    import marshal, posix
    path = f"{paths[0]}/clip_runc/__pycache__/snapshot.{sys.implementation.cache_tag}"
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    found = {"__name__": "clip_runc.runtime.preload"}
    exec(marshal.loads(posix.read(fd, 65536)), found)
    load = lambda group: found["load"](group, fd, paths[0])
except (OSError, EOFError, ValueError, TypeError):
    load = lambda group: None
"""
# The hook is a shell's as well: where ``delete`` has left nothing to do, it is done in a
# millisecond.  To Python all of this is a string.  The paths are container_dir and rootfs_dir of
# the settings, the arguments those of runtime/hook.py; stdin is read to its end because whoever
# writes the container's state there must not get EPIPE.
_SHELL = "/bin/sh"
_GUARD = """\
#!{shell}
''':'
# {marker}: written by clipctl install, do not edit
if [ $# = 4 ] && ! [ -e "$1/containers/$3" ] && ! [ -e "$2/containers/$3" ]; then
    while IFS= read -r _; do :; done
    exit 0
fi
exec {interpreter} -IS "$0" "$@"
'''
"""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def real_interpreter() -> str:
    """The interpreter itself: no link of a virtual environment, no shim.  Absolute."""
    base = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def package_directory() -> str:
    """The directory that holds the package ``clip_runc``."""
    return os.path.dirname(_PACKAGE)


def site_directories() -> list[str]:
    """Where this process finds third-party packages: for clipd, which needs them."""
    names = ("site-packages", "dist-packages")
    return [p for p in sys.path if os.path.basename(p) in names and os.path.isdir(p)]


def launcher_text(
    module: str = RUNTIME,
    *,
    interpreter: str = "",
    package_dir: str = "",
    site_dirs: Sequence[str] | None = None,
    real_runtime: str = "",
) -> bytes:
    """The launcher of ``module``; what is not given is that of this process.

    Raises ``ConfigError`` for an interpreter that no interpreter line can name.
    """
    interpreter = interpreter or real_interpreter()
    line = f"#!{interpreter} -IS"
    if any(c.isspace() for c in interpreter) or len(os.fsencode(line)) > _LINE_LIMIT:
        raise ConfigError(
            f"{interpreter} does not fit into an interpreter line",
            "install clip-runc with a Python whose path is short and has no spaces",
        )
    package_dir = package_dir or package_directory()
    sites = site_directories() if site_dirs is None else site_dirs
    paths = [package_dir, *(p for p in sites if p != package_dir)]
    arguments = f"{real_runtime!a}, __file__, load" if module == RUNTIME else ""
    preload = f"{_SNAPSHOT}load({_GROUPS[module]!r})\n" if module in _GROUPS else ""
    head = f"{line}\n# {MARKER.decode()}: written by clipctl install, do not edit\n"
    if module == POSTSTOP and _is_plain(interpreter) and os.access(_SHELL, os.X_OK):
        head = _GUARD.format(shell=_SHELL, marker=MARKER.decode(), interpreter=interpreter)
    # The package is found first, for speed, and then last, so that nothing beside it can stand
    # in for a module of the standard library.
    return (
        f"{head}import sys\npaths = {paths!a}\n{preload}"
        f"sys.path.insert(0, paths[0])\nfrom {module} import main\n"
        f"sys.path[:] = sys.path[1:] + paths\nmain({arguments})\n"
    ).encode()


def _is_plain(path: str) -> bool:
    """Does a path mean itself to a shell without quotes?"""
    return all((c.isascii() and c.isalnum()) or c in "/._+-" for c in path)


def write_launcher(
    path: str,
    *,
    interpreter: str = "",
    package_dir: str = "",
    site_dirs: Sequence[str] | None = None,
    real_runtime: str = "",
    module: str = RUNTIME,
) -> None:
    """Write the launcher at ``path``, executable, whole or not at all.

    ``real_runtime`` is a path or a name (``""``: ``runc`` from PATH); ``module`` is ``RUNTIME`` or
    ``POSTSTOP``.  Raises ``ConfigError``, ``OSError``.
    """
    text = launcher_text(
        module,
        interpreter=interpreter,
        package_dir=package_dir,
        site_dirs=site_dirs,
        real_runtime=real_runtime,
    )
    write_text(path, text)


def install(directory: str, real_runtime: str = "") -> list[str]:
    """Write both launchers into ``directory`` and compile the package; the paths written."""
    from clip_runc.runtime.hook import NAME

    os.makedirs(directory, 0o755, exist_ok=True)
    paths = [f"{directory}/clip-runc", f"{directory}/{NAME}"]
    write_launcher(paths[0], real_runtime=real_runtime)
    write_launcher(paths[1], module=POSTSTOP)
    compile_package()
    return paths


def compile_package(package_dir: str = "") -> bool:
    """Write the package's bytecode, so that no start of the shim has to; False where it cannot."""
    import compileall

    from clip_runc.runtime import snapshot

    base = package_dir or package_directory()
    compiled = compileall.compile_dir(f"{base}/clip_runc", quiet=2)
    return snapshot.write(base) and bool(compiled)


def is_launcher(path: str) -> bool:
    """Was the file written by ``write_launcher``?"""
    text = read_text(path)
    return text is not None and MARKER in text[:512]


def read_text(path: str) -> bytes | None:
    """The beginning of a file that may be a launcher; None where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return os.read(fd, 1 << 16)
    except OSError:
        return None
    finally:
        os.close(fd)


def write_text(path: str, text: bytes) -> None:
    """Put an executable at ``path``; its directory is made.  Raises ``OSError``."""
    from clip_runc.linux.files import write_atomic

    os.makedirs(os.path.dirname(path) or ".", 0o755, exist_ok=True)
    write_atomic(path, text, 0o755)
