"""runc's command line, as far as we have to understand it.

runc 1.x reads it with urfave/cli v1 on top of Go's ``flag`` package: options before the
command are global; ``-name`` and ``--name`` are the same; a value follows as ``=value`` or as the
next argument, whatever that looks like; a boolean takes none; ``--`` ends the options.  What comes
after runc 1.5 (urfave/cli v3) and crun (argp) take the same options; crun also has
clusters (``-db DIR``) and abbreviations (``--bund DIR``), which runc refuses.

Nothing here judges: a line that we cannot read is the runtime's to refuse, so it passes
through (``command`` is then ``""``).  Pure, imports nothing: it runs on every runc command.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OURS = ("create", "run", "restore", "delete", "checkpoint")

# True for those that take a value.  Compared with the option tables in the sources of runc
# 1.1.5, 1.1.15, 1.3.0, 1.4.0 and 1.5.1 and of crun 1.8.1, 1.21 and 1.28.
_GLOBAL = {
    "root": True,
    "log": True,
    "log-format": True,
    "log-level": True,
    "criu": True,
    "rootless": True,
    "cgroup-manager": True,
    "debug": False,
    "systemd-cgroup": False,
}
_COMMAND = {
    "bundle": True,
    "b": True,
    "console-socket": True,
    "pidfd-socket": True,
    "pid-file": True,
    "preserve-fds": True,
    "image-path": True,
    "work-path": True,
    "manage-cgroups-mode": True,
    "empty-ns": True,
    "lsm-profile": True,
    "lsm-mount-context": True,
    "network-lock": True,
    "detach": False,
    "d": False,
    "keep": False,
    "no-subreaper": False,
    "no-pivot": False,
    "no-new-keyring": False,
    "tcp-established": False,
    "ext-unix-sk": False,
    "shell-job": False,
    "file-locks": False,
    "auto-dedup": False,
    "lazy-pages": False,
    "tcp-close": False,
    # checkpoint's
    "parent-path": True,
    "page-server": True,
    "status-fd": True,
    "leave-running": False,
    "pre-dump": False,
}
# crun's "config" is a file to read instead of config.json: we would rewrite the wrong one
_CREATE = {**_COMMAND, "config": True, "f": True}
_ABBREVIATED = "…"  # no option's name: there was one of crun's abbreviations
_LOG_FORMATS = (("log-format", "text"), ("log-format", "json"))
_DELETE = {"force": False, "f": False, "regex": False, "r": False}


class Invocation:
    """A command line of runc.

    ``command`` is one of ``OURS`` or ``""`` for whatever passes through.  ``root``, ``log`` and
    ``log_format`` are ``""`` where they were not given; ``bundle`` is ``"."`` then.  ``images`` is
    the directory of a checkpoint.  ``id`` may be ``""`` only with an empty ``command``.
    ``certain_force``: ``force``, on a line in which no runtime finds anything to refuse.
    """

    __slots__ = (
        "bundle",
        "certain_force",
        "command",
        "debug",
        "detach",
        "force",
        "id",
        "images",
        "keep",
        "log",
        "log_format",
        "root",
    )

    def __init__(self) -> None:
        self.command = self.root = self.log = self.log_format = self.id = self.images = ""
        self.bundle = "."
        self.debug = self.detach = self.force = self.keep = self.certain_force = False


def parse(argv: Sequence[str]) -> Invocation:
    """Read ``argv`` (with the program's name in front).  Never raises."""
    found = Invocation()
    options, rest = _global(argv)
    if not rest or rest[0] not in OURS:
        return found
    if not _parse_command(found, rest[0], rest[1:]):
        return Invocation()
    found.command = rest[0]
    found.root = options.get("root", "")
    found.log = options.get("log", "")
    found.log_format = options.get("log-format", "")
    found.debug = _is_true(options.get("debug", "false"))
    found.certain_force &= _is_certain(_GLOBAL, options)
    return found


def _is_certain(known: dict[str, bool], options: dict[str, str]) -> bool:
    """Are these options that no runtime refuses?  Of those with a value only a few are known."""
    for name, value in options.items():
        if name not in known:
            return False
        if known[name]:
            if name not in ("root", "log") and (name, value) not in _LOG_FORMATS:
                return False
        elif not _is_true(value):
            return False
    return True


def _is_true(value: str) -> bool:
    """Go's strconv.ParseBool."""
    return value in ("1", "t", "T", "true", "TRUE", "True")


def _split(argument: str) -> tuple[str, str | None]:
    """Name and attached value of an option."""
    name = argument[2:] if argument.startswith("--") else argument[1:]
    name, equals, value = name.partition("=")
    return name, value if equals else None


def _global(argv: Sequence[str]) -> tuple[dict[str, str], Sequence[str]]:
    """The global options, and the rest from the command on; no rest for what passes through."""
    options: dict[str, str] = {}
    at = 1
    while at < len(argv):
        argument = argv[at]
        if len(argument) < 2 or argument[0] != "-":
            return options, argv[at:]
        at += 1
        if argument == "--":
            return options, argv[at:]
        name, value = _split(argument)
        if name not in _GLOBAL:
            name = _abbreviated(argument, name, _GLOBAL)
            options[_ABBREVIATED] = "true"
        if not name:  # --help, --version, and what we do not know
            return options, ()
        if value is None and _GLOBAL[name]:
            if at == len(argv):
                return options, ()
            value = argv[at]
            at += 1
        options[name] = "true" if value is None else value
    return options, ()


def _abbreviated(argument: str, name: str, known: dict[str, bool]) -> str:
    """The one long option that ``name`` is the beginning of (crun), or ``""``."""
    if not argument.startswith("--") or len(name) < 2:
        return ""
    matches = [x for x in known if len(x) > 1 and x.startswith(name)]
    return matches[0] if len(matches) == 1 else ""


def _parse_command(found: Invocation, command: str, arguments: Sequence[str]) -> bool:
    """Take the command's options and the id; False for a line to pass through."""
    known = _DELETE if command == "delete" else _CREATE
    reader = _Reader(known, arguments)
    if not reader.read():
        return False
    options, ids = reader.options, reader.positional
    if "config" in options or "regex" in options or _is_true(options.get("pre-dump", "false")):
        return False
    if reader.unknown:  # it may have taken a value; the id comes last
        ids = ids[-1:]
    if len(ids) != 1 or not ids[0]:
        return False
    found.id = ids[0]
    found.bundle = options.get("bundle") or "."
    found.images = options.get("image-path", "")
    found.detach = _is_true(options.get("detach", "false"))
    found.keep = _is_true(options.get("keep", "false"))
    found.force = _is_true(options.get("force", "false"))
    found.certain_force = found.force and _is_certain(known, options)
    return True


_LONG = {"b": "bundle", "d": "detach", "r": "regex"}


class _Reader:
    """The arguments of one command: options, positional arguments, and was any unknown?"""

    def __init__(self, known: dict[str, bool], arguments: Sequence[str]) -> None:
        self.known = known
        self.arguments = arguments
        self.at = 0
        self.options: dict[str, str] = {}
        self.positional: list[str] = []
        self.unknown = False

    def read(self) -> bool:
        """False where the line asks for help, or a value is missing."""
        while self.at < len(self.arguments):
            argument = self.arguments[self.at]
            self.at += 1
            if argument == "--":
                self.positional += self.arguments[self.at :]
                break
            if len(argument) < 2 or argument[0] != "-":
                self.positional.append(argument)
            elif not self._option(argument):
                return False
        return True

    def _option(self, argument: str) -> bool:
        name, value = _split(argument)
        if name in ("h", "help", "?", "usage"):
            return False
        if name not in self.known:
            self.options[_ABBREVIATED] = "true"
            full = _abbreviated(argument, name, self.known)
            if not full:
                return self._cluster(argument)
            name = full
        return self._take(name, value)

    def _take(self, name: str, value: str | None) -> bool:
        if value is None and self.known[name]:
            if self.at == len(self.arguments):
                return False
            value = self.arguments[self.at]
            self.at += 1
        self.options[self._full(name)] = "true" if value is None else value
        return True

    def _full(self, name: str) -> str:
        if name == "f":
            return "config" if "config" in self.known else "force"
        return _LONG.get(name, name)

    def _cluster(self, argument: str) -> bool:
        """crun's ``-bDIR`` and ``-db DIR``; anything else is an option that we do not know."""
        letters = argument[1:]
        for position, letter in enumerate(letters):
            if letter == "-" or letter not in self.known:
                self.unknown = True
                return True
            if self.known[letter]:
                return self._take(letter, letters[position + 1 :] or None)
            self._take(letter, None)
        return True
