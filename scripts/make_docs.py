"""Write what documentation can be made of the code: configuration, commands, a man page,
and what errors say.

    python scripts/make_docs.py

tests/integration/test_docs.py fails when the files in docs/ are not what this gives.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clip_runc import config_files
from clip_runc.cli.main import COMMANDS, clipctl
from clip_runc.config import DEFAULTS
from scripts import messages

REPOSITORY = Path(__file__).resolve().parent.parent
NOTE = "<!-- made by scripts/make_docs.py: change the code, not this file -->\n"


def main() -> None:
    """Write all of them."""
    for name, text in documents().items():
        (REPOSITORY / "docs" / name).write_text(text)


def documents() -> dict[str, str]:
    """Each file below docs/ with what has to be in it."""
    return {
        "configuration.md": configuration(),
        "cli.md": "".join(reference()),
        "messages.md": messages.document(NOTE),
        "man/clipctl.8": "".join(man_page()),
    }


def configuration() -> str:
    """The table of settings."""
    rows = "".join(
        f"| `{key}` | {_cell(text)} | {_cell(config_files.kind(key))} "
        f"| `{_cell(config_files.toml(DEFAULTS[key]))}` |\n"
        for key, text in config_files.documentation().items()
    )
    return f"""{NOTE}# Configuration

Later ones override:

1. the defaults below;
2. `/etc/clip-runc/config.toml`;
3. `/etc/clip-runc/config.d/*.toml`, in the order of their names;
4. `CLIP_RUNC_<KEY>` in the environment, for example `CLIP_RUNC_READ_TIMEOUT=30`; lists have commas,
   truth is `true` or `false`.

A file named by `clipctl --config FILE` or `CLIP_RUNC_CONFIG` takes the place of 2 and 3. A key
replaces the whole value that came before it.

```sh
clipctl config show            # what is in force, and where it was set
clipctl config check           # every file, errors with their lines
clipctl config explain nosuid
```

Files are TOML. One with plain lines only (`key = "text"`, numbers, truth, lists on one line) costs
a container start nothing; anything else loads a TOML parser, some 15 ms for each runc command.

| key | what | is | default |
|---|---|---|---|
{rows}"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, groups before what is in them."""
    context = click.Context(clipctl)
    for name in sorted(COMMANDS):
        command = clipctl.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner, sub in sorted(command.commands.items()):
                yield f"{name} {inner}", sub


def reference() -> Iterator[str]:
    """docs/cli.md."""
    yield f"{NOTE}# clipctl\n\n{clipctl.help}\n\n"
    yield "Exit codes: 0 all well; 1 an error, told in one line with what to do; 2 a wrong call.\n"
    yield "Commands with codes of their own say so.\n"
    for words, command in commands():
        yield f"\n## clipctl {words}\n\n```\nclipctl {words}{_usage(command)}\n```\n"
        yield f"\n{_help(command)}\n"
        options = list(_options(command))
        if options:
            yield "\n| option | what |\n|---|---|\n"
        for left, text in options:
            yield f"| `{_cell(left)}` | {_cell(text)} |\n"


def _help(command: click.Command) -> str:
    """Without the indentation of a docstring, which Python keeps before 3.13."""
    return inspect.cleandoc(command.help or "")


def _usage(command: click.Command) -> str:
    parts = ["[OPTIONS]"] if any(True for _ in _options(command)) else []
    parts += [_argument(one) for one in command.params if isinstance(one, click.Argument)]
    if isinstance(command, click.Group):
        parts.append("COMMAND")
    return "".join(f" {part}" for part in parts)


def _argument(argument: click.Argument) -> str:
    name = str(argument.name).upper()
    if argument.nargs != 1:
        name += "..."
    return name if argument.required else f"[{name}]"


def _options(command: click.Command) -> Iterator[tuple[str, str]]:
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        names = ", ".join([*option.opts, *option.secondary_opts])
        value = "" if option.is_flag or option.count else f" {_value(option)}"
        text = (option.help or "").strip()
        if option.show_default and isinstance(option.default, (str, int)):
            text += f" [default: {option.default}]"
        yield names + value, text


def _value(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(str(choice) for choice in option.type.choices)
    return {"integer": "N", "integer range": "N", "float range": "N", "text": "TEXT"}.get(
        option.type.name, "PATH"
    )


def man_page() -> Iterator[str]:
    """docs/man/clipctl.8, for man(7)."""
    yield '.\\" made by scripts/make_docs.py: change the code, not this file\n'
    yield '.TH CLIPCTL 8 "" "clip-runc" "System administration"\n'
    yield ".SH NAME\nclipctl \\- index images, look into them, mount and run them lazily\n"
    yield ".SH SYNOPSIS\n.B clipctl\n[\\-\\-config FILE] COMMAND [OPTIONS] ...\n.SH COMMANDS\n"
    for words, command in commands():
        yield f".SS {_roff(f'clipctl {words}{_usage(command)}')}\n"
        yield from (f".PP\n{_roff(one)}\n" for one in _help(command).split("\n\n"))
        for left, text in _options(command):
            yield f".TP\n.B {_roff(left)}\n{_roff(text)}\n"
    yield ".SH FILES\n"
    for path, text in (
        ("/etc/clip-runc/config.toml", "settings; clipctl config explain has them"),
        ("/var/lib/clip", "indexes, fetched layers, what containers write"),
        ("/run/clip", "sockets, mounts, leases"),
    ):
        yield f".TP\n.I {path}\n{_roff(text)}\n"
    yield ".SH EXIT STATUS\n0 all well, 1 an error, 2 a wrong call.\n"
    yield ".SH SEE ALSO\n.BR clip-runc (8),\n.BR runc (8)\n"


def _roff(text: str) -> str:
    """Text for man(7): no line may begin with a control character."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    for mark, name in (("✓", "[ok]"), ("✗", "[x]"), ("→", "\\(->"), ("…", "...")):
        plain = plain.replace(mark, name)
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in plain.split("\n"))


if __name__ == "__main__":
    main()
