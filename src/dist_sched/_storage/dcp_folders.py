"""Folders of `torch.distributed.checkpoint` (DCP): an index, and the items that it names."""

from __future__ import annotations

import functools
import io
import itertools
import posixpath
from typing import Any

from dist_sched._rules import shown
from dist_sched._storage import pickles, torch_files
from dist_sched._storage.pickles import MAX_KEY, Inert, TruncatedError
from dist_sched._storage.places import Place, reading
from dist_sched._storage.trees import MAX_DEPTH, Items, Leaf
from dist_sched.errors import StateError

INDEXES = (".metadata", "__0.metadata")
"""Names of a folder's index; the second if ranks saved without collectives."""

MAX_ITEM = 2**26
"""Bytes of the longest item that is read: a scheduler's are a thousandth of it."""


def read_folder(index: Place) -> Any:
    """Read the index of a DCP folder as a tree of names; no item is read yet.

    Args:
        index: The folder's `.metadata`.

    Raises:
        TruncatedError: The index was not written to its end.
        StateError: It is no such index, or holds what is not data.
    """
    size = index.size()
    if size > pickles.MAX_SIZE:
        raise StateError(f"{index}: has {size} bytes, and {pickles.MAX_SIZE} are read at most")
    with reading(index):
        match pickles.read(index.read(0, size)):
            case Inert(
                state={"state_dict_metadata": dict(kinds), "storage_data": dict(stored), **rest}
            ):
                paths: Any = rest.get("planner_data") or {}
            case _:
                raise StateError("is no index of a DCP folder")
        folder = Place(index.files, posixpath.dirname(index.path))
        named = [(key.attribute("fqn"), info) for key, info in stored.items()]
        infos = {name: info for name, info in named if isinstance(name, str)}
        root: dict[Any, Any] = {}
        for name, kind in kinds.items():
            leaf = Leaf(functools.partial(_item, folder, name, kind, infos.get(name)))
            # A planner that does not flatten writes no paths: there the names are all there is.
            _plant(root, paths.get(name) or tuple(str(name).split(".")), leaf)
    return root


def _plant(node: Any, path: Any, leaf: Leaf) -> None:
    """Put a leaf into a tree, under a path of names and of indices of lists."""
    parts = path if isinstance(path, tuple) else ()
    is_path = all(isinstance(p, str) or (type(p) is int and 0 <= p < MAX_KEY) for p in parts)
    if not is_path or not 0 < len(parts) <= MAX_DEPTH:
        raise StateError("it has an item whose path is no short tuple of names")
    for part, following in itertools.pairwise(path):
        fresh = Items() if isinstance(following, int) else {}
        node = node.setdefault(part, fresh) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise StateError(f"its item {shown(path)} lies under another item")
    node[path[-1]] = leaf


def _item(folder: Place, name: str, kind: Any, info: Any) -> Any:
    """Read one item of a folder; a tensor only if it holds one number."""
    with reading(folder):
        size = kind.attribute("size")
        is_number = isinstance(size, Inert) and size.arguments in ((), ((),))
        if not (is_number or kind.name.endswith(".BytesStorageMetadata")):
            return kind
        if not isinstance(info, Inert):
            raise StateError(f"its index does not say where item {shown(name)} lies")
        file, offset, length = map(info.attribute, ("relative_path", "offset", "length"))
        if info.attribute("transform_descriptors"):
            raise StateError(f"item {shown(name)} was compressed or encrypted when it was written")
        if not (type(offset) is type(length) is int and offset >= 0 and 0 <= length <= MAX_ITEM):
            raise StateError(
                f"item {shown(name)} declares {shown(length)} bytes at {shown(offset)}"
            )
        parts = file.split("/") if isinstance(file, str) else [""]
        # An index from somewhere else must not make this process read files outside its folder.
        if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
            raise StateError(f"its index leads out of it, to {shown(file)}")
    place = folder.child(file)
    if not place.exists():
        raise TruncatedError(f"{place}: is missing, and item {shown(name)} lies in it")
    data = place.read(offset, length)
    return torch_files.read_file(place, lambda: io.BytesIO(data))
