"""Configs as mappings and files, for either scheduler.

Lengths may be written in several ways: `"2k"` and `"1.5B"` are units, `0.03` and `"3%"` are
fractions of the horizon, and `1` is one unit.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dist_sched._config import written
from dist_sched._config.amounts import PER_UPDATE, Scope, amount, number, read_pace
from dist_sched._config.config import unit_word
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.policy import BOOLEANS
from dist_sched._config.specification import Specification
from dist_sched._curves import named
from dist_sched._curves.lint import unfilled_horizon
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
    refuse_large,
    refuse_unknown,
    shown,
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
_ENTRY_LENGTHS = frozenset(
    {"lr_decay_steps", "lr_warmup_steps", "wd_incr_steps", "wsd_decay_steps"}
)
_LENGTHS = _ENTRY_LENGTHS | written.PHASE_LENGTHS | named.LENGTHS

_MAX_JSON = 2**23
"""Maximum size of a JSON file in bytes. The longest schedule is shorter."""
_MAX_TOML, _MAX_YAML = 2**20, 2**19
"""Maximum sizes of TOML and YAML files in bytes. Their readers need some seconds for as much."""
_MAX_DOTS = 64
"""Maximum number of dots in a TOML key, because its reader takes quadratic time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A config, and the scheduler's other arguments."""

    config: Config
    unit: str = "steps"
    """What a position counts."""
    policy: Policy | None = None
    """From `policy` or Megatron's two booleans. None if the source has neither."""
    keep_group_ratios: bool = True
    reference: Any = None
    """A group's name, a number, or a mapping from fields to either. The scheduler checks it."""
    name: str | None = None
    """Name that distinguishes the scheduler from others on the same ranks."""
    findings: tuple[Finding, ...] = ()
    """Findings of `lint` that only the source shows, and not the config."""


def read(source: Mapping[str, Any] | str | os.PathLike[str]) -> Declaration:
    """Read a config from a mapping or a file.

    A mapping with `fields` or `extras` is for `ParamScheduler`. Any other mapping is for
    `OptimizerParamScheduler` and has its entries. docs/configuration.md describes both.

    Args:
        source: The mapping, or the path of a `.json`, `.yaml`, `.yml` or `.toml` file.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or missing, or a value is invalid.
    """
    if isinstance(source, Mapping):
        return _declaration(source)
    if not isinstance(source, str | os.PathLike):
        raise illegal("config", source, "must be a mapping, or the path of a config file")
    with within(brief(os.fsdecode(source), 2 * SHOWN)):
        return _declaration(_load(pathlib.Path(os.fsdecode(source))))


def to_mapping(config: Config, **settings: Any) -> dict[str, Any]:
    """Return a config as a mapping for `read`, with the settings that are not the defaults."""
    given = {name: value for name, value in settings.items() if value != _DEFAULTS[name]}
    return {**given, **_unambiguous(config.to_dict())}


def _unambiguous(data: Any, name: str = "") -> Any:
    """Return data with lengths below one unit as strings; numbers would be fractions."""
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
    config: Specification | OptimizerParamConfig
    findings: tuple[Finding, ...] = ()
    if "fields" in data or "extras" in data:
        config, findings = _specification(rest)
    else:
        config = _entries(rest)
    booleans = {name: flag(name, data[name]) for name in BOOLEANS if name in data}
    if booleans and isinstance(config, Specification):
        raise ConfigError(f"{listed(booleans)}: not allowed with fields or extras; use policy")
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
        findings=findings,
    )


def _entries(data: Mapping[str, Any]) -> OptimizerParamConfig:
    known = (*OptimizerParamConfig.entry_names(), *SETTINGS, *BOOLEANS)
    # First, so that the error is about a misspelt 'fields', not about the groups beside it.
    refuse_unknown(data, (*known, "fields", "groups", "extras", "horizon", PER_UPDATE))
    refuse_unknown(data, known, "is not allowed without 'fields'")
    horizon = written.horizon(data, Scope(), "lr_decay_steps")
    found = dict(data)
    for name, value in data.items():
        if name in _ENTRY_LENGTHS:
            found[name] = amount(name, value, horizon)
        elif not name.endswith("_style"):
            found[name] = number(value)
    return OptimizerParamConfig.from_parts(found)


def _specification(data: Mapping[str, Any]) -> tuple[Specification, tuple[Finding, ...]]:
    """Read a specification, and return it with findings about how it is written."""
    refuse_unknown(data, ("fields", "groups", "extras", "horizon", PER_UPDATE, *SETTINGS))
    scope = _scope(data)
    fields = _schedules(data.get("fields", {}), scope)
    groups = {
        pattern: _schedules(overrides, scope, pattern)
        for pattern, overrides in mapping("groups", data.get("groups", {})).items()
    }
    config = Specification(fields=fields, groups=groups, extras={**scope.schedules})
    return config, tuple(_findings(data, config, scope))


def _scope(data: Mapping[str, Any]) -> Scope:
    """Return the scope of lengths, with the extras, which are read first."""
    extras: Mapping[Any, Any] = mapping("extras", data.get("extras", {}))
    if data.get(PER_UPDATE) is None:
        scope = Scope(horizon=written.horizon(data, Scope()))
        return replace(scope, schedules=_schedules(extras, scope, name="extras"))
    # A horizon in updates needs the pace, and the pace needs its extras.
    is_counted = isinstance(data.get("horizon"), Mapping)
    scope = Scope(horizon=None if is_counted else written.horizon(data, Scope()))
    pace = data[PER_UPDATE]
    names = [key for key in extras if isinstance(key, str)]
    named = (
        [one for one in pace.values() if isinstance(one, str)] if isinstance(pace, Mapping) else []
    )
    known = _schedules({key: extras[key] for key in extras if key in named}, scope, name="extras")
    scope = replace(scope, pace=read_pace(pace, known, names), schedules=known)
    scope = replace(scope, horizon=written.horizon(data, scope))
    others = {key: one for key, one in extras.items() if key not in known}
    found = {**known, **_schedules(others, scope, name="extras")}
    return replace(scope, schedules={key: found[key] for key in extras})


def _schedules(
    data: object, scope: Scope, pattern: str | None = None, name: str = "fields"
) -> dict[str, Any]:
    found = {}
    name = name if pattern is None else str(Path("", pattern=pattern))
    for key, one in mapping(name, data).items():
        with within(brief(str(Path(str(key), pattern=pattern)))):
            found[key] = written.read(one, scope)
    return found


def _findings(data: Mapping[str, Any], config: Specification, scope: Scope) -> Iterator[Finding]:
    """Yield a finding for each list of phases that does not end at its written horizon.

    The horizon at the top level is lr's. Other fields and extras may end before it.
    """
    base = {**data.get("fields", {}), **data.get("extras", {})}
    sources = [(None, base), *data.get("groups", {}).items()]
    for pattern, schedules in sources:
        fields = {**config.fields, **config.extras}
        built = fields if pattern is None else config.groups[pattern]
        for field, one in schedules.items():
            schedule = built[field]
            has_phases = isinstance(one, Mapping) and "phases" in one
            if not has_phases or not isinstance(schedule, Schedule):
                continue
            if not one.keys().isdisjoint(written.LENGTHENS):
                continue  # the horizon is for a part of the schedule
            is_own = one.get("horizon") is not None
            whole = written.horizon(one, scope) if is_own or field == "lr" else None
            if whole is not None:
                for finding in unfilled_horizon(schedule, whole):
                    path = Path(field, pattern=pattern)
                    yield replace(finding, message=f"{path}: {finding.message}")


def _reference(data: Any) -> Any:
    """Read `reference`: names and numbers."""
    if isinstance(data, Mapping):
        return {key: number(one) for key, one in data.items()}
    return number(data)


def _load(path: pathlib.Path) -> Mapping[str, Any]:
    """Read a file with the parser for its suffix."""
    parser = _PARSERS.get(path.suffix.lower())
    if parser is None:
        raise ConfigError(f"the name must end in one of {listed(_PARSERS)}")
    try:
        # Editors on Windows may write a byte order mark, which utf-8-sig skips.
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
        raise ConfigError(f"must contain a mapping, not {shown(found)}")
    return found


def _content(path: pathlib.Path, most: int) -> bytes:
    """Return the bytes of a regular file. Pipes and devices may never end, and are refused."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError("must be a file, not a pipe, a socket or a device")
    with path.open("rb") as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ConfigError(f"is too long for a config: at most {most:,} bytes are allowed")
    return found


def _parse_yaml(text: str) -> Any:
    import yaml

    from dist_sched._config.yaml_loader import Loader

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (ArithmeticError, TypeError, LookupError, AttributeError) as error:
        # PyYAML raises these for `!!int ''` or `!!timestamp x`.
        raise ValueError(f"a tag or a key does not fit: {error!r}") from error


_PARTS = re.compile(r"[^\n,=\[\]{}]+")
_DOT = re.compile(r"\.[ \t]*[^\s.]")


def _parse_toml(text: str) -> Any:
    if any(len(_DOT.findall(part.group())) > _MAX_DOTS for part in _PARTS.finditer(text)):
        raise ValueError(f"has a key of more than {_MAX_DOTS} parts")
    return tomllib.loads(text)


@dataclass(frozen=True, slots=True)
class _Parser:
    parse: Callable[[str], Any]
    max_size: int
    needs: str = ""
    """The error if the parser is not installed."""


_YAML = _Parser(_parse_yaml, _MAX_YAML, "reading YAML needs PyYAML: pip install 'dist-sched[yaml]'")
_PARSERS = {
    ".json": _Parser(partial(json.loads, object_pairs_hook=distinct), _MAX_JSON),
    ".yaml": _YAML,
    ".yml": _YAML,
    ".toml": _Parser(_parse_toml, _MAX_TOML),
}
"""The parsers, by suffix."""
