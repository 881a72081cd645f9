"""Rules for single values, and the texts of their errors.

A rule takes a name and a value. It returns the value as a plain Python object, or raises a
`ConfigError` with the name, the value and what is allowed.
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
from typing import TYPE_CHECKING, Any, ParamSpec, TypeGuard, TypeVar

from dist_sched._words import normal, translated
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

Number = int | float
Entry = int | float | str | None
T = TypeVar("T")
P = ParamSpec("P")

_BRIEF = reprlib.Repr()
# Each further level of nested lists multiplies the work.
_BRIEF.maxlevel = 3
_BRIEF.maxlist = _BRIEF.maxtuple = _BRIEF.maxdict = 12
_BRIEF.maxset = _BRIEF.maxfrozenset = _BRIEF.maxdeque = 12
_BRIEF.maxstring = _BRIEF.maxother = 200

MAX_VALUES = 10**6
"""Maximum number of values in a config or a state: the longest schedule has 800,000."""

MAX_DEPTH = 32
"""Maximum number of nested levels in a config or a state."""

MAX_LENGTH = 2**53
"""The largest length and position: above it, floats skip whole numbers."""

MAX_RATE = sys.float_info.max / MAX_LENGTH
"""The largest value of a schedule. Values are multiplied by positions, which must not overflow."""

SHOWN = 200
"""Maximum number of characters of an invalid value that a message shows."""

MOST = 2_000
"""Maximum number of characters of the problems that an error lists. The rest is counted."""

_LISTED = 30
"""Maximum number of names or problems that a message lists."""

_COMPARED = 1_000
"""Maximum number of known names that are compared with a misspelt one."""

_LONGEST_WORD = 100
"""Maximum number of characters of a name that are compared."""

_SCALARS = frozenset({int, float, str, bool, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def plain(value: object) -> object:
    """Return the Python number of a numpy scalar or a 0-dim tensor, and other values unchanged."""
    try:
        is_scalar = getattr(value, "ndim", None) == 0
        found: object = value.item() if is_scalar else value  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - such as a tensor on the meta device, which has no data
        return value
    return found


def number(name: str, value: object) -> int | float:
    """Return a finite number >= 0 as a plain int or float, or raise.

    Raises:
        ConfigError: The value is anything else, such as a bool or a string.

    Examples:
        >>> number("max_lr", 1), number("max_lr", 0.5)
        (1, 0.5)
    """
    try:
        # isinstance would take longer, and a schedule may have hundreds of thousands of numbers.
        is_plain = type(value) is float or type(value) is int
        exact: int | float = value if is_plain else _exact(name, value)  # type: ignore[assignment]
        if exact >= 0 and math.isfinite(exact):
            return exact
    except OverflowError:  # an int too large for a float
        pass
    raise illegal(name, value, "must be a finite number >= 0")


def _exact(name: str, value: object) -> int | float:
    # A bool is an int in Python, but a mistake here.
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise illegal(name, value, "must be a number")
    return int(found) if isinstance(found, numbers.Integral) else float(found)


def rate(name: str, value: object) -> float:
    """Return a number from 0 to `MAX_RATE` as a float, or raise a ConfigError."""
    found = float(number(name, value))
    if found > MAX_RATE:
        raise illegal(name, value, f"must be at most {MAX_RATE:.1e}: values above it may overflow")
    return found


def finite(name: str, value: object) -> Number:
    """Return a finite number, which may be negative, as a plain int or float, or raise."""
    with contextlib.suppress(OverflowError):  # an int too large for a float
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
    """Return a length in units, or raise. Fractions are allowed, as Megatron computes some."""
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
    """Return a decorator that refuses arguments of a length between 0 and 1.

    Use it for public functions, whose callers may mean 3 % of the horizon by 0.03. Call the
    function that `inspect.unwrap` returns with lengths that were computed or read from a file.

    Args:
        *names: Arguments that are lengths, or lists of lengths. Keys of these names are checked in
            arguments that are mappings, too.
        horizon: The argument that the error tells to multiply a fraction by.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = tuple(inspect.signature(function).parameters)
        undecorated: Callable[..., T] = function

        def readable(name: str, value: object) -> object:
            # An iterator can be read only once, and the function reads it after us.
            return tuple(value) if name in names and isinstance(value, Iterator) else value

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            named = [readable(*pair) for pair in zip(parameters, args, strict=False)]
            by_place = [*named, *args[len(parameters) :]]
            by_name = {name: readable(name, value) for name, value in kwargs.items()}
            arguments = {**dict(zip(parameters, by_place, strict=False)), **by_name}
            refuse_shares(_lengths(names, arguments), horizon)
            return undecorated(*by_place, **by_name)

        return call

    return decorate


def _lengths(names: tuple[str, ...], arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments of these names, then the keys of these names in mappings."""
    found = {name: value for name, value in arguments.items() if name in names}
    for argument, value in arguments.items():
        if isinstance(value, Mapping):
            found |= {f"{argument}[{key!r}]": value[key] for key in value if key in names}
    return found


def known_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its TypeError for an unknown argument suggests a known one."""
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
    """Raise an error with both possible meanings if a length is between 0 and 1."""
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
    """Return the numbers of a list, the first number of each pair of a list, or a single number."""
    found: Any = plain(value)
    if is_list(found):
        return [plain(one[0] if _is_row(one) else one) for one in found]
    return [found]


def _is_row(value: Any) -> bool:
    """Return whether a value is a list, a tuple or a 1-dim array, and not empty."""
    return (isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1) and len(value) > 0


def _two_meanings(name: str, length: Any, horizon: str) -> str:
    share = float(length)
    percent = f"{share * 100:g}%"
    if name == horizon:
        return (
            f"{name}={share!r}: a horizon below 1 could mean {percent} of the run (write {share} * "
            f'the length of the run in units) or {share} units (write "{share}" in a config file)'
        )
    return (
        f"{name}={share!r}: a length below 1 could mean {percent} of the horizon (write {share} * "
        f'{horizon}, or "{percent}" in a config file) or {share} units (write "{share}" in a '
        "config file)"
    )


def text(name: str, value: object) -> str:
    """Return a string that is not empty, or raise."""
    if not isinstance(value, str) or not value:
        raise illegal(name, value, "must be a non-empty string")
    return str(value)


def whole(name: str, value: object) -> int:
    """Return a whole number of units, such as a position or an increment, or raise.

    Examples:
        >>> whole("position", 7)
        7
    """
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise illegal(name, value, "must be a whole number of units")
    # Sums of numpy's integers could overflow.
    found = operator.index(found)
    if not 0 <= found <= MAX_LENGTH:
        raise illegal(name, value, "must be from 0 to 2**53 units")
    return found


def count(name: str, value: object) -> int:
    """Return a whole number >= 0 that does not count units, such as a number of calls, or raise."""
    try:
        return whole(name, value)
    except ConfigError:
        raise illegal(name, value, "must be a whole number >= 0") from None


def real(name: str, value: object) -> float:
    """Return any number as a float, including NaN and infinities, or raise.

    Examples:
        >>> real("metric", -1), real("metric", float("inf"))
        (-1.0, inf)
    """
    try:
        return float(_exact(name, value))
    except OverflowError:  # an int too large for a float
        raise illegal(name, value, "must be at most 1.8e308") from None


def one_of(words: tuple[str, ...]) -> Callable[[str, object], str]:
    """Return a rule that a value is one of these words."""

    def check(name: str, value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise illegal(name, value, f"must be one of {listed(words)}{near_miss(value, words)}")
        return str(value)

    return check


def optional(rule: Callable[[str, object], T]) -> Callable[[str, object], T | None]:
    """Return a rule that also allows None."""

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


def is_list(value: object) -> TypeGuard[Iterable[Any]]:
    """Return whether a value is a list of any kind, and not a text, a mapping or a number."""
    # A 0-dim array or tensor looks iterable, and raises when it is iterated.
    is_iterable = isinstance(value, Iterable) and getattr(value, "ndim", 1) != 0
    return is_iterable and not isinstance(value, str | Mapping)


def near_miss(value: object, known: Iterable[str]) -> str:
    """Return `; did you mean …?` for a misspelt word or another library's word, or ""."""
    if not isinstance(value, str):
        return ""
    # difflib takes quadratic time, and a file may have many long names.
    word = value[:_LONGEST_WORD]
    by_normal = {normal(name): name for name in known if len(name) <= _LONGEST_WORD}
    same = by_normal.get(normal(word))
    if same is None and (found := translated(word, by_normal.values())):
        return found
    compared = itertools.islice(by_normal.values(), _COMPARED)
    close = [same] if same else difflib.get_close_matches(word, compared, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[str]) -> str:
    """Return words as an error lists them: only the first ones of very many."""
    found = list(words)
    return joined(map(shown, found[:_LISTED]), ", ", most=1_000, total=len(found))


def joined(texts: Iterable[str], separator: str, most: int, total: int | None = None) -> str:
    """Join texts up to a maximum length, and count the rest.

    Args:
        texts: The texts, or the first ones of very many.
        separator: Text between two of them.
        most: Approximate maximum length of the result in characters.
        total: Number of texts, if `texts` has only the first ones.

    Examples:
        >>> joined(["one", "two", "three", "four"], ", ", most=10)
        'one, two, and 2 more'
    """
    found = list(texts)
    lengths = itertools.accumulate(len(text) + len(separator) for text in found)
    kept = max(1, sum(length <= most for length in lengths))
    left = (len(found) if total is None else total) - kept
    return separator.join([*found[:kept], *([f"and {left} more"] if left > 0 else [])])


def illegal(name: str, value: object, rule: str) -> ConfigError:
    """Return a ConfigError for a value that breaks a rule."""
    return ConfigError(f"{brief(name)}={shown(value)}: {rule}")


def shown(value: object) -> str:
    """Return the repr of any value as one line, cut to `SHOWN` characters."""
    try:
        if isinstance(value, str | bytes | bytearray):
            text = repr(value[: SHOWN + 1])
        elif isinstance(value, _CONTAINERS):
            text = _BRIEF.repr(value)
        elif isinstance(value, Mapping):
            text = _BRIEF.repr(dict(itertools.islice(value.items(), SHOWN)))
        else:
            text = repr(value)
    except Exception:  # noqa: BLE001 - such as an int of over 4,300 digits
        return f"({type(value).__name__})"
    return brief(text)


def brief(text: str, most: int = SHOWN) -> str:
    """Return a text as one line, cut to a number of characters.

    Examples:
        >>> brief("abc", 2)
        'ab...'
    """
    is_long = len(text) > most
    lines = text[:most].splitlines()
    line = " ".join(map(str.strip, lines)) if len(lines) > 1 else text[:most]
    return f"{line}..." if is_long else line


def distinct(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dict of pairs, whose names must differ.

    json and PyYAML would silently keep the last value of a repeated name.

    Raises:
        ValueError: A name appears twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[Any] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{shown(name)} appears twice")
            seen.add(name)
    return found


def refuse_large(data: object) -> None:
    """Raise if data is nested too deeply, or has more values than a config or a state can have.

    Call it before anything else reads the data. A YAML file of a few hundred bytes can reference
    the same lists again and again, which expands to billions of values.
    """
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if not isinstance(node, Mapping | list | tuple | set | frozenset):
            return 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
        found = sizes.get(id(node))
        if found is None:
            found = 1 + len(node)
            for part in node.values() if isinstance(node, Mapping) else node:
                if found <= MAX_VALUES and type(part) not in _SCALARS:
                    found += size(part, depth + 1) - 1
            sizes[id(node)] = found
        if found > MAX_VALUES:
            raise ConfigError(
                f"has more than {MAX_VALUES:,} values, where a shared value counts once a reference"
            )
        return found

    size(data, 0)


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Prefix the message of a `ConfigError` that is raised inside with its place."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def refuse_unknown(
    names: Iterable[object], known: Iterable[str], rule: str = "is not known here"
) -> None:
    """Raise if a name is not known."""
    known = dict.fromkeys(known)
    for name in names:
        if name not in known:
            raise ConfigError(f"{shown(name)} {rule}{near_miss(name, known)}")


def refuse(problems: Iterable[str]) -> None:
    """Raise one error that lists the problems, if there are any: only the first of very many."""
    found = iter(problems)
    if first := list(itertools.islice(found, _LISTED)):
        # Not counted, since building each further problem searches for similar names.
        more = ["and more"] if any(True for _ in found) else []
        raise ConfigError("; ".join([joined(first, "; ", most=MOST), *more]))
