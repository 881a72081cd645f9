"""Rules for single values, and how an error says that one is broken.

A rule takes a name and a value. It returns the value as a plain Python one, or raises a
`ConfigError` that names both and says what would be legal.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import itertools
import math
import numbers
import operator
import reprlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dist_sched._words import normal, translated
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Number = int | float
Entry = int | float | str | None
T = TypeVar("T")
P = ParamSpec("P")

_BRIEF = reprlib.Repr()
# Of lists in lists, a level more multiplies the work by what is shown of each.
_BRIEF.maxlevel = 3
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 12
_BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxdeque = 12
_BRIEF.maxstring = _BRIEF.maxother = 200

MAX_VALUES = 10**6
"""Values in a config or a state, at most: the longest schedule has 800,000."""

MAX_DEPTH = 32
"""Levels in a config or a state, at most."""

MAX_LENGTH = 2**53
"""The largest length and position: above it, floats skip whole numbers."""

MAX_RATE = sys.float_info.max / MAX_LENGTH
"""The largest value of a schedule: it is multiplied by positions."""

SHOWN = 200
"""How many characters of an illegal value a message shows."""

MOST = 2_000
"""How many characters of an error list what is wrong; the rest is counted."""

_LISTED = 30
"""How many names or problems a message lists."""

_COMPARED = 1_000
"""How many known names are compared with a misspelt one."""

_LONGEST_WORD = 100
"""How many characters of a misspelt name are compared, and of the known ones."""

_SCALARS = frozenset({int, float, str, bool, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def plain(value: object) -> object:
    """Return the Python number in a numpy scalar or a 0-dim tensor; any other value as it is."""
    try:
        is_scalar = getattr(value, "ndim", None) == 0
        found: object = value.item() if is_scalar else value  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - a tensor without data, on the meta device, for one
        return value
    return found


def number(name: str, value: object) -> int | float:
    """Return a finite number >= 0 as a plain int or float, or raise.

    Raises:
        ConfigError: The value is anything else, a bool or a text among them.

    >>> number("max_lr", 1), number("max_lr", 0.5)
    (1, 0.5)
    """
    try:
        # isinstance would take longer, and a schedule may have hundreds of thousands of numbers.
        is_plain = type(value) is float or type(value) is int
        exact: int | float = value if is_plain else _exact(name, value)  # type: ignore[assignment]
        if exact >= 0 and math.isfinite(exact):
            return exact
    except OverflowError:  # a whole number beyond all floats
        pass
    raise illegal(name, value, "must be a finite number >= 0")


def _exact(name: str, value: object) -> int | float:
    # A bool is an int to Python, and a mistake here.
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise illegal(name, value, "must be a number")
    return int(found) if isinstance(found, numbers.Integral) else float(found)


def rate(name: str, value: object) -> float:
    """Return a number from 0 to `MAX_RATE` as a float, or raise."""
    found = float(number(name, value))
    if found > MAX_RATE:
        raise illegal(name, value, f"must be at most {MAX_RATE:.1e}: values above it may overflow")
    return found


def finite(name: str, value: object) -> Number:
    """Return a finite number, which may be negative, as a plain int or float, or raise."""
    with contextlib.suppress(OverflowError):  # of a whole number beyond all floats
        found = _exact(name, value)
        if math.isfinite(found):
            return found
    raise illegal(name, value, "must be a finite number")


def positive(name: str, value: object) -> float:
    """Return a number above 0 and up to `MAX_RATE` as a float, or raise."""
    found = rate(name, value)
    if found == 0:
        raise illegal(name, value, "must be greater than 0")
    return found


def length(name: str, value: object) -> int | float:
    """Return a length in units, or raise; Megatron's warmup fraction makes fractions legal."""
    found = number(name, value)
    if found > MAX_LENGTH:
        raise illegal(name, value, "must be at most 2**53 units")
    return found


def some(name: str, value: object) -> int | float:
    """Return a length greater than 0, or raise."""
    positive(name, value)
    return length(name, value)


def typed_lengths(
    *names: str, horizon: str = "horizon"
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that refuses lengths between 0 and 1 among a function's arguments.

    It is for what people call: 0.03 may be meant as 3 % of the horizon. Lengths that were computed,
    or read from a file or a state, go to the function that `inspect.unwrap` returns.

    Args:
        *names: The arguments that are lengths, or lists of them. An argument that is a mapping may
            have some too.
        horizon: The argument that shares are multiplied with.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = tuple(inspect.signature(function).parameters)
        untyped: Callable[..., T] = function

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            given = {**dict(zip(parameters, args, strict=False)), **kwargs}
            # An iterator can be read only once.
            again = {
                name: tuple(value) if isinstance(value, Iterator) else value
                for name, value in given.items()
                if name in names
            }
            found = dict(again)
            for name, value in given.items():
                if isinstance(value, Mapping):
                    inner = {key: value[key] for key in value if key in names}
                    found |= {f"{name}[{key!r}]": one for key, one in inner.items()}
            refuse_shares(found, horizon)
            by_place = [again.get(*pair) for pair in zip(parameters, args, strict=False)]
            by_name = {name: again.get(name, value) for name, value in kwargs.items()}
            return untyped(*by_place, *args[len(parameters) :], **by_name)

        return call

    return decorate


def known_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its TypeError for an unknown argument names the near miss."""
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in (name for name in kwargs if name not in parameters):
            close = translated(name, parameters) if takes_any else near_miss(name, parameters)
            if close or not takes_any:
                message = f"{function.__qualname__}() got an unexpected keyword argument"
                raise TypeError(f"{message} {name!r}{close}")
        return function(*args, **kwargs)

    return call


def refuse_shares(lengths: Mapping[str, object], horizon: str = "horizon") -> None:
    """Raise where a length is between 0 and 1, and say what it could mean."""
    refuse(
        [
            _two_meanings(name, one, horizon)
            for name, value in lengths.items()
            for one in _each(value)
            if _is_share(one)
        ]
    )


def _is_share(value: Any) -> bool:
    return isinstance(value, numbers.Real) and bool(value < 1) and not value <= 0


def _each(value: object) -> list[Any]:
    """Return the numbers of a list, or one alone; of pairs, the first of each."""
    found: Any = plain(value)
    # A tensor without data is iterable by its class alone.
    is_list = isinstance(found, Iterable) and getattr(found, "ndim", 1) != 0
    if is_list and not isinstance(found, str | Mapping):
        return [plain(one[0] if _is_row(one) else one) for one in found]
    return [found]


def _is_row(value: Any) -> bool:
    """Return whether a value is a list, a tuple or an array of numbers, and not empty."""
    return (isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1) and len(value) > 0


def _two_meanings(name: str, length: Any, horizon: str) -> str:
    share = float(length)
    percent = f"{share * 100:g}%"
    if name == horizon:
        return (
            f"{name}={share!r}: a horizon below 1 could mean {percent} of the run (write {share} * "
            f'its length in units) or {share} of a unit (write "{share}" in a config file)'
        )
    return (
        f"{name}={share!r}: a length below 1 could mean {percent} of the horizon (write {share} * "
        f'{horizon}, or "{percent}" in a config file) or {share} of a unit (write "{share}" in a '
        "config file)"
    )


def text(name: str, value: object) -> str:
    """Return a text that is not empty, or raise."""
    if not isinstance(value, str) or not value:
        raise illegal(name, value, "must be a text")
    return str(value)


def whole(name: str, value: object) -> int:
    """Return a whole number of units, such as a position or an increment, or raise.

    >>> whole("position", 7)
    7
    """
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise illegal(name, value, "must be a whole number of units")
    # numpy's integers have a range, in which sums of positions would overflow.
    found = operator.index(found)
    if not 0 <= found <= MAX_LENGTH:
        raise illegal(name, value, "must be from 0 to 2**53 units")
    return found


def count(name: str, value: object) -> int:
    """Return a whole number >= 0 of what is no unit, such as calls, or raise."""
    try:
        return whole(name, value)
    except ConfigError:
        raise illegal(name, value, "must be a whole number >= 0") from None


def real(name: str, value: object) -> float:
    """Return any number as a float, NaN and infinities too, or raise.

    >>> real("metric", -1), real("metric", float("inf"))
    (-1.0, inf)
    """
    try:
        return float(_exact(name, value))
    except OverflowError:  # a whole number beyond all floats
        raise illegal(name, value, "must be at most 1.8e308") from None


def one_of(words: tuple[str, ...]) -> Callable[[str, object], str]:
    """Return the rule that a value is one of these words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise illegal(name, value, f"must be one of {listed(words)}{near_miss(value, words)}")
        return str(value)

    return check


def optional(rule: Callable[[str, object], T]) -> Callable[[str, object], T | None]:
    """Return a rule that admits None too."""

    def check(name: str, value: object) -> T | None:
        return None if value is None else rule(name, value)

    return check


def flag(name: str, value: object) -> bool:
    """Return a bool, or raise."""
    if not isinstance(value, bool):
        raise illegal(name, value, "must be True or False")
    return value


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Return a mapping, or raise."""
    if not isinstance(value, Mapping):
        raise illegal(name, value, "must be a mapping")
    return value


def near_miss(value: object, known: Iterable[str]) -> str:
    """Return `; did you mean …?` for a misspelt word or another library's, or an empty text."""
    if not isinstance(value, str):
        return ""
    # difflib takes quadratic time, and a file can hold texts of any length and number.
    word = value[:_LONGEST_WORD]
    by_normal = {normal(name): name for name in known if len(name) <= _LONGEST_WORD}
    same = by_normal.get(normal(word))
    if same is None and (found := translated(word, by_normal.values())):
        return found
    compared = itertools.islice(by_normal.values(), _COMPARED)
    close = [same] if same else difflib.get_close_matches(word, compared, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[str]) -> str:
    """Return words as an error lists them; of very many, the first."""
    found = list(words)
    return joined(map(shown, found[:_LISTED]), ", ", most=1_000, total=len(found))


def joined(texts: Iterable[str], separator: str, most: int, total: int | None = None) -> str:
    """Return texts as one of about so many characters; those beyond it are counted.

    Args:
        texts: The first of them, if there are very many.
        separator: What stands between two.
        most: Characters.
        total: How many there are, if not all are given.

    >>> joined(["one", "two", "three", "four"], ", ", most=10)
    'one, two, and 2 more'
    """
    found = list(texts)
    lengths = itertools.accumulate(len(text) + len(separator) for text in found)
    kept = max(1, sum(length <= most for length in lengths))
    left = (len(found) if total is None else total) - kept
    return separator.join([*found[:kept], *([f"and {left} more"] if left > 0 else [])])


def illegal(name: str, value: object, rule: str) -> ConfigError:
    """Return the error that a value breaks a rule."""
    return ConfigError(f"{brief(name)}={shown(value)}: {rule}")


def shown(value: object) -> str:
    """Return a value's repr in one line, cut short, since a checkpoint can hold anything."""
    try:
        if isinstance(value, str | bytes | bytearray):
            text = repr(value[: SHOWN + 1])
        elif isinstance(value, _CONTAINERS):
            text = _BRIEF.repr(value)
        elif isinstance(value, Mapping):
            text = _BRIEF.repr(dict(itertools.islice(value.items(), SHOWN)))
        else:
            text = repr(value)
    except Exception:  # noqa: BLE001 - a number of over 4,300 digits, for one
        return f"({type(value).__name__})"
    return brief(text)


def brief(text: str, most: int = SHOWN) -> str:
    """Return a text in one line, cut short.

    >>> brief("abc", 2)
    'ab...'
    """
    is_long = len(text) > most
    lines = text[:most].splitlines()
    line = " ".join(map(str.strip, lines)) if len(lines) > 1 else text[:most]
    return f"{line}..." if is_long else line


def distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dict of pairs with different names; json and PyYAML keep the last of two values.

    Raises:
        ValueError: A name stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[Any] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{shown(name)} stands twice")
            seen.add(name)
    return found


def refuse_large(data: object) -> None:
    """Raise where data is nested too deeply, or has more values than a config or a state can have.

    Count it before it is used: ten lists, each of which holds the one before nine times, are a few
    hundred bytes in a file, and billions of values to whoever goes through them.
    """
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if not isinstance(node, Mapping | list | tuple | set | frozenset):
            return 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels, or holds itself")
        found = sizes.get(id(node))
        if found is None:
            found = 1 + len(node)
            for part in node.values() if isinstance(node, Mapping) else node:
                if found <= MAX_VALUES and type(part) not in _SCALARS:
                    found += size(part, depth + 1) - 1
            sizes[id(node)] = found
        if found > MAX_VALUES:
            raise ConfigError(f"has more than {MAX_VALUES:,} values, counted at each reference")
        return found

    size(data, 0)


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Put where it was before the text of each `ConfigError` that is raised inside."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def refuse_unknown(
    names: Iterable[object], known: Iterable[str], rule: str = "is not known here"
) -> None:
    """Raise where a name is not among those known."""
    known = dict.fromkeys(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"{shown(name)} {rule}{near_miss(name, known)}")


def refuse(problems: Iterable[str]) -> None:
    """Raise one error that names the problems, the first of very many, if there are any."""
    found = iter(problems)
    if first := list(itertools.islice(found, _LISTED)):
        # Not counted, since each of the others would be compared with what is known.
        more = ["and more"] if any(True for _ in found) else []
        raise ConfigError("; ".join([joined(first, "; ", most=MOST), *more]))
