"""Reading a block of another library's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dist_sched._curves.schedule import MOST_PHASES
from dist_sched._rules import illegal, listed, mapping, rate, refuse_unknown, whole
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUIRED = object()
"""The default of a required key."""


class Key(NamedTuple):
    """A key of another library's config, with its rule and its default."""

    rule: Callable[[str, Any], Any]
    default: Any = None


def read(
    block: object, keys: Mapping[str, Key], *, refused: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a checked value for every key, or its default if it is missing or null.

    Args:
        block: The block that the user has copied from the other library's config.
        keys: The keys that are supported.
        refused: Keys of the other library that are not supported, each with the reason.

    Raises:
        ConfigError: A key is unknown, refused or missing, or a value is invalid.
    """
    given = mapping("block", block)
    refused = refused or {}
    for name in given:
        if name in refused:
            raise illegal(str(name), given[name], refused[name])
    rule = f"must be one of {listed(keys)}" if keys else "there are none"
    refuse_unknown(given, keys, f"is not known here; {rule}")
    missing = [
        name for name, key in keys.items() if key.default is REQUIRED and given.get(name) is None
    ]
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}")
    return {
        name: key.default if given.get(name) is None else key.rule(name, given[name])
        for name, key in keys.items()
    }


def steps(name: str, value: object) -> int:
    """Return a whole number of steps, at least 1, or raise."""
    found = whole(name, value)
    if not found:
        raise illegal(name, value, "must be at least 1")
    return found


def share(name: str, value: object) -> float:
    """Return a number from 0 to 1, or raise."""
    found = rate(name, value)
    if found > 1:
        raise illegal(name, value, "must be from 0 to 1")
    return found


def entries(name: str, value: object) -> list[Any]:
    """Return a list that is not empty, or raise."""
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_PHASES:
        raise illegal(name, value, f"must be a list of 1 to {MOST_PHASES:,} entries")
    return list(value)


def one_given(values: Mapping[str, Any], *names: str) -> str:
    """Return the only one of some keys that has a value, or raise if none or several have one."""
    given = [name for name in names if values[name] is not None]
    if len(given) != 1:
        found = f"has {' and '.join(given)}" if given else "has none"
        raise ConfigError(f"{found} of {listed(names)}; pass exactly one of them")
    return given[0]
