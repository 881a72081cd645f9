"""The application: it imports commands when they are called, and prints errors as one line."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dist_sched._rules import brief
from dist_sched.cli import output
from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ERROR = 2
INTERRUPTED = 128 + 2
"""The usual status of a program that Ctrl-C (SIGINT) has ended."""
UNREAD = 128 + 13
"""The usual status of a program that SIGPIPE has ended. `diff` and `check` need click's 1."""

COMMANDS = {
    "plot": "Draw one or more schedules.",
    "show": "Print the phases of a schedule, and values at positions.",
    "inspect": "Print the scheduler's state in a checkpoint.",
    "diff": "Print what a resume would change.",
    "check": "Warn about valid configs that are probably mistakes.",
    "convert": "Convert a scheduler's state for another library.",
    "fork": "Write a config that continues a checkpoint with a changed schedule.",
}

_DEBUG = "--debug"
_LONGEST = 4_000
"""Maximum number of characters of an error."""
_EXPECTED = (ConfigError, StateError, ReconcileError, RankMismatchError, OSError, ImportError)
_UNWRITABLE = {errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG}
"""Errors of the system when writing to standard output. Other errors have their file's name."""
_EXTRAS = {"rich": "cli", "plotext": "cli", "tomli_w": "cli", "yaml": "yaml"}


def _import_modules(
    _context: click.Context, _option: click.Parameter, names: Iterable[str]
) -> None:
    for name in names:
        try:
            _import(name)
        except Exception as error:
            raise click.BadParameter(
                f"{brief(name)} cannot be imported: {brief(repr(error))}"
            ) from error


def _import(name: str) -> None:
    path = Path(name)
    is_file = path.suffix == ".py"
    # Like `python FILE` and `python -m MODULE`.
    sys.path.insert(0, str(path.parent.resolve() if is_file else Path.cwd()))
    spec = importlib.util.spec_from_file_location(path.stem, path) if is_file else None
    if spec is None or spec.loader is None:
        importlib.import_module(name)
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)


_IMPORT = click.Option(
    ["--import", "modules"],
    metavar="MODULE",
    multiple=True,
    is_eager=True,  # other options may use a shape that it registers
    expose_value=False,
    callback=_import_modules,
    help="Import a module or .py file first, if it registers shapes. Can be repeated.",
)
"""An option of every command and of the application."""


class _Commands(click.Group):
    """Imports a command when it is called, so that help and simple commands start quickly."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = importlib.import_module(f"dist_sched.cli.{name}").command
            if _IMPORT not in command.params:
                command.params.append(_IMPORT)
        return name, command, rest


@click.group(
    cls=_Commands,
    # Only names and help. The commands themselves are imported when they are called.
    commands={name: click.Command(name, short_help=text) for name, text in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[_IMPORT],
    epilog="""\b
Is my config right?           dist-sched check run.yaml --updates 100k
                              dist-sched show run.yaml
What would a resume change?   dist-sched diff CHECKPOINT run.yaml
Why did lr jump at a resume?  dist-sched diff BEFORE AFTER
Cool down a checkpoint:       dist-sched fork CHECKPOINT --cooldown 2k \\
                                -o cooldown.yaml""",
)
@click.version_option(package_name="dist-sched")
@click.option(_DEBUG, is_flag=True, expose_value=False, help="Show the traceback of errors.")
def application() -> None:
    """Look at learning-rate schedules, in config files and in checkpoints.

    CONFIG is a .json, .yaml, .yml or .toml file with a schedule.

    CHECKPOINT is a checkpoint's folder or file, or the folder of a run, in which the newest
    complete checkpoint is used. It can also be an address such as s3://bucket/run.
    """


class _Handler(logging.Handler):
    """Prints log messages of the library to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        _warn(record.levelname.lower(), record.getMessage())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its status.

    The status is 0, or 1 if `diff` or `check` found something, 2 after an error, 130 after Ctrl-C,
    and 141 if the output was closed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debug = _DEBUG in words
    if sys.stdout is None:
        return _fail("standard output is closed; redirect it, for example to /dev/null")
    # A name with characters that the encoding lacks must not end a command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    logger, handler, stdout = logging.getLogger("dist_sched"), _Handler(), sys.stdout
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if is_debug else logging.WARNING)
    try:
        # --debug works everywhere. click would accept it only before the command.
        rest = [word for word in words if word != _DEBUG] or ["--help"]
        return application.main(rest, prog_name="dist-sched", standalone_mode=False) or 0
    except SystemExit as left:
        # From completion, or from a closed pipe, whose streams click has replaced.
        return UNREAD if sys.stdout is not stdout else int(left.code or 0)
    except click.Abort:
        _fail("interrupted")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - unexpected errors are one line, too
        if is_debug:
            traceback.print_exc()
        return _fail(_message(error))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _message(error: Exception) -> str:
    message = str(error)
    if isinstance(error, click.ClickException):
        message = error.format_message()
        if isinstance(error, click.UsageError):
            message += f" (see {error.ctx.command_path if error.ctx else 'dist-sched'} --help)"
    elif isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        message = f"this needs {error.name}: pip install 'dist-sched[{_EXTRAS[error.name]}]'"
    elif isinstance(error, OSError) and error.errno in _UNWRITABLE:
        # Otherwise the buffered output would fail again when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = f"the output cannot be written: {error.strerror}"
    elif not isinstance(error, _EXPECTED) or not message:
        message = f"unexpected {type(error).__name__}: {message}; use {_DEBUG} to see where"
    # click quotes arguments, which may be very long.
    return f"{brief(message, _LONGEST)}{output.hint(error)}"


def _fail(message: str) -> int:
    _warn("error", message)
    return ERROR


def _warn(level: str, message: str) -> None:
    output.warn(f"dist-sched: {level}: {' '.join(message.split())}")
