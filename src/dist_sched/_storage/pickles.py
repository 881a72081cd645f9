"""Pickles read as data: whatever a pickle names, nothing is imported, called or executed.

Plain values (numbers, texts, lists, dicts) come out as they are. An object comes out as an `Inert`
record of what the pickle says of it, and only where its class is one of those that checkpoints are
made of; every other name is refused, as `torch.load(weights_only=True)` refuses it.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, BinaryIO, ClassVar, NoReturn

from dist_sched.errors import StateError

LIMIT = 2**28
"""Bytes of the longest pickle that is read. That of a model of thousands of shards is far below."""

MAX_KEY = 2**60
"""The largest int that is a dict's key; larger ones can be chosen to have all the same hash."""

MAX_COPIED = 2**28
"""Bytes, or so, that calls copy at most: a pickle may name one long text many times."""

_NAMES = {
    "__builtin__": {"set", "frozenset", "complex", "range", "xrange", "slice", "list", "dict"},
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "timedelta", "timezone"},
    "io": {"BytesIO"},
    "_io": {"BytesIO"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch.nn.parameter": {"Parameter"},
    "torch.serialization": {"_get_layout"},
    "torch.torch_version": {"TorchVersion"},
    "torch": {
        *("Size", "Tensor", "device", "strided", "contiguous_format", "preserve_format"),
        *("bool", "bfloat16", "complex64", "complex128", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    },
}
_NAMES["builtins"] = _NAMES["__builtin__"]
_PATHS = {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"}
_NAMES["pathlib"] = _NAMES["pathlib._local"] = _PATHS

_FAMILIES = (
    "deepspeed.",
    "lightning.",
    "lightning_fabric.",
    "megatron.",
    "numpy.random.",
    "pytorch_lightning.",
    "torch._tensor.",
    "torch._utils.",
    "torch.distributed._shard.",
    "torch.distributed._tensor.",
    "torch.distributed.checkpoint.metadata.",
    "torch.distributed.device_mesh.",
    "torch.distributed.tensor.",
)
"""Beginnings of names whose objects are data here. Megatron-LM saves its arguments, enums among
them; DeepSpeed its loss scaler, Lightning its hyper-parameters."""

_DICTS = {("collections", name) for name in ("OrderedDict", "Counter")}


class TruncatedError(StateError):
    """A file ends before what it declares: a save that was interrupted."""


class Inert:
    """What a pickle says of an object: the name of its class, arguments and attributes."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def attribute(self, name: str) -> Any:
        """Give one of its attributes, or None where the pickle told none of that name."""
        return self.state.get(name) if isinstance(self.state, dict) else None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __setitem__(self, key: object, value: object) -> None:
        """Drop an item: a container other than list and dict holds nothing that is looked for."""

    def append(self, value: object) -> None:
        """Drop an item, as above."""

    def extend(self, values: object) -> None:
        """Drop items, as above."""

    def add(self, value: object) -> None:
        """Drop an item, as above."""


class _Name:
    """A class or function that a pickle names; calling it records the call."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        if (self.module, self.name) in _DICTS:
            return _as_dict(*arguments)
        if (self.module, self.name) == ("collections", "defaultdict"):
            return {}
        if self.module == "_codecs" and arguments[1:] == ("latin1",):
            return arguments[0].encode("latin1") if isinstance(arguments[0], str) else None
        return Inert(f"{self.module}.{self.name}", arguments)


def _as_dict(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if isinstance(items, dict) else items
    return {_key(key): value for key, value in pairs}


def _key(key: Any) -> Any:
    """Check a dict's key: hashing what a pickle nests deeply would take the process down."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        is_plain = isinstance(part, int | float | str | bytes | Inert | _Name | None)
        if not is_plain or (isinstance(part, int) and abs(part) >= MAX_KEY):
            raise pickle.UnpicklingError("a dict has a key that is no plain value")
    return key


def _size(argument: object) -> int:
    """Say about how many bytes a copy of an argument takes."""
    if isinstance(argument, str):
        return len(argument)
    return 128 * len(argument) if isinstance(argument, dict | list) else 0


_InPython: Any = pickle._Unpickler  # noqa: SLF001


class _Unpickler(_InPython):  # type: ignore[misc]
    """The standard library's unpickler in Python, less all that makes or changes real objects.

    The one in C would take tens of gigabytes for a few bytes that declare a long memo.
    """

    def find_class(self, module: str, name: str) -> _Name:
        full = f"{module}.{name}"
        is_storage = full.startswith("torch.") and full.count(".") == 1 and name.endswith("Storage")
        is_known = name in _NAMES.get(module, ()) or full.startswith(_FAMILIES)
        if is_storage or full == "torch.storage.UntypedStorage" or is_known:
            return _Name(module, name)
        raise StateError(
            f"it names {full!r}, which is not plain data: reading it could run code, so it is "
            "refused; save the scheduler's state, a dict of plain values, without such objects"
        )

    def persistent_load(self, pid: Any) -> Inert:
        return Inert("storage", pid if isinstance(pid, tuple) else (pid,))

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.copied = getattr(self, "copied", 0) + sum(map(_size, arguments))
        if self.copied > MAX_COPIED or not isinstance(self.stack[-1], _Name):
            raise pickle.UnpicklingError("it calls what no checkpoint calls")
        self.stack[-1] = self.stack[-1](*arguments)

    load_newobj = load_reduce

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_newobj()

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_as_dict(zip(items[::2], items[1::2], strict=True)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][_key(key)] = value

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def load_set(self) -> None:
        self.append(Inert("builtins.set"))

    def load_additems(self) -> None:
        self.pop_mark()

    def load_frozenset(self) -> None:
        self.append(Inert("builtins.frozenset", tuple(self.pop_mark())))

    def refuse(self) -> NoReturn:
        raise pickle.UnpicklingError("it has an instruction that no checkpoint needs")

    dispatch: ClassVar[dict[int, Any]] = {
        **_InPython.dispatch,
        pickle.BUILD[0]: load_build,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_set,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        # These reach objects registered in this process, or take memory before it is there.
        **dict.fromkeys((pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]), refuse),
        **dict.fromkeys((pickle.BYTEARRAY8[0], pickle.NEXT_BUFFER[0]), refuse),
    }


def read(stream: BinaryIO) -> Any:
    """Read one pickle from a stream over bytes in memory, as data.

    Raises:
        TruncatedError: The bytes end within the pickle.
        StateError: It is no pickle, or one that names anything but data.
    """
    try:
        return _Unpickler(stream).load()
    except StateError:
        raise
    except (EOFError, pickle.UnpicklingError) as error:
        told = str(error)
        is_short = isinstance(error, EOFError) or "truncated" in told or "end of frame" in told
        kind = TruncatedError if is_short else StateError
        raise kind(f"it is no valid pickle: {told or 'it ends too early'}") from error
    except Exception as error:  # a malformed pickle can fail in any way
        raise StateError(f"it is no valid pickle: {type(error).__name__}: {error}") from error


def read_bytes(data: bytes) -> Any:
    """Read one pickle from bytes; raises what `read` raises."""
    return read(io.BytesIO(data))
