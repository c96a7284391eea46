"""``clipctl``: the group of commands, and the one place where errors become exit codes.

Each command is a module of this package, imported when it is called: ``clipctl ls`` does not
load what ``clipctl index`` needs.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from clip_runc import __version__
from clip_runc.errors import ClipError

COMMANDS = {
    "bundle": "write a bundle for a container of an image",
    "cat": "print a file of an image",
    "config": "show, check and explain the settings",
    "doctor": "check that this machine has what clip-runc needs",
    "diff": "compare two indexes, by path",
    "events": "print what happened: containers, clipd, images",
    "gc": "tear down what containers that are gone left behind",
    "images": "list the indexes on this machine",
    "import": "make an index of the image that a .clip of the Go library is of",
    "index": "make an index from a registry reference",
    "inspect": "show what is in an index",
    "install": "install the runtime binary and its hook",
    "logs": "print clipd's log",
    "ls": "list files of an image",
    "metrics": "print or serve metrics for Prometheus",
    "mount": "mount an index without a container",
    "ps": "list the containers that run from an index",
    "publish": "push a stub of an image, which any container engine pulls",
    "pull": "fetch an index that was pushed beside its image",
    "push": "store an index beside its image in the registry",
    "record": "note in an index what a command reads, to be fetched first",
    "report": "show what a start waited for, as text, a page or JSON",
    "run": "run a container of an image, indexing it first where needed",
    "status": "show what serves layer data",
    "stop": "stop clipd",
    "store": "list, prune and verify fetched layers",
    "top": "show containers and rates of fetches, live",
    "traces": "send each start to a collector of OpenTelemetry",
    "umount": "undo clipctl mount",
    "uninstall": "undo clipctl install",
    "unshare": "run a command in an ordinary user's namespaces",
    "upgrade": "replace a running clipd by the installed version, under load",
    "verify": "check an index: structure, seed's symptoms, layers in the registry",
}


class Commands(click.Group):
    """The commands by name, each from the module of that name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module ``clip_runc.cli.<name>`` and take its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"clip_runc.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in ``--help``, without importing the modules."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipctl")
@click.option(
    "--config", type=click.Path(dir_okay=False), help="Configuration file in place of the default."
)
@click.pass_context
def clipctl(context: click.Context, config: str | None) -> None:
    """Index images, look into them, mount and run them lazily."""
    if config:
        os.environ["CLIP_RUNC_CONFIG"] = config
    asks_for_help = not {"-h", "--help"}.isdisjoint(sys.argv)
    if os.geteuid() and context.invoked_subcommand and not asks_for_help:
        from clip_runc.cli.entering import enter_for

        enter_for(context.invoked_subcommand)


def main() -> None:
    """Run ``clipctl``; exit 1 with one message for an error of ours, 2 for a wrong call."""
    from clip_runc.linux.privileges import refuse_dumps

    # many commands read credentials; containers that we start may have cores, if they want.  An
    # ordinary user's process that cannot be dumped cannot have its ids mapped by another either.
    if os.geteuid() == 0:
        refuse_dumps(children=False)
    try:
        code = clipctl.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ClipError as error:
        click.echo(f"clipctl: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away; Python would complain again while flushing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        click.echo(f"clipctl: {error.filename or 'system call'}: {error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:
        # A fault of ours, not of the caller's: one line for them, the rest where it was asked for.
        if os.environ.get("CLIP_RUNC_DEBUG"):
            raise
        click.echo(f"clipctl: internal error: {type(error).__name__}: {error}", err=True)
        click.echo("  set CLIP_RUNC_DEBUG=1 for the traceback, and report it", err=True)
        sys.exit(70)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
