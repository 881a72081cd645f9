"""What a case of fuzz.py must not do: it is seen, and stopped, while the case runs."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

MOST_SECONDS = 10.0
"""CPU time of a case. The slowest valid file takes 4 s on a slow machine."""
MOST_MEMORY = 2**29
"""Bytes by which a case may raise the highest memory of the process."""

_READS = (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) & ~os.O_RDONLY
_EXECUTES = ("compile", "exec", "import", "marshal.loads", "pickle.find_class")
_FORBIDDEN = (
    *("code.__new__", "ctypes.", "ftplib.", "http.client.", "mmap.__new__", "nntplib.", "poplib."),
    *("os.chmod", "os.chown", "os.exec", "os.fork", "os.kill", "os.link", "os.mkdir", "os.posix"),
    *("os.putenv", "os.remove", "os.rename", "os.rmdir", "os.spawn", "os.startfile", "os.symlink"),
    *("os.system", "os.truncate", "os.unsetenv", "os.utime", "pty.spawn", "shutil.", "smtplib."),
    *("socket.", "sqlite3.", "subprocess.", "tempfile.", "urllib.", "webbrowser.", "winreg."),
)
"""Beginnings of the names of audit events."""
_LIBRARIES = tuple(
    str(Path(path).resolve()) for path in {*sys.path, sys.prefix, sys.base_prefix} if path
)


class StoppedError(BaseException):
    """The case did what it must not do. No `except Exception` of the code under test catches it."""


class _Watch:
    """Stops what the watched thread must not do."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.folder = ""
        self.seen: list[str] = []
        self.is_installed = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Stop what the case must not do. Audit hooks cannot be removed."""
        if self.thread != threading.get_ident():
            return
        reason = self._reason(event, arguments)
        if reason:
            self.seen.append(reason)
            raise StoppedError(reason)

    def _reason(self, event: str, arguments: tuple[Any, ...]) -> str:
        if event == "open":
            return self._opened(*arguments)
        if event == "subprocess.Popen" and _is_reader(arguments[1]):
            return ""
        if event.startswith(_FORBIDDEN):
            return f"{event}: {arguments!r:.200}"
        if event in _EXECUTES and not _is_library(event, arguments):
            return f"{event}: {arguments!r:.200}"
        return ""

    def _opened(self, path: Any, mode: Any, flags: Any) -> str:
        """Return what is wrong with the opening of a file: only those of the case may be read."""
        if isinstance(path, int) or path == os.devnull:
            return ""
        name = os.fsdecode(path)
        writes = bool(flags & _READS) if isinstance(flags, int) else False
        if writes or any(letter in str(mode) for letter in "wax+"):
            return f"open for writing: {name!r:.200}"
        # Where the file is, not what it is a link to: that is the operating system's.
        real = os.path.abspath(name)  # noqa: PTH100 - resolve() would follow links
        if not real.startswith((self.folder, *_LIBRARIES, "/proc/self/")):
            return f"open outside the folder: {name!r:.200}"
        return ""


def _is_reader(command: Any) -> bool:
    """Return whether it is the command of the library's own reader of large indexes."""
    from dist_sched._storage import index_items

    return isinstance(command, list) and str(index_items.__file__) in command


def _is_library(event: str, arguments: tuple[Any, ...]) -> bool:
    """Return whether an event comes from the import of an installed module by a statement."""
    frame: FrameType | None = sys._getframe(3)  # noqa: SLF001 - whose event it is
    is_import = False
    while frame and not is_import:
        is_import = frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    if is_import or (event == "import" and arguments[0] in sys.modules):
        return True
    # A module that was not needed before is imported by a statement of the library itself.
    return event == "import" and arguments[0].partition(".")[0] in _KNOWN


_KNOWN = {*sys.stdlib_module_names, "dist_sched", "fsspec", "numpy", "rich", "torch", "yaml"}
_watch = _Watch()


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[list[str]]:
    """Watch a block that may read files of a folder, and do nothing else.

    Yields:
        What was stopped. It is complete after the block.
    """
    if not _watch.is_installed:
        sys.addaudithook(_watch.hook)
        _watch.is_installed = True
    seen: list[str] = []
    _watch.seen, _watch.folder, _watch.thread = seen, str(folder.resolve()), threading.get_ident()
    try:
        yield seen
    finally:
        _watch.thread = None


@contextlib.contextmanager
def bounded(seen: list[str]) -> Iterator[None]:
    """Add to a list what a block took too much of: CPU time or memory."""

    def stop(*_: object) -> None:
        raise StoppedError(f"took more than {MOST_SECONDS} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS + 2)
    begin, peak = time.process_time(), _peak()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        seconds, grown = time.process_time() - begin, _peak() - peak
        if seconds > MOST_SECONDS:
            seen.append(f"took {seconds:.1f} s of CPU time")
        if grown > MOST_MEMORY:
            seen.append(f"took {grown // 2**20} MiB of memory")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
