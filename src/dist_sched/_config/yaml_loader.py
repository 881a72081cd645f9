"""The loader of YAML files. It is imported when a file is read, because PyYAML is optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from dist_sched._rules import SHOWN, distinct, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_NODES = 50_000
"""Maximum number of keys and values in a file."""
MAX_INT = 2**60
"""Keys must be below this number. Larger ints can have equal hashes, since ints hash modulo
2**61 - 1, and a dict of many such keys takes quadratic time."""

_MERGE = "tag:yaml.org,2002:merge"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Loader(yaml.SafeLoader):  # type: ignore[misc] # it ships no types
    """A safe loader that also refuses repeated keys, and files that take very long to read.

    A merged key (`<<`) may be repeated.

    Raises:
        ValueError: A key is repeated, or the file is too large. PyYAML raises it, too.
    """

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node and count it."""
        self._count(1)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: ARG002
        """Build a mapping, whose own keys must differ."""
        own = [self.construct_object(key) for key, _ in node.value if key.tag != _MERGE]
        if any(isinstance(name, int) and abs(name) >= MAX_INT for name in own):
            raise ValueError("a key is a number above 2**60")
        distinct([(name, None) for name in own])
        return super().construct_mapping(node, deep=True)

    def flatten_mapping(self, node: Any) -> None:
        """Merge mappings after counting them, because each level may merge the one before twice."""
        for source in _merged(node):
            self.flatten_mapping(source)
            self._count(len(source.value))
        super().flatten_mapping(node)

    def construct_scalar(self, node: Any) -> Any:
        """Return a scalar's text. Very long numbers, which take quadratic time, are refused."""
        found = super().construct_scalar(node)
        if node.tag in _NUMBERS and len(found) > SHOWN:
            raise ValueError(f"{shown(found)} is too long for a number")
        return found

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES:,} keys and values")


def _merged(node: Any) -> Iterator[Any]:
    """Yield the mappings that a mapping merges."""
    for key, value in node.value:
        if key.tag == _MERGE:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from (one for one in sources if isinstance(one, yaml.MappingNode))
