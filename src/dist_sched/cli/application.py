"""The application: its commands, imported when they are called, and how it says what is wrong."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError

if TYPE_CHECKING:
    from collections.abc import Sequence

CANNOT_TELL = 2
"""The status of an error."""

COMMANDS = {
    "plot": "Draw schedules over a run.",
    "show": "Print the phases, and values at positions.",
    "inspect": "Print what a checkpoint holds.",
    "diff": "Print what a resume would change.",
    "check": "Name what is legal and yet probably not meant.",
    "convert": "Translate a scheduler's state for another library.",
    "fork": "Write the config that anneals from a checkpoint.",
}


class _Commands(click.Group):
    """Imports a command when it is called, so that help and the light ones start quickly."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"dist_sched.cli.{cmd_name}").command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dist-sched")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def application(debug: bool) -> None:
    """See a schedule before the run, and read it out of checkpoints after.

    CONFIG is a .json, .yaml or .toml file with a schedule, or a folder or file with a checkpoint:
    wherever the one is taken, the other is too, unless the command says otherwise.
    """
    logging.basicConfig(level=logging.WARNING, format="dist-sched: %(message)s")
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.WARNING)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and give its status: 0, 1 where something was found, 2 on an error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = application.main(given, prog_name="dist-sched", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        return _fail("interrupted")
    except click.ClickException as error:
        return _fail(_one_line(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CANNOT_TELL
    except (
        ConfigError,
        StateError,
        ReconcileError,
        RankMismatchError,
        OSError,
        ImportError,
    ) as error:
        if "--debug" in given:
            raise
        return _fail(" ".join(str(error).split("\n", 1)[0].split()))
    return status if isinstance(status, int) else 0


def _one_line(error: click.ClickException) -> str:
    """Say what is wrong with a command line, and where help is."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dist-sched"
    return f"{message} (see {command} --help)" if isinstance(error, click.UsageError) else message


def _fail(message: str) -> int:
    click.echo(f"dist-sched: error: {message}", err=True)
    return CANNOT_TELL
