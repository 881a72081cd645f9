"""Places: files and folders of any file system, local or remote."""

from __future__ import annotations

import contextlib
import os
import pathlib
import posixpath
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dist_sched._rules import brief, shown
from dist_sched._storage.pickles import TruncatedError
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder in some file system."""

    files: Any = field(repr=False)
    """The fsspec file system."""
    path: str

    @classmethod
    def at(cls, address: object) -> Place:
        """Return the place of a local path, or of an address such as `s3://bucket/run`.

        Raises:
            StateError: It is neither, or no installed package can open such an address.
        """
        import fsspec  # comes with torch

        _refuse_special(address)
        try:
            files, path = fsspec.core.url_to_fs(os.fsdecode(address))  # type: ignore[arg-type]
        except (ImportError, TypeError, ValueError) as error:
            reason = brief(str(error))
            raise StateError(
                f"path={shown(address)}: must be a path, or an address that fsspec can open: "
                f"{reason}"
            ) from error
        files.invalidate_cache()  # a run may have saved since the folder was listed
        return cls(files, str(path))

    def __str__(self) -> str:
        return str(self.files.unstrip_protocol(self.path)).removeprefix("file://")

    def child(self, name: str) -> Place:
        """Return the place with a name in this folder."""
        return Place(self.files, posixpath.join(self.path, name))

    @property
    def parent(self) -> Place:
        """The folder of this place."""
        return Place(self.files, posixpath.dirname(self.path.rstrip("/")))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path.rstrip("/"))

    def exists(self) -> bool:
        """Return whether it exists."""
        return bool(self.files.exists(self.path))

    def is_folder(self) -> bool:
        """Return whether it is a folder."""
        return bool(self.files.isdir(self.path))

    def is_file(self) -> bool:
        """Return whether it is a regular file, not a pipe, whose opening would wait for ever."""
        return bool(self.files.isfile(self.path))

    def names(self) -> list[str]:
        """Return the names in this folder, sorted."""
        listed = self.files.ls(self.path, detail=False)
        return sorted(posixpath.basename(str(path).rstrip("/")) for path in listed)

    def size(self) -> int:
        """Return a file's length in bytes.

        Raises:
            StateError: It is a folder, a pipe, a socket or a device.
        """
        found = self.files.info(self.path)
        if found["type"] != "file":
            raise StateError(f"{self}: is not a file")
        return int(found["size"])

    def open(self) -> Any:
        """Open a file for reading.

        Raises:
            StateError: As for `size`. Opening a pipe would wait for a writer.
        """
        self.size()
        return self.files.open(self.path, "rb")

    def read(self, start: int, length: int) -> bytes:
        """Read a part of a file.

        Raises:
            TruncatedError: The file ends before the part does.
        """
        # Object stores return an unclear error for a range beyond the end.
        if start + length > self.size():
            raise TruncatedError(f"{self}: ends before byte {start + length}")
        return bytes(self.files.cat_file(self.path, start=start, end=start + length))


def _refuse_special(address: object) -> None:
    """Raise if an address of several parts leads through a pipe or a device.

    fsspec opens the path of an address such as `zip://name::path` without `Place.open`.
    """
    for part in str(address).split("::")[1:]:
        try:
            mode = pathlib.Path(part.removeprefix("file://")).stat().st_mode
        except (OSError, ValueError):  # it is another address
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise StateError(f"path={shown(address)}: {shown(part)} is not a file")


@contextlib.contextmanager
def reading(place: object) -> Iterator[None]:
    """Turn every error inside into a StateError with the place.

    Errors of the file system have the place already, and are not changed.
    """
    try:
        yield
    except StateError as error:
        raise type(error)(f"{place}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # a malformed file can fail in any way
        reason = f"{type(error).__name__}: {brief(str(error))}"
        raise StateError(f"{place}: is malformed: {reason}") from error
