"""Pickles read as data: whatever a pickle names, nothing is imported, called or executed.

Plain values (numbers, texts, lists, dicts) come out as they are, and sets as lists. An object
comes out as an `Inert` record of what the pickle says of it, and only if its class is one of those
that checkpoints are made of. Every other name is refused, as `torch.load(weights_only=True)` does.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from dist_sched._rules import brief
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE = 2**28
"""Bytes of the longest pickle that is read; that of a model of thousands of shards is shorter."""

MAX_STEPS = 2**24
"""Instructions of the longest pickle that is read, each of which may make an object: together, of a
gigabyte. The index of a folder with 100,000 shards has 7 million."""

MAX_KEY = 2**60
"""Ints from here on are no keys of dicts. An attacker can choose them all with one hash, because
ints hash modulo 2**61 - 1; a dict of 100,000 such keys takes minutes."""

_KNOWN = re.compile(
    r"""(builtins|__builtin__)\.
            (bool|bytearray|bytes|complex|dict|float|frozenset|int|list|long|range|set|slice|str
            |tuple|xrange)
    | _codecs\.encode | _?io\.BytesIO | argparse\.Namespace
    | collections\.(Counter|OrderedDict|defaultdict|deque)
    | datetime\.(date|datetime|timedelta|timezone)
    | numpy\.(dtype|ndarray|_?core\.multiarray\.(_reconstruct|scalar)|random\..+)
    | pathlib(\._local)?\.(Pure)?(Posix|Windows)Path
    | torch\.(Size|Tensor|device|strided|contiguous_format|preserve_format|[A-Z]\w*Storage
            |bool|bfloat16|complex(64|128)|float(16|32|64|8_e\w+)|u?int(8|16|32|64))
    | torch\.(nn\.parameter\.Parameter|storage\.UntypedStorage|torch_version\.TorchVersion)
    | torch\.(_tensor|_utils)\..+
    | torch\.serialization\._get_layout
    | torch\.distributed\.(_shard|_tensor|checkpoint\.metadata|device_mesh|tensor)\..+
    | torch\.distributed\.checkpoint\.filesystem\.(_StorageInfo|_StoragePrefix)
    # Megatron-LM saves its arguments, enums among them; DeepSpeed its loss scaler, Lightning its
    # hyper-parameters.
    | (deepspeed|lightning|lightning_fabric|megatron|pytorch_lightning)\..+
    """,
    re.VERBOSE,
)
_DICTS = {"collections.Counter", "collections.OrderedDict", "collections.defaultdict"}


class TruncatedError(StateError):
    """A checkpoint ends before what it declares: its save was interrupted."""


class Inert:
    """What a pickle says of an object: the name of its class, arguments and attributes."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def attribute(self, name: str) -> Any:
        """Return one of its attributes, or None if the pickle has none of that name."""
        return self.state.get(name) if isinstance(self.state, dict) else None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def append(self, value: object) -> None:
        """Drop an item: nothing is looked for in containers other than list and dict."""

    def __setitem__(self, key: object, value: object) -> None:
        """Drop an item, as `append` does."""


class Name:
    """A class or function that a pickle names. Calling it makes a record of the call."""

    __slots__ = ("name", "record")

    def __init__(self, name: str, record: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self.name = name
        self.record = record

    def __call__(self, *arguments: Any) -> Any:
        if self.name not in _DICTS:
            return self.record(self.name, arguments)
        # Nothing is copied: a pickle of some kilobytes can name one long dict a million times.
        return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


class _Whole(io.BytesIO):
    """Bytes whose end is an error to the reader that asks for more."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if len(data) < (size or 0):
            raise TruncatedError("it ends within its pickle")
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise TruncatedError("it ends within its pickle")
        return line


_InPython: Any = pickle._Unpickler  # noqa: SLF001


class _Unpickler(_InPython):  # type: ignore[misc]
    """The standard library's unpickler in Python, without what makes or changes real objects.

    A restricted `find_class` over the unpickler in C would not be enough. That one takes tens of
    gigabytes for a few bytes that declare a long memo, and hostile bytes crash it, which would
    take the training process along. Here the worst outcome of malformed bytes is an exception.
    """

    record: Callable[[str, tuple[Any, ...]], Any]

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}"
        if not _KNOWN.fullmatch(full):
            raise StateError(
                f"it names {brief(full)!r}, which is not plain data: reading it could run code, so "
                "it is refused; save the scheduler's state, a dict of plain values, without such "
                "objects"
            )
        return Name(full, self.record)

    def get_extension(self, code: int) -> NoReturn:
        # The standard one looks into a registry of this process, past find_class.
        raise StateError(f"it names extension {code}, which no checkpoint does")

    def persistent_load(self, pid: Any) -> Inert:
        return Inert("storage", pid if isinstance(pid, tuple) else (pid,))

    def load_build(self) -> None:
        # The standard one calls __setstate__, or writes into __dict__.
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.put(items)

    def load_setitem(self) -> None:
        self.put([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self.put(self.pop_mark())

    def put(self, items: list[Any]) -> None:
        """Put keys and values, in turn, into what is on top of the stack."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple of a million nested tuples overflows the stack of C.
            for part in key if isinstance(key, tuple) else (key,):
                is_plain = isinstance(part, int | float | str | bytes | Inert | Name | None)
                if not is_plain or (isinstance(part, int) and abs(part) >= MAX_KEY):
                    raise StateError("it has a dict with a key that is no plain value")
            self.stack[-1][key] = value

    dispatch: ClassVar[dict[int, Any]] = {
        **_InPython.dispatch,
        pickle.BUILD[0]: load_build,
        # Objects are made by calling names alone. The standard one calls __new__, as NEWOBJ_EX
        # still does, with which nothing that is a Name can be made.
        pickle.NEWOBJ[0]: _InPython.load_reduce,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        # Sets are lists here, because a list does not hash what it holds.
        pickle.EMPTY_SET[0]: _InPython.load_empty_list,
        pickle.ADDITEMS[0]: _InPython.load_appends,
        pickle.FROZENSET[0]: _InPython.load_list,
        # The standard one takes the memory that is declared before it reads a byte.
        pickle.BYTEARRAY8[0]: _InPython.load_binbytes8,
    }


class _Counted(dict[int, Any]):
    """Instructions by their codes, of which a pickle may have so many."""

    left = MAX_STEPS

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise StateError(f"it has more than {MAX_STEPS:,} instructions")
        return super().__getitem__(code)


def read(data: bytes, record: Callable[[str, tuple[Any, ...]], Any] = Inert) -> Any:
    """Read one pickle as data.

    Args:
        data: The pickle.
        record: Called with the name and the arguments of each call in the pickle. Returns what
            stands for its result.

    Raises:
        TruncatedError: The bytes end within the pickle.
        StateError: It is no pickle, or one that names anything but data.
    """
    unpickler = _Unpickler(_Whole(data))
    unpickler.record = record
    unpickler.dispatch = _Counted(_Unpickler.dispatch)  # type: ignore[misc] # of this pickle alone
    try:
        return unpickler.load()
    except StateError:
        raise
    except Exception as error:  # a malformed pickle can fail in any way
        reason = f"{type(error).__name__}: {brief(str(error))}"
        raise StateError(f"it is no valid pickle: {reason}") from error
