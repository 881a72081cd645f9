"""Trees: the contents of files and folders as nested dicts and lists, read on demand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched._storage.index_items import MAX_DEPTH
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PARTS = 10**6
"""Maximum number of values in a state. A LambdaLR's over 10,000 groups has 30,000."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An item in storage that has not been read yet."""

    read: Callable[[], Any]


class Items(dict[int, Any]):
    """The items of a list by index. DCP stores the items of a list with tensors one by one."""


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the parts of a node."""
    items: Any = node.items() if isinstance(node, dict) else ()
    items = enumerate(node) if isinstance(node, list | tuple) else items
    yield from ((str(key), part) for key, part in items if isinstance(key, str | int))


def plain(root: Any) -> Any:
    """Read all leaves of a part of a tree, and return it as plain dicts, lists and values.

    Raises:
        StateError: It is much larger, or nested much deeper, than a scheduler's state.
    """
    # A kilobyte of pickle can have forty lists, each with the one before twice: 2**40 copies.
    count = itertools.count(1)

    def copied(value: Any, depth: int) -> Any:
        if next(count) > MAX_PARTS or depth > MAX_DEPTH:
            raise StateError("is too large, or nested too deeply, for a scheduler's state")
        while isinstance(value, Leaf):
            value = value.read()
        if isinstance(value, dict):
            copy = {key: copied(part, depth + 1) for key, part in value.items()}
            return [copy[index] for index in sorted(copy)] if isinstance(value, Items) else copy
        if isinstance(value, list | tuple):
            return type(value)(copied(part, depth + 1) for part in value)
        return value

    return copied(root, 0)
