"""Folders of `torch.distributed.checkpoint` (DCP): an index and its items."""

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
"""File names of a folder's index. The second is for ranks that saved without collectives."""

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
    if size > pickles.MAX_SIZE:
        raise StateError(f"{index}: has {size} bytes; at most {pickles.MAX_SIZE} can be read")
    with reading(index):
        match pickles.read(index.read(0, size)):
            case Inert(
                state={"state_dict_metadata": dict(kinds), "storage_data": dict(stored), **rest}
            ):
                paths: Any = rest.get("planner_data") or {}
            case _:
                raise StateError("is not an index of a DCP folder")
        folder = Place(index.files, posixpath.dirname(index.path))
        named = [(key.attribute("fqn"), info) for key, info in stored.items()]
        infos = {name: info for name, info in named if isinstance(name, str)}
        root: dict[Any, Any] = {}
        for name, kind in kinds.items():
            leaf = Leaf(functools.partial(_item, folder, name, kind, infos.get(name)))
            # Without a flattening planner there are names, but no paths.
            _plant(root, paths.get(name) or tuple(str(name).split(".")), leaf)
    return root


def _plant(node: Any, path: Any, leaf: Leaf) -> None:
    """Put a leaf into a tree, at a path of names and list indices."""
    parts = path if isinstance(path, tuple) else ()
    is_path = all(isinstance(p, str) or (type(p) is int and 0 <= p < MAX_KEY) for p in parts)
    if not is_path or not 0 < len(parts) <= MAX_DEPTH:
        raise StateError("it has an item whose path is not a short tuple of names")
    for part, following in itertools.pairwise(path):
        fresh = Items() if isinstance(following, int) else {}
        node = node.setdefault(part, fresh) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise StateError(f"its item {shown(path)} is inside another item")
    node[path[-1]] = leaf


def _item(folder: Place, name: str, kind: Any, info: Any) -> Any:
    """Read one item of a folder. Tensors are read only if they have a single number."""
    with reading(folder):
        size = kind.attribute("size")
        is_number = isinstance(size, Inert) and size.arguments in ((), ((),))
        if not (is_number or kind.name.endswith(".BytesStorageMetadata")):
            return kind
        if not isinstance(info, Inert):
            raise StateError(f"its index does not have the place of item {shown(name)}")
        file, offset, length = map(info.attribute, ("relative_path", "offset", "length"))
        if info.attribute("transform_descriptors"):
            raise StateError(f"item {shown(name)} was compressed or encrypted when it was written")
        if not (type(offset) is type(length) is int and offset >= 0 and 0 <= length <= MAX_ITEM):
            raise StateError(
                f"item {shown(name)} declares {shown(length)} bytes at {shown(offset)}"
            )
        parts = file.split("/") if isinstance(file, str) else [""]
        # An untrusted index must not make this process read files outside its folder.
        if any(part in {"", ".", ".."} or "\\" in part or ":" in part for part in parts):
            raise StateError(f"its index has a file outside the folder: {shown(file)}")
    place = folder.child(file)
    if not place.exists():
        raise TruncatedError(f"{place}: is missing, but has item {shown(name)}")
    data = place.read(offset, length)
    return torch_files.read_file(place, lambda: io.BytesIO(data))
