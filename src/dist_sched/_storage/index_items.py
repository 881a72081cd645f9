"""The items of a DCP folder's index. A child process runs this file alone, to read a large index.

C's unpickler is faster than `pickles.read` by an order of magnitude, but a few hostile bytes can
make it crash or take gigabytes. So the program limits itself before it reads its standard input,
and its answer has only names and numbers, as JSON. It runs without site-packages, so it imports
only the standard library.
"""

from __future__ import annotations

import gc
import io
import json
import pickle
import re
import sys
from typing import Any, ClassVar, NamedTuple

READY = b"dist_sched\n"
"""Written before anything is read, so the parent knows that this program runs, within limits."""

MAX_KEY = 2**60
"""Keys of dicts must be below this number. An attacker could choose larger ones with equal hashes,
because ints hash modulo 2**61 - 1, and a dict of 100,000 such keys takes minutes."""

MAX_DEPTH = 32

_NO_INDEX = "is not an index of a DCP folder"


class InvalidIndexError(ValueError):
    """The index is not as DCP writes it."""


class Item(NamedTuple):
    """What an index has about one item."""

    path: tuple[str | int, ...]
    """Its names and list indices, from the root of the tree."""
    kind: str
    """Name of its class, such as `torch.distributed.checkpoint.metadata.BytesStorageMetadata`."""
    is_readable: bool = False
    """Whether it has bytes or a single number. Other tensors are never read."""
    name: str = ""
    place: tuple[Any, Any, Any, bool] | None = None
    """File, offset, length, and whether the bytes were transformed. None if the index lacks it."""


def items(index: Any) -> list[Item]:
    """Return the items of an index.

    Args:
        index: The unpickled index: a record with the attributes of the object in `state`.

    Raises:
        InvalidIndexError: It is not an index, or has an item without a short path.
    """
    state = getattr(index, "state", None)
    state = state if isinstance(state, dict) else {}
    kinds, stored = state.get("state_dict_metadata"), state.get("storage_data")
    if not (isinstance(kinds, dict) and isinstance(stored, dict)):
        raise InvalidIndexError(_NO_INDEX)
    try:
        return _items(kinds, stored, state.get("planner_data") or {})
    except (AttributeError, RecursionError) as error:  # plain data where records belong
        raise InvalidIndexError(_NO_INDEX) from error


def _items(kinds: dict[Any, Any], stored: dict[Any, Any], paths: Any) -> list[Item]:
    readable = {name for name, kind in kinds.items() if _is_readable(kind)}
    # A tensor has a place for each shard, and is not read.
    infos = {}
    for key, info in stored.items():
        name = key.attribute("fqn")
        if isinstance(name, str) and name in readable:
            infos[name] = info
    found = []
    for name, kind in kinds.items():
        # Without a flattening planner there are names, but no paths.
        path = checked(paths.get(name) or tuple(str(name).split(".")))
        if name in readable:
            found.append(Item(path, kind.name, True, str(name), _place(infos.get(name))))
        else:
            found.append(Item(path, kind.name))
    return found


def checked(path: Any) -> tuple[str | int, ...]:
    """Return the path of an item.

    Raises:
        InvalidIndexError: It is not a short tuple of names and list indices.
    """
    parts = path if isinstance(path, tuple) else ()
    is_path = all(isinstance(p, str) or (type(p) is int and 0 <= p < MAX_KEY) for p in parts)
    if not is_path or not 0 < len(parts) <= MAX_DEPTH:
        raise InvalidIndexError("it has an item whose path is not a short tuple of names")
    return parts


def _is_readable(kind: Any) -> bool:
    size = kind.attribute("size")
    is_number = isinstance(size, tuple) and not size
    return is_number or bool(kind.name.endswith(".BytesStorageMetadata"))


def _place(info: Any) -> tuple[Any, Any, Any, bool] | None:
    if not hasattr(info, "attribute"):
        return None
    file, offset, length = (
        value if isinstance(value, str | int | float | None) else repr(type(value))
        for value in map(info.attribute, ("relative_path", "offset", "length"))
    )
    return file, offset, length, bool(info.attribute("transform_descriptors"))


class _EndError(Exception):
    """The pickle is incomplete."""


class _RefusedError(Exception):
    """The pickle has more than plain data."""


class _Record:
    """A record of an object: `pickles.Inert` for C's unpickler, with a class for each name."""

    __slots__ = ("state",)
    name: ClassVar[str] = ""

    def __init__(self, *arguments: Any) -> None:
        """Ignore the arguments, because an index has all else as attributes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attribute(self, name: str) -> Any:
        """Return an attribute, or None if the object does not have it."""
        state = getattr(self, "state", None)
        return state.get(name) if isinstance(state, dict) else None

    def append(self, value: object) -> None:
        """Ignore an item, because only lists and dicts are searched."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore an item, as `append` does."""


class _Shard(_Record):
    """A record of which only the name is kept, because an index may have millions."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state.get("fqn")
        state.clear()  # the unpickler keeps the dict until its end

    def attribute(self, name: str) -> Any:
        """Return the name, or None for all other attributes."""
        return getattr(self, "state", None) if name == "fqn" else None


class _Dict:
    """A dict of another class."""

    def __new__(cls, *arguments: Any) -> Any:
        return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


_DCP = "torch.distributed.checkpoint.metadata."


class _Unpickler(pickle.Unpickler):
    """C's unpickler, which finds no other classes than those of this file."""

    known: re.Pattern[str]

    def __init__(self, file: Any, known: re.Pattern[str], dicts: list[str]) -> None:
        super().__init__(file)
        self.known = known
        self.classes: dict[str, type] = {
            "torch.Size": tuple,
            f"{_DCP}MetadataIndex": type("", (_Shard,), {"__slots__": ()}),
            f"{_DCP}ChunkStorageMetadata": type("", (_Shard,), {"__slots__": ()}),
            **dict.fromkeys(dicts, _Dict),
        }

    def find_class(self, module: str, name: str, /) -> type:
        full = f"{module}.{name}"
        if full not in self.classes:
            if not self.known.fullmatch(full):
                raise _RefusedError(full)
            self.classes[full] = type("", (_Record,), {"__slots__": (), "name": full})
        return self.classes[full]

    def persistent_load(self, _: Any, /) -> Any:
        raise InvalidIndexError(_NO_INDEX)


class _Whole(io.BufferedReader):
    """A file that raises an error when a reader reads past its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if len(data) < (size or 0):
            raise _EndError
        return data

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        if count < len(buffer):
            raise _EndError
        return count

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise _EndError
        return line


def _limit(memory: int, seconds: int) -> None:
    """Limit this process: its memory and CPU time, no files, no processes, no core dump."""
    import resource

    # The soft limit of time says what ended the process; the hard one only kills it.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 0),  # the open ones stay
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limited = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limited, limited))


def _answer(known: str, dicts: list[str]) -> dict[str, Any]:
    """Return the items of the index on standard input, or why it cannot be read."""
    file = _Whole(io.FileIO(0), buffer_size=2**17)
    try:
        index = _Unpickler(file, re.compile(known, re.VERBOSE), dicts).load()
        file.close()  # the parent may still be writing what follows the pickle
        return {"items": items(index)}
    except _EndError:
        return {"error": "end"}
    except _RefusedError as error:
        return {"error": "class", "text": str(error)}
    except InvalidIndexError as error:
        return {"error": "index", "text": str(error)}
    except MemoryError:
        return {"error": "memory"}
    except Exception as error:  # noqa: BLE001 - malformed bytes can fail in any way
        return {"error": "pickle", "text": f"{type(error).__name__}: {error}"}


def main(known: str, dicts: list[str], memory: int, seconds: int, longest: int) -> None:
    """Write the items of the index on standard input as JSON."""
    gc.disable()
    _limit(memory, seconds)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    answer = _answer(known, dicts)
    answer["text"] = answer.get("text", "")[:1000]
    text = json.dumps(answer)
    if len(text) > longest:
        text = json.dumps({"error": "memory"})
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
