"""Trees: what files and folders hold, as nested dicts and lists whose leaves are read on demand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEPTH = 32
MAX_PARTS = 10**6
"""Values in a state, at most: that of a LambdaLR over 10,000 groups has 30,000."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """An item that lies in storage and was not read yet."""

    read: Callable[[], Any]


class Items(dict[int, Any]):
    """The parts of a list by index; DCP stores those of a list that holds tensors one by one."""


def children(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a node by name."""
    items: Any = node.items() if isinstance(node, dict) else ()
    items = enumerate(node) if isinstance(node, list | tuple) else items
    yield from ((str(key), part) for key, part in items if isinstance(key, str | int))


def plain(root: Any) -> Any:
    """Read all leaves of a part of a tree, and return it as plain dicts, lists and values.

    Raises:
        StateError: It is far larger, or nested far deeper, than a scheduler's state.
    """
    # Forty lists that hold the one before twice are a kilobyte in a pickle, and 2**40 copies.
    count = itertools.count(1)

    def copied(value: Any, depth: int) -> Any:
        if next(count) > MAX_PARTS or depth > MAX_DEPTH:
            raise StateError("what stands there is too large, or nested too deeply, for a state")
        while isinstance(value, Leaf):
            value = value.read()
        if isinstance(value, dict):
            copy = {key: copied(part, depth + 1) for key, part in value.items()}
            return [copy[index] for index in sorted(copy)] if isinstance(value, Items) else copy
        if isinstance(value, list | tuple):
            return type(value)(copied(part, depth + 1) for part in value)
        return value

    return copied(root, 0)
