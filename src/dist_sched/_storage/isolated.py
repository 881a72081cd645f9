"""Reading a large index in a child process, by C's unpickler and within limits."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_sched._rules import brief
from dist_sched._storage import index_items, pickles
from dist_sched._storage.index_items import READY, Item
from dist_sched._storage.pickles import TruncatedError
from dist_sched.errors import StateError

logger = logging.getLogger("dist_sched")

_ANOTHER = "the file is damaged or hostile; use another checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child process may use. The index of a folder needs less than half of each."""

    memory: int
    """Bytes of address space."""
    seconds: int
    """CPU time in seconds."""
    timeout: float
    """Time on the clock in seconds. It is longer, because the machine may be busy."""
    longest: int
    """Bytes of its answer."""

    @classmethod
    def of(cls, size: int) -> Limits:
        """Return the limits for an index of a size in bytes."""
        seconds = 20 + size // 2**21
        return cls(
            memory=2**29 + 10 * size,
            seconds=seconds,
            timeout=3 * seconds,
            longest=2**24 + 2 * size,
        )


def read(data: bytes, limits: Limits) -> list[Item] | None:
    """Return the items of an index, or None if no child process can be started.

    Raises:
        TruncatedError: The pickle is incomplete.
        StateError: It is not an index, has more than plain data, or reading it crashed or exceeded
            a limit.
    """
    try:
        command = _command(limits)
        done = subprocess.run(  # noqa: S603 - this Python, with a file of this package
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            timeout=limits.timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StateError(f"reading it took more than {limits.timeout} s; {_ANOTHER}") from error
    except OSError as error:
        logger.info("read a large index in this process, which is slow: %s", brief(str(error)))
        return None
    if not done.stdout.startswith(READY):
        logger.info("read a large index in this process, which is slow: no child process started")
        return None
    return _items(done.stdout[len(READY) :], done.returncode, limits)


def _command(limits: Limits) -> list[str]:
    """Return the command of the child process.

    Raises:
        OSError: There can be none.
    """
    program = Path(index_items.__file__)
    # Elsewhere a process cannot limit its memory. A frozen application is not Python.
    if sys.platform != "linux" or getattr(sys, "frozen", False) or not sys.executable:
        raise OSError("a child process within limits needs Linux and Python's own executable")
    if not program.is_file():
        raise OSError(f"{program} is not a file")
    options = {
        "known": pickles.KNOWN.pattern,
        "dicts": sorted(pickles.DICTS),
        "memory": limits.memory,
        "seconds": limits.seconds,
        "longest": limits.longest,
    }
    return [sys.executable, "-I", "-S", "-B", str(program), json.dumps(options)]


def _items(answer: bytes, status: int, limits: Limits) -> list[Item]:
    """Return the items in the answer of a child process."""
    try:
        found = json.loads(answer)
    except ValueError as error:
        if -status == signal.SIGXCPU:
            reason = f"took more than {limits.seconds} s of CPU time"
        else:
            reason = f"ended a child process with status {status}"
        raise StateError(f"reading it {reason}; {_ANOTHER}") from error
    match found:
        case {"items": list(rows)}:
            # Not more trusted than the pickle, which may have taken over the process.
            try:
                return [_item(*row) for row in rows]
            except (TypeError, ValueError) as error:
                raise StateError(f"reading it gave no items; {_ANOTHER}") from error
        case {"error": "end"}:
            raise TruncatedError("it ends in the middle of its pickle")
        case {"error": "class", "text": str(name)}:
            raise pickles.refused(name)
        case {"error": "index", "text": str(text)}:
            raise StateError(text)
        case {"error": "memory"}:
            mebibytes = limits.memory // 2**20
            raise StateError(f"reading it takes more than {mebibytes} MiB; {_ANOTHER}")
        case {"error": "pickle", "text": str(text)}:
            raise StateError(f"it is not a valid pickle: {brief(text)}")
        case _:
            raise StateError(f"reading it gave no items; {_ANOTHER}")


def _item(path: Any, kind: Any, is_readable: Any, name: Any, place: Any) -> Item:
    """Return an item of an answer, or raise a TypeError or ValueError."""
    if place is not None:
        file, offset, length, is_transformed = place
        place = file, offset, length, bool(is_transformed)
    checked = index_items.checked(tuple(path))
    return Item(checked, sys.intern(kind), bool(is_readable), name, place)
