"""Configs as mappings and files, for either scheduler.

There, lengths may be written for people: `"2k"` and `"1.5B"` are units, `0.03` and `"3%"` are parts
of the horizon, and `1` is one unit.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pathlib
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from dist_sched._config.config import unit_word
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.policy import BOOLEANS
from dist_sched._config.specification import Specification
from dist_sched._curves import named
from dist_sched._curves.lint import unfilled_horizon
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import (
    SHOWN,
    brief,
    distinct,
    flag,
    illegal,
    listed,
    mapping,
    optional,
    plain,
    refuse_large,
    refuse_unknown,
    shown,
    some,
    text,
    within,
)
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from dist_sched._config.config import Config
    from dist_sched._config.policy import Policy
    from dist_sched._curves.lint import Finding

_DEFAULTS = {
    "unit": "steps",
    "policy": "checkpoint",
    "keep_group_ratios": True,
    "reference": None,
    "name": None,
}
SETTINGS = tuple(_DEFAULTS)
_SUFFIXES = {"k": 3, "K": 3, "M": 6, "B": 9, "G": 9, "T": 12}
_ENTRY_LENGTHS = frozenset(
    {"lr_decay_steps", "lr_warmup_steps", "wd_incr_steps", "wsd_decay_steps"}
)
_PHASE_LENGTHS = frozenset({"steps", "until", "timescale", "milestones"})
_LENGTHS = _ENTRY_LENGTHS | _PHASE_LENGTHS | named.LENGTHS

_MAX_JSON = 2**23
"""Bytes of the longest JSON file: the longest schedule is shorter."""
_MAX_TOML, _MAX_YAML = 2**20, 2**19
"""Bytes of files whose readers are slow: they need some seconds for as much."""
_MAX_DOTS = 64
"""Dots in a TOML key, at most: its reader takes quadratic time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A config, and the settings beside it."""

    config: Config
    unit: str = "steps"
    """What a position counts."""
    policy: Policy | None = None
    """From `policy`, or from Megatron's two booleans; None where the source has neither."""
    keep_group_ratios: bool = True
    reference: Any = None
    """A group's name, a number, or a mapping from fields to either; checked with the groups."""
    name: str | None = None
    """What tells the scheduler from others on the same ranks."""
    findings: tuple[Finding, ...] = ()
    """What is probably a mistake and shows in the source alone, not in the config."""


def read(source: Mapping[str, Any] | str | os.PathLike[str]) -> Declaration:
    """Read a config from a mapping, or from a file that holds one.

    A mapping with `fields` or `extras` is for `ParamScheduler`: `fields`, `groups`, `extras`,
    `horizon`. Any other is for `OptimizerParamScheduler` and has its entries. Both may have `unit`,
    `policy` and `keep_group_ratios`. docs/configuration.md describes them.

    Args:
        source: The mapping, or the path of a `.json`, `.yaml`, `.yml` or `.toml` file.

    Raises:
        ConfigError: The file cannot be read, a name is unknown or missing, or a value is illegal.
    """
    if isinstance(source, Mapping):
        return _declaration(source)
    if not isinstance(source, str | os.PathLike):
        raise illegal("config", source, "must be a mapping, or a path of a file that holds one")
    with within(brief(os.fsdecode(source), 2 * SHOWN)):
        return _declaration(_load(pathlib.Path(os.fsdecode(source))))


def to_mapping(config: Config, **settings: Any) -> dict[str, Any]:
    """Return a config as a mapping for `read`, with the settings that are not the default."""
    given = {name: value for name, value in settings.items() if value != _DEFAULTS[name]}
    return {**given, **_unambiguous(config.to_dict())}


def _unambiguous(data: Any, name: str = "") -> Any:
    """Write lengths below one unit as texts, since a number would be a part of the horizon."""
    if isinstance(data, Mapping):
        return {key: _unambiguous(one, key) for key, one in data.items() if one is not None}
    if isinstance(data, list):
        return [_unambiguous(one, name) for one in data]
    is_part = isinstance(data, float) and 0 < data < 1 and name in _LENGTHS
    return repr(data) if is_part else data


def _declaration(data: Mapping[str, Any]) -> Declaration:
    with within("config"):
        refuse_large(data)
    rest = {name: value for name, value in data.items() if name not in (*SETTINGS, *BOOLEANS)}
    has_schedules = "fields" in data or "extras" in data
    config = _specification(rest) if has_schedules else _entries(rest)
    booleans = {name: flag(name, data[name]) for name in BOOLEANS if name in data}
    if booleans and isinstance(config, Specification):
        raise ConfigError(f"{listed(booleans)}: give policy instead")
    policy, (use_checkpoint, override) = data.get("policy"), BOOLEANS
    if policy is not None or booleans:
        policy = config.parse_policy(
            policy,
            use_checkpoint=booleans.get(use_checkpoint, True),
            override=booleans.get(override, False),
        )
    return Declaration(
        config=config,
        unit=unit_word("unit", data.get("unit", "steps")),
        policy=policy,
        keep_group_ratios=flag("keep_group_ratios", data.get("keep_group_ratios", True)),
        reference=_reference(data.get("reference")),
        name=optional(text)("name", data.get("name")),
        findings=tuple(_findings(data, config)) if isinstance(config, Specification) else (),
    )


def _entries(data: Mapping[str, Any]) -> OptimizerParamConfig:
    known = (*OptimizerParamConfig.entry_names(), *SETTINGS, *BOOLEANS)
    # First, so that a misspelt 'fields' is named before the groups beside it.
    refuse_unknown(data, (*known, "fields", "groups", "extras", "horizon"))
    refuse_unknown(data, known, "is not known without 'fields'")
    horizon = _horizon(data, name="lr_decay_steps")
    found = dict(data)
    for name, value in data.items():
        if name in _ENTRY_LENGTHS:
            found[name] = amount(name, value, horizon)
        elif not name.endswith("_style"):
            found[name] = number(value)
    return OptimizerParamConfig.from_parts(found)


def _specification(data: Mapping[str, Any]) -> Specification:
    refuse_unknown(data, ("fields", "groups", "extras", "horizon", *SETTINGS))
    horizon = _horizon(data)
    fields = _schedules(data.get("fields", {}), horizon)
    extras = _schedules(data.get("extras", {}), horizon, name="extras")
    groups = {
        pattern: _schedules(overrides, horizon, pattern)
        for pattern, overrides in mapping("groups", data.get("groups", {})).items()
    }
    return Specification(fields=fields, groups=groups, extras=extras)


def _findings(data: Mapping[str, Any], config: Specification) -> Iterator[Finding]:
    """Yield where phases do not fill the horizon that is written beside them.

    The horizon at the top is lr's. Other fields, and extras, may end before it; fields are compared
    with lr.
    """
    outer = _horizon(data)
    base = {**data.get("fields", {}), **data.get("extras", {})}
    sources = [(None, base), *data.get("groups", {}).items()]
    for pattern, written in sources:
        fields = {**config.fields, **config.extras}
        built = fields if pattern is None else config.groups[pattern]
        for field, one in written.items():
            schedule = built[field]
            has_phases = isinstance(one, Mapping) and "phases" in one
            if not has_phases or not isinstance(schedule, Schedule):
                continue
            is_own = one.get("horizon") is not None
            whole = _horizon(one, outer) if is_own or field == "lr" else None
            if whole is not None:
                for finding in unfilled_horizon(schedule, whole):
                    path = Path(field, pattern=pattern)
                    yield replace(finding, message=f"{path}: {finding.message}")


def _horizon(data: Mapping[str, Any], outer: Any = None, name: str = "horizon") -> Any:
    """Return the horizon of a mapping, or else the one around it."""
    given = data.get(name)
    return outer if given is None else some(name, amount(name, given, outer))


def _schedules(
    data: object, horizon: Any, pattern: str | None = None, name: str = "fields"
) -> dict[str, Any]:
    found = {}
    name = name if pattern is None else str(Path("", pattern=pattern))
    for key, one in mapping(name, data).items():
        with within(brief(str(Path(str(key), pattern=pattern)))):
            found[key] = _schedule(one, horizon)
    return found


def _schedule(data: Any, horizon: Any) -> Any:
    """Read a schedule: by name, by phases, in proportion to another, or a number."""
    if not isinstance(data, Mapping):
        return number(data)
    if "schedule" in data:
        return _named(data, horizon)
    if "to" in data:
        refuse_unknown(data, ("peak", "to", "power"))
        if "peak" not in data:
            raise ConfigError("peak is missing")
        return ProportionalTo.from_dict(
            {**data, **{name: number(data[name]) for name in ("peak", "power") if name in data}}
        )
    others = () if "phases" in data else ("schedule", "peak", "to", "power")
    refuse_unknown(data, ("phases", "horizon", *others))
    phases = data.get("phases")
    if not isinstance(phases, list | tuple):
        raise illegal("schedule", data, "must have schedule, phases (a list), or peak and to")
    whole = _horizon(data, horizon)
    return Schedule.from_dict(
        {"phases": [_plain(phase, whole, f"phases[{i}].") for i, phase in enumerate(phases)]}
    )


def _named(data: Mapping[Any, Any], horizon: Any) -> Schedule:
    arguments = {key: value for key, value in data.items() if key not in {"schedule", "horizon"}}
    # A key of YAML may be a number, which Python refuses as a keyword.
    refuse_unknown([name for name in arguments if not isinstance(name, str)], ())
    whole = _horizon(data, horizon)
    given = {} if whole is None else {"horizon": whole}
    build = inspect.unwrap(named.build)
    schedule: Schedule = build(data["schedule"], **given, **_plain(arguments, whole))
    return schedule


def _plain(data: Any, horizon: Any, where: str = "") -> Any:
    """Read the numbers and lengths of a phase, or of a schedule's arguments."""
    if not isinstance(data, Mapping):
        return data
    lengths = _PHASE_LENGTHS if where else named.LENGTHS

    def plain_one(name: str, value: Any) -> Any:
        if name == "warmup_shape" and isinstance(value, Mapping):
            return {key: plain_one(key, one) for key, one in value.items() if one is not None}
        if name == "points" and isinstance(value, list | tuple):
            return [_plain_point(f"points[{i}]", one, horizon) for i, one in enumerate(value)]
        if isinstance(value, list | tuple):
            return [plain_one(name, one) for one in value]
        return amount(f"{where}{name}", value, horizon) if name in lengths else number(value)

    return {name: plain_one(name, value) for name, value in data.items() if value is not None}


def _plain_point(name: str, point: Any, horizon: Any) -> Any:
    """Read a point: a position, which is a length, and a value."""
    match point:
        case [position, value]:
            return [amount(name, position, horizon), number(value)]
        case _:
            return point


def _reference(data: Any) -> Any:
    """Read what ratios are to: names, and numbers as YAML reads them."""
    if isinstance(data, Mapping):
        return {key: number(one) for key, one in data.items()}
    return number(data)


def number(value: Any) -> Any:
    """Return the number that a text holds, as YAML reads `3e-4`; other things as they are.

    >>> number("3e-4")
    0.0003
    """
    if not isinstance(value, str) or len(value) > SHOWN:
        return value
    try:
        return int(value) if value.strip().isdecimal() else float(value)
    except ValueError:
        return value


def amount(name: str, value: Any, horizon: Any) -> Any:
    """Return a length as people write it in units; other things as they are, for rules to refuse.

    >>> amount("warmup", "2k", None), amount("warmup", 0.03, 1000), amount("warmup", "3%", 1000)
    (2000, 30, 30)
    >>> amount("warmup", 1, 1000), amount("warmup", "0.5", 1000)
    (1, 0.5)

    Args:
        name: Of the length, for the error.
        value: A number of units, or a part of the horizon; texts are units, or percents.
        horizon: In units; None where there is none.

    Raises:
        ConfigError: It is a part, and there is no horizon; or a text that is no length.
    """
    value = plain(value)
    if isinstance(value, str):
        written = value.strip()
        if written.endswith("%"):
            return _part(name, value, _decimal(name, value, written[:-1]) / 100, horizon)
        power = _SUFFIXES.get(written[-1:], 0)
        return _plain_number(_decimal(name, value, written[:-1] if power else written) * 10**power)
    if isinstance(value, float) and 0 < value < 1:
        return _part(name, value, Decimal(repr(value)), horizon)
    return value


def _decimal(name: str, value: str, digits: str) -> Decimal:
    try:
        # Of a text of any length, Decimal would keep every digit.
        found = Decimal(digits if len(digits) <= SHOWN else "NaN")
        # 1e999999999 would take hours as a whole number.
        if found.is_finite() and abs(found) < Decimal("1e30"):
            return found
    except ArithmeticError:  # no number, or one beyond all
        pass
    suffixes = listed(_SUFFIXES)
    raise illegal(name, value, f"must be a number of units, with a suffix ({suffixes}) or %")


def _part(name: str, value: Any, part: Decimal, horizon: Any) -> int | float:
    if name in {"horizon", "lr_decay_steps"} and horizon is None:
        raise illegal(name, value, "is the horizon itself, so it cannot be a part of it")
    if horizon is None:
        rule = "is a part of the horizon, which is not given; write units as '0.5'"
        raise illegal(name, value, rule)
    # In decimals, since 0.07 * 100 is above 7 in floats.
    return _plain_number(part * Decimal(repr(some("horizon", horizon))))


def _plain_number(found: Decimal) -> int | float:
    return int(found) if found == found.to_integral_value() else float(found)


def _load(path: pathlib.Path) -> Mapping[str, Any]:
    """Read a file by what its name ends in."""
    parser = _PARSERS.get(path.suffix.lower())
    if parser is None:
        raise ConfigError(f"the name must end in one of {listed(_PARSERS)}")
    try:
        # Editors of Windows begin a file with a byte order mark, which utf-8-sig skips.
        found = parser.parse(_content(path, parser.max_size).decode("utf-8-sig"))
    except ImportError as error:
        raise ConfigError(parser.needs) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}") from error
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"is not valid: {brief(str(error), 2 * SHOWN)}") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f"must hold a mapping, not {shown(found)}")
    return found


def _content(path: pathlib.Path, most: int) -> bytes:
    """Return the bytes of a regular file; a pipe would be waited for, and a device has no end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError("is a pipe, a socket or a device, and must be a file")
    with path.open("rb") as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ConfigError(f"is longer than {most:,} bytes, which is no config")
    return found


def _parse_yaml(text: str) -> Any:
    import yaml

    from dist_sched._config.yaml_loader import Loader

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ArithmeticError, TypeError, LookupError, AttributeError) as error:
        # What PyYAML raises at `!!int ''` or at `!!timestamp x`.
        raise ValueError(f"a tag or a name does not fit: {error!r}") from error


_PARTS = re.compile(r"[^\n,=\[\]{}]+")
_DOT = re.compile(r"\.[ \t]*[^\s.]")


def _parse_toml(text: str) -> Any:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    if any(len(_DOT.findall(part.group())) > _MAX_DOTS for part in _PARTS.finditer(text)):
        raise ValueError(f"has a key of more than {_MAX_DOTS} parts")
    return toml.loads(text)


@dataclass(frozen=True, slots=True)
class _Parser:
    parse: Callable[[str], Any]
    max_size: int
    needs: str = ""
    """What to say where it is not installed."""


_YAML = _Parser(_parse_yaml, _MAX_YAML, "reading YAML needs PyYAML: pip install 'dist-sched[yaml]'")
_TOML = _Parser(
    _parse_toml, _MAX_TOML, "reading TOML on Python 3.10 needs tomli: pip install tomli"
)
_PARSERS = {
    ".json": _Parser(partial(json.loads, object_pairs_hook=distinct), _MAX_JSON),
    ".yaml": _YAML,
    ".yml": _YAML,
    ".toml": _TOML,
}
"""What parses a file of this ending."""
