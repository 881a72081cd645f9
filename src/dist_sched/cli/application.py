"""The application: its commands, imported when they are called, and how it says what is wrong."""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dist_sched._rules import near_miss
from dist_sched.cli import completion
from dist_sched.cli.tables import printable
from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CANNOT_TELL = 2
"""The status of an error."""
INTERRUPTED = 128 + 2
"""The status that shells give to what SIGINT, Ctrl-C, has ended."""
UNREAD = 128 + 13
"""The status that shells give to what SIGPIPE has ended, as `git` and coreutils are: quietly."""

COMMANDS = {
    "plot": "Draw schedules over a run.",
    "show": "Print the phases, and values at positions.",
    "inspect": "Print what a checkpoint holds.",
    "diff": "Print what a resume would change.",
    "check": "Name what is legal and yet probably not meant.",
    "convert": "Translate a scheduler's state for another library.",
    "fork": "Write the config that anneals from a checkpoint.",
}

_DEBUG = "--debug"
_EXPECTED = (ConfigError, StateError, ReconcileError, RankMismatchError, OSError)
_UNWRITABLE = {errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG}
"""Numbers of the errors that writing raises, without a file's name."""
_OF_THE_EXTRAS = {
    "rich": "cli",
    "plotext": "cli",
    "yaml": "yaml",
    "matplotlib": "plot",
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}{near_miss(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_RECIPES = """\b
Is this config what I mean?   dist-sched check run.yaml --updates 100k
                              dist-sched show run.yaml
What would a resume change?   dist-sched diff run.yaml CHECKPOINT
Why did lr jump at a resume?  dist-sched diff AFTER BEFORE
Anneal from a checkpoint:     dist-sched fork CHECKPOINT --cooldown 2k \\
                                -o cooldown.yaml"""


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_RECIPES,
)
@click.version_option(package_name="dist-sched")
@click.option(_DEBUG, is_flag=True, expose_value=False, help="Show the traceback of an error, too.")
def application() -> None:
    """See a schedule before the run, and read it out of checkpoints after.

    CONFIG is a .json, .yaml or .toml file with a schedule. CHECKPOINT is a folder or a file: one
    checkpoint, or a run's folder, whose newest complete one is read; it may be an address such as
    s3://... too.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and give its status.

    0, 1 where something was found, 2 on an error, 130 on Ctrl-C, 141 where nobody reads what is
    printed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = _DEBUG in given
    if sys.stdout is None:
        return _fail("standard output is closed: give it a place, such as > /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _logged(logging.DEBUG if is_debug else logging.WARNING):
        try:
            status = _run([argument for argument in given if argument != _DEBUG])
            sys.stdout.flush()
        except BrokenPipeError:
            _give_up_stdout()
            return UNREAD
        except KeyboardInterrupt:
            return _interrupted()
        except Exception as error:  # noqa: BLE001 - one that nobody expects is said so
            if is_debug:
                traceback.print_exc()
            return _fail(_told(error))
    return status


def _run(arguments: list[str]) -> int:
    completion.register()
    given = sys.stdout, sys.stderr
    try:
        status = application.main(arguments, prog_name="dist-sched", standalone_mode=False)
    except click.exceptions.Exit as left:
        return left.exit_code
    except SystemExit as left:
        if sys.stdout is not given[0]:  # click makes an exit of a broken pipe, and wraps both
            sys.stdout, sys.stderr = given
            raise BrokenPipeError from left
        return CANNOT_TELL if left.code else 0  # of click's completion
    except click.Abort:
        return _interrupted()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _fail(_of_usage(error))
    return status if isinstance(status, int) else 0


def _give_up_stdout() -> None:
    """Have what could not be printed forgotten, lest the interpreter try it again as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupted() -> int:
    _fail("interrupted")
    return INTERRUPTED


def _of_usage(error: click.ClickException) -> str:
    """Say what is wrong with a command line, and where help is."""
    message = _one_line(error.format_message())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dist-sched"
    return f"{message} (see {command} --help)" if isinstance(error, click.UsageError) else message


def _told(error: Exception) -> str:
    """Say what went wrong in one line."""
    if isinstance(error, ModuleNotFoundError) and error.name in _OF_THE_EXTRAS:
        extra = _OF_THE_EXTRAS[error.name]
        return f"this needs {error.name}: pip install 'dist-sched[{extra}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        _give_up_stdout()
        return f"the output cannot be written: {error.strerror}"
    message = _one_line(str(error))
    if isinstance(error, _EXPECTED) and message:
        return message
    return f"unexpected {type(error).__name__}: {message}; {_DEBUG} shows where"


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _fail(message: str) -> int:
    click.echo(f"dist-sched: error: {printable(message)}", err=True)
    return CANNOT_TELL


class _Speaker(logging.Handler):
    """Says on stderr what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        message = printable(_one_line(record.getMessage()))
        click.echo(f"dist-sched: {record.levelname.lower()}: {message}", err=True)


@contextmanager
def _logged(level: int) -> Iterator[None]:
    """Have what the library logs said while a command runs."""
    logger, speaker = logging.getLogger("dist_sched"), _Speaker()
    before = logger.level
    logger.addHandler(speaker)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(speaker)
        logger.setLevel(before)
