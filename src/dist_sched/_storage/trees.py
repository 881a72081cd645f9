"""Sources: files and DCP folders as trees of names, whose leaves are read when they are asked for.

No process group, no torch: the formats are read as they lie in storage, and what they pickle is
read as data alone.
"""

from __future__ import annotations

import functools
import io
import itertools
import posixpath
import struct
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dist_sched._storage import pickles
from dist_sched._storage.pickles import Inert, TruncatedError
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_ITEM = 2**26
"""Bytes of the longest item of a folder that is read: a scheduler's are a thousandth of it."""
MAX_DEPTH = 32
MAX_PARTS = 10**6
"""Values in a state, at most: that of a LambdaLR over 10,000 groups has 30,000."""

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""Of files that torch.save wrote before release 1.6."""

METADATA = (".metadata", "__0.metadata")
"""DCP's index of a folder; the second where ranks saved without collectives."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An item that lies in storage."""

    read: Callable[[], Any]


class _Items(dict[int, Any]):
    """The parts of a list by index, as DCP stores those of a list that holds dicts."""


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder in some file system, local or remote."""

    files: Any = field(repr=False)
    """The fsspec file system."""
    path: str

    @classmethod
    def at(cls, address: object) -> Place:
        """Find the file system of a local path or of an address such as `s3://bucket/run`."""
        import os

        import fsspec  # comes with torch

        try:
            text = os.fspath(address)  # type: ignore[call-overload]
        except TypeError as error:
            raise StateError(f"path={address!r}: must be a path or an address") from error
        try:
            files, path = fsspec.core.url_to_fs(str(text))
        except (ImportError, ValueError) as error:
            raise StateError(f"path={text!r}: no file system serves it: {error}") from error
        files.invalidate_cache()  # a run goes on saving after its folder was listed
        return cls(files, str(path))

    def __str__(self) -> str:
        is_local = "file" in _protocols(self.files)
        return self.path if is_local else str(self.files.unstrip_protocol(self.path))

    def child(self, name: str) -> Place:
        """Give what lies under a name in this folder."""
        return Place(self.files, posixpath.join(self.path, name))

    @property
    def name(self) -> str:
        """Its last part."""
        return posixpath.basename(self.path.rstrip("/"))

    def exists(self) -> bool:
        """Tell whether anything is there."""
        return bool(self.files.exists(self.path))

    def is_folder(self) -> bool:
        """Tell whether it is a folder."""
        return bool(self.files.isdir(self.path))

    def is_file(self) -> bool:
        """Tell whether it is a file, and not a pipe, which would be waited for."""
        return bool(self.files.isfile(self.path))

    def names(self) -> list[str]:
        """Name what lies in this folder, sorted."""
        listed = self.files.ls(self.path, detail=False)
        return sorted(posixpath.basename(str(path).rstrip("/")) for path in listed)

    def size(self) -> int:
        """Give a file's length in bytes."""
        return int(self.files.size(self.path))

    def open(self) -> Any:
        """Open a file for reading."""
        return self.files.open(self.path, "rb")

    def read(self, start: int, length: int) -> bytes:
        """Read a part of a file, and nothing beside it.

        Raises:
            TruncatedError: The file ends before the part does.
        """
        data: bytes = self.files.cat_file(self.path, start=start, end=start + length)
        if len(data) != length:
            raise TruncatedError(f"{self}: it ends before its byte {start + length}")
        return data


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def torch_file(place: Place) -> Any:
    """Read a file that torch.save wrote, of any release: all but its tensors' data.

    Raises:
        TruncatedError: The file was not written to its end.
        StateError: It is no such file, or holds what is not data.
    """
    size = place.size()
    with place.open() as file:
        is_archive = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if is_archive:
        return _about(place, lambda: _archive(place.open, size))
    head = place.read(0, min(size, pickles.LIMIT))
    return _about(place, lambda: _legacy(io.BytesIO(head)))


def _about(place: object, read: Callable[[], Any]) -> Any:
    """Say in an error which file it is about; what is malformed can fail in any way."""
    try:
        return read()
    except StateError as error:
        raise type(error)(f"{place}: {error}") from error
    except OSError:
        raise
    except Exception as error:
        raise StateError(f"{place}: is malformed: {type(error).__name__}: {error}") from error


def _archive(opened: Callable[[], Any], size: int) -> Any:
    """Read a zip archive of torch.save: the pickle in it; a tensor of one number is a leaf."""
    try:
        with opened() as file, zipfile.ZipFile(file) as archive:
            (name,) = (
                found
                for found in archive.namelist()
                if found.endswith("/data.pkl") and found.count("/") == 1
            )
            value = pickles.read_bytes(_record(archive, name, size))
    except zipfile.BadZipFile as error:
        raise TruncatedError(f"it is no whole archive of torch.save: {error}") from error

    def record(key: str) -> bytes:
        with opened() as file, zipfile.ZipFile(file) as archive:
            return _record(archive, f"{name.removesuffix('data.pkl')}data/{key}", size)

    return _scalars(value, record)


def _record(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """Read a record; torch.save does not compress, so none is longer than its file."""
    record = archive.getinfo(name)
    if record.file_size > min(size, pickles.LIMIT):
        raise StateError(
            f"its record {name!r} declares {record.file_size} bytes, more than can be meant"
        )
    return archive.read(record)


def _legacy(stream: io.BytesIO) -> Any:
    """Read a file of torch.save before 1.6: magic, protocol, machine, then the pickle itself."""
    try:
        is_ours = pickles.read(stream) == LEGACY_MAGIC
    except TruncatedError:
        raise
    except StateError:
        is_ours = False
    if not is_ours:
        raise StateError("it is no file of torch.save: its first bytes are another format's")
    pickles.read(stream)
    pickles.read(stream)
    return pickles.read(stream)


_NUMBERS = {
    "FloatStorage": "f",
    "DoubleStorage": "d",
    "HalfStorage": "e",
    "LongStorage": "q",
    "IntStorage": "i",
    "ShortStorage": "h",
    "CharStorage": "b",
    "ByteStorage": "B",
    "BoolStorage": "?",
}


def _scalars(root: Any, record: Callable[[str], bytes]) -> Any:
    """Put numbers for tensors and numpy scalars that hold just one, each object looked at once."""
    done: dict[int, tuple[Any, Any]] = {}

    def settled(value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH or not isinstance(value, dict | list | tuple | Inert):
            return value
        if id(value) not in done:
            done[id(value)] = value, value  # the object too, so that its id stays its own
            done[id(value)] = value, renewed(value, depth + 1)
        return done[id(value)][1]

    def renewed(value: Any, depth: int) -> Any:
        if isinstance(value, Inert):
            return _number(value, record)
        if isinstance(value, tuple):
            return tuple(settled(part, depth) for part in value)
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = settled(part, depth)
        return value

    return settled(root, 0)


def _number(found: Inert, record: Callable[[str], bytes]) -> Any:
    """Give the number that a numpy scalar or, as a leaf, a tensor holds, if it is just one."""
    if found.name in {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}:
        return _numpy_number(found)
    if found.name != "torch._utils._rebuild_tensor_v2":
        return found
    arguments: tuple[Any, ...] = (*found.arguments, None, None, None)
    storage, offset, size, *_ = arguments
    if size != () or type(offset) is not int or not isinstance(storage, Inert):
        return found
    _, kind, key, *_ = (*storage.arguments, None, None, None)
    code = _NUMBERS.get(getattr(kind, "name", ""))
    if code is None:
        return found
    return Leaf(functools.partial(_first, record, str(key), "<" + code, offset))


def _first(record: Callable[[str], bytes], key: str, code: str, offset: int) -> Any:
    """Read the one number of a tensor out of its record."""
    width = struct.calcsize(code)
    return struct.unpack(code, record(key)[offset * width : (offset + 1) * width])[0]


def _numpy_number(found: Inert) -> Any:
    """Decode a numpy scalar, which is pickled as a dtype and the bytes of one value."""
    dtype, data = (*found.arguments, None, None)[:2]
    if not (isinstance(dtype, Inert) and isinstance(data, bytes) and dtype.arguments):
        return found
    codes = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
    code = {**codes, "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}.get(dtype.arguments[0])
    order = ">" if isinstance(dtype.state, tuple) and ">" in dtype.state else "<"
    if code is None or struct.calcsize(order + code) != len(data):
        return found
    return struct.unpack(order + code, data)[0]


def dcp_folder(index: Place) -> Any:
    """Read the index of a DCP folder as a tree of names; of the items, nothing is read yet.

    Args:
        index: The folder's `.metadata`.

    Raises:
        TruncatedError: The index was not written to its end.
        StateError: It is no such index, or holds what is not data.
    """
    size = index.size()
    if size > pickles.LIMIT:
        raise StateError(f"{index}: has {size} bytes, more than the {pickles.LIMIT} that are read")
    metadata = _about(index, lambda: pickles.read_bytes(index.read(0, size)))
    items, stored, paths = (
        metadata.attribute(name) if isinstance(metadata, Inert) else None
        for name in ("state_dict_metadata", "storage_data", "planner_data")
    )
    if not isinstance(items, dict) or not isinstance(stored, dict):
        raise StateError(f"{index}: is no index of a DCP folder")
    folder = Place(index.files, posixpath.dirname(index.path))
    where = {
        str(key.attribute("fqn")): info for key, info in stored.items() if isinstance(key, Inert)
    }
    return _about(index, lambda: _tree(items, where, paths, folder))


def _tree(items: Mapping[Any, Any], where: Mapping[str, Any], paths: Any, folder: Place) -> Any:
    paths = paths if isinstance(paths, dict) else {}
    root: dict[Any, Any] = {}
    for name, kind in items.items():
        path = paths.get(name) or tuple(str(name).split("."))
        _plant(root, path, Leaf(functools.partial(_item, folder, name, kind, where)))
    return root


def _plant(root: dict[Any, Any], path: Any, leaf: Leaf) -> None:
    is_path = isinstance(path, tuple) and all(isinstance(part, str | int) for part in path)
    if not is_path or not 0 < len(path) <= MAX_DEPTH:
        raise StateError("it has an item whose path is no short tuple of names")
    node: Any = root
    for part, following in itertools.pairwise(path):
        fresh = _Items() if isinstance(following, int) else {}
        node = node.setdefault(part, fresh) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise StateError(f"its item {path!r} lies under another item")
    node[path[-1]] = leaf


def _item(folder: Place, name: str, kind: Any, where: Mapping[str, Any]) -> Any:
    """Read one item of a DCP folder; a tensor only if it holds one number."""
    if not (isinstance(kind, Inert) and (_is_bytes(kind) or _is_number(kind))):
        return kind
    info = where.get(name)
    if not isinstance(info, Inert):
        raise StateError(f"{folder}: its index does not say where item {name!r} lies")
    file, offset, length = map(info.attribute, ("relative_path", "offset", "length"))
    if info.attribute("transform_descriptors"):
        raise StateError(f"{folder}: item {name!r} was transformed when it was written")
    place = _inside(folder, file)
    if not (_is_count(offset) and _is_count(length) and length <= MAX_ITEM):
        raise StateError(f"{folder}: item {name!r} declares {length!r} bytes at {offset!r}")
    if not place.exists():
        raise TruncatedError(f"{place}: is missing, and item {name!r} lies in it")
    if offset + length > place.size():
        raise TruncatedError(f"{place}: ends before item {name!r} does")
    data = place.read(offset, length)
    return _about(place, lambda: _archive(lambda: io.BytesIO(data), length))


def _is_bytes(kind: Inert) -> bool:
    return kind.name.endswith(".BytesStorageMetadata")


def _is_number(kind: Inert) -> bool:
    size = kind.attribute("size")
    return isinstance(size, Inert) and size.arguments in ((), ((),), ([],))


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _inside(folder: Place, file: object) -> Place:
    """Find a file of a folder; an index must not lead out of it."""
    parts = file.split("/") if isinstance(file, str) else [""]
    if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
        raise StateError(f"{folder}: its index leads out of it, to {file!r}")
    return folder.child("/".join(parts))


def plain(root: Any, where: object) -> Any:
    """Read every leaf of a part of a tree, and give it as plain dicts, lists and values.

    Args:
        root: The part.
        where: What an error says that it is about.

    Raises:
        StateError: It is far larger, or nested far deeper, than a scheduler's state.
    """
    left = MAX_PARTS

    def copied(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise StateError("what stands there is too large, or nested too deeply, for a state")
        found = value
        while isinstance(found, Leaf):
            found = found.read()
        if isinstance(found, _Items) and all(isinstance(index, int) for index in found):
            return [copied(found[index], depth + 1) for index in sorted(found)]
        if isinstance(found, dict):
            return {key: copied(part, depth + 1) for key, part in found.items()}
        if isinstance(found, list | tuple):
            return type(found)(copied(part, depth + 1) for part in found)
        return found

    return _about(where, lambda: copied(root, 0))


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Give the named parts of a node of a tree."""
    if isinstance(node, dict):
        yield from ((str(key), part) for key, part in node.items() if _is_name(key))
    elif isinstance(node, list | tuple):
        yield from ((str(index), part) for index, part in enumerate(node))


def _is_name(key: object) -> bool:
    """Tell whether a key can be a part of a dotted one."""
    return isinstance(key, str | int)


def branches(node: Any) -> Iterator[tuple[str, Any]]:
    """Give those named parts of a node that may have parts themselves."""
    return (
        (name, part)
        for name, part in children(node)
        if isinstance(part, dict | list | tuple | Leaf)
    )
