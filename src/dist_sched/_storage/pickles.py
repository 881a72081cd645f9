"""Reading pickles as data: nothing in a pickle is imported, called or executed.

Plain values (numbers, strings, lists, dicts) are returned as they are, and sets as lists. Objects
of classes that are usual in checkpoints become `Inert` records. All other names are refused, as
with `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from dist_sched._rules import brief
from dist_sched._storage.index_items import MAX_KEY
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE = 2**28
"""Maximum size of a pickle in bytes. The index of a model with thousands of shards is shorter."""

MAX_STEPS = 2**24
"""Maximum number of instructions of a pickle, whose objects may then take a gigabyte. The index of
a folder with 100,000 shards has 7 million."""

KNOWN = re.compile(
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
"""Names of classes and functions that become records."""
DICTS = {"collections.Counter", "collections.OrderedDict", "collections.defaultdict"}
"""Those that become plain dicts."""


class TruncatedError(StateError):
    """A checkpoint is incomplete, because its save was interrupted."""


def refused(name: str) -> StateError:
    """Return the error for the name of a class or function that is not known."""
    return StateError(
        f"it contains {brief(name)!r}, which is not plain data and could run code; save only plain "
        "values, such as scheduler.state_dict(), in this checkpoint"
    )


class Inert:
    """A record of an object in a pickle: the name of its class, its arguments and attributes."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def attribute(self, name: str) -> Any:
        """Return an attribute, or None if the object does not have it."""
        return self.state.get(name) if isinstance(self.state, dict) else None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def append(self, value: object) -> None:
        """Ignore an item, because only lists and dicts are searched."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore an item, as `append` does."""


class Name:
    """A class or function of a pickle. Calling it returns a record of the call."""

    __slots__ = ("name", "record")

    def __init__(self, name: str, record: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self.name = name
        self.record = record

    def __call__(self, *arguments: Any) -> Any:
        if self.name not in DICTS:
            return self.record(self.name, arguments)
        # Not copied, because a short pickle can reference a long dict a million times.
        return arguments[0] if arguments and isinstance(arguments[0], dict) else {}


class _Whole(io.BytesIO):
    """Bytes that raise an error when a reader reads past their end."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if len(data) < (size or 0):
            raise TruncatedError("it ends in the middle of its pickle")
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise TruncatedError("it ends in the middle of its pickle")
        return line


_InPython: Any = pickle._Unpickler  # noqa: SLF001


class _Unpickler(_InPython):  # type: ignore[misc]
    """The standard library's unpickler in Python, without all that creates or changes objects.

    The unpickler in C with a restricted `find_class` would not be safe enough: a few hostile bytes
    can make it allocate gigabytes, or crash the training process. Here malformed bytes raise an
    exception.
    """

    record: Callable[[str, tuple[Any, ...]], Any]

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}"
        if not KNOWN.fullmatch(full):
            raise refused(full)
        return Name(full, self.record)

    def get_extension(self, code: int) -> NoReturn:
        # The standard method uses a registry of this process, without find_class.
        raise StateError(f"it uses the pickle extension {code}, which checkpoints do not have")

    def persistent_load(self, pid: Any) -> Inert:
        return Inert("storage", pid if isinstance(pid, tuple) else (pid,))

    def load_build(self) -> None:
        # The standard method calls __setstate__, or writes into __dict__.
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
        """Put alternating keys and values into the object on top of the stack."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple of a million nested tuples overflows the stack of C.
            for part in key if isinstance(key, tuple) else (key,):
                is_plain = isinstance(part, int | float | str | bytes | Inert | Name | None)
                if not is_plain or (isinstance(part, int) and abs(part) >= MAX_KEY):
                    raise StateError("it has a dict with a key that is not a plain value")
            self.stack[-1][key] = value

    dispatch: ClassVar[dict[int, Any]] = {
        **_InPython.dispatch,
        pickle.BUILD[0]: load_build,
        # The standard method calls __new__. NEWOBJ_EX still does, but it cannot create a Name.
        pickle.NEWOBJ[0]: _InPython.load_reduce,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        # Sets become lists, because a list does not hash its items.
        pickle.EMPTY_SET[0]: _InPython.load_empty_list,
        pickle.ADDITEMS[0]: _InPython.load_appends,
        pickle.FROZENSET[0]: _InPython.load_list,
        # The standard method allocates the declared memory before it reads a byte.
        pickle.BYTEARRAY8[0]: _InPython.load_binbytes8,
    }


class _Counted(dict[int, Any]):
    """Instructions by code. It counts how many a pickle uses, and limits their number."""

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
        record: Called with the name and the arguments of each call in the pickle. Its result
            replaces the result of the call.

    Raises:
        TruncatedError: The pickle is incomplete.
        StateError: It is not a valid pickle, or has more than plain data.
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
        raise StateError(f"it is not a valid pickle: {reason}") from error
