"""Folders of `torch.distributed.checkpoint` (DCP): an index and its items."""

from __future__ import annotations

import functools
import io
import itertools
import posixpath
from typing import Any

from dist_sched._rules import shown
from dist_sched._storage import index_items, isolated, pickles, torch_files
from dist_sched._storage.index_items import InvalidIndexError, Item
from dist_sched._storage.isolated import Limits
from dist_sched._storage.pickles import Inert, TruncatedError
from dist_sched._storage.places import Place, reading
from dist_sched._storage.trees import Items, Leaf
from dist_sched.errors import StateError

INDEXES = (".metadata", "__0.metadata")
"""File names of a folder's index. The second is for ranks that saved without collectives."""

MAX_INDEX = 2**29
"""Maximum size of an index in bytes. One of a million shards has 140 million."""

LARGE_INDEX = 2**20
"""Size in bytes from which an index is read in a child process. This process needs 0.3 s for so
many bytes, and a child process 0.1 s to start."""

MAX_ITEM = 2**26
"""Maximum size of an item in bytes. A scheduler's items are a thousand times smaller."""


def read_folder(index: Place) -> Any:
    """Read the index of a DCP folder as a tree of names, without the items.

    Args:
        index: The folder's `.metadata`.

    Raises:
        TruncatedError: The index was not written to its end.
        StateError: It is not an index, or has more than plain data.
    """
    size = index.size()
    if size > MAX_INDEX:
        raise StateError(f"{index}: has {size} bytes; at most {MAX_INDEX} can be read")
    with reading(index):
        folder = Place(index.files, posixpath.dirname(index.path))
        kinds: dict[str, Leaf] = {}
        root: dict[Any, Any] = {}
        for item in _items(index.read(0, size)):
            if item.is_readable:
                leaf = Leaf(functools.partial(_item, folder, item))
            elif item.kind in kinds:
                leaf = kinds[item.kind]
            else:
                leaf = kinds[item.kind] = Leaf(functools.partial(Inert, item.kind))
            _plant(root, item.path, leaf)
    return root


def _items(data: bytes) -> list[Item]:
    """Return the items of an index, which is read in a child process if it is large."""
    found = isolated.read(data, Limits.of(len(data))) if len(data) > LARGE_INDEX else None
    return read_here(data) if found is None else found


def read_here(data: bytes) -> list[Item]:
    """Return the items of an index, read in this process.

    Raises:
        TruncatedError: The index was not written to its end.
        StateError: As for `read_folder`.
    """
    try:
        return index_items.items(pickles.read(data, _recorded))
    except InvalidIndexError as error:
        raise StateError(str(error)) from error


def _recorded(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return the result of a call in an index: sizes are tuples, and all else is a record."""
    match name, arguments:
        case "torch.Size", (tuple(size),):
            return size
    return Inert(name, arguments)


def _plant(node: Any, path: tuple[str | int, ...], leaf: Leaf) -> None:
    """Put a leaf into a tree, at a path of names and list indices."""
    for part, following in itertools.pairwise(path):
        fresh = Items() if isinstance(following, int) else {}
        node = node.setdefault(part, fresh) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise StateError(f"its item {shown(path)} is inside another item")
    node[path[-1]] = leaf


def _item(folder: Place, item: Item) -> Any:
    """Read one item of a folder, which has bytes or a single number."""
    with reading(folder):
        if item.place is None:
            raise StateError(f"its index does not have the place of item {shown(item.name)}")
        file, offset, length, is_transformed = item.place
        if is_transformed:
            raise StateError(
                f"item {shown(item.name)} was compressed or encrypted when it was written"
            )
        if not (type(offset) is type(length) is int and offset >= 0 and 0 <= length <= MAX_ITEM):
            raise StateError(
                f"item {shown(item.name)} declares {shown(length)} bytes at {shown(offset)}"
            )
        parts = file.split("/") if isinstance(file, str) else [""]
        # An untrusted index must not make this process read files outside its folder.
        if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
            raise StateError(f"its index has a file outside the folder: {shown(file)}")
    place = folder.child(file)
    if not place.exists():
        raise TruncatedError(f"{place}: is missing, but has item {shown(item.name)}")
    data = place.read(offset, length)
    return torch_files.read_file(place, lambda: io.BytesIO(data))
