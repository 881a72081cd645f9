"""The specification: schedules of fields, overrides for named groups, and extras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from dist_sched._config.config import ABSENT, Config, Sides, fitting
from dist_sched._config.history import HISTORY
from dist_sched._config.path import Path, is_field_name
from dist_sched._config.plan import Field, Inventory, Override, Plan
from dist_sched._config.policy import REST, UNIT
from dist_sched._curves.bounds import BoundedSchedule, Point
from dist_sched._curves.lint import has_end, other_end
from dist_sched._curves.named import constant
from dist_sched._curves.proportional import ProportionalCurve, ProportionalTo
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import brief, illegal, listed, mapping, near_miss, rate, shown, text, within
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dist_sched._config.history import Change
    from dist_sched._curves.curve import Bounded
    from dist_sched._curves.lint import Finding
    from dist_sched._curves.phases import Phase
    from dist_sched._rules import Number

_KNOWN_FIELDS = {
    "lr": Field("lr", "max_lr", "min_lr", "lr_mult"),
    "weight_decay": Field("weight_decay", "end_wd", "start_wd", "wd_mult"),
}

MOST_FIELDS = 1_000
"""Maximum number of fields, and of extras. More are a mistake."""

FieldSchedule = Schedule | ProportionalTo
_FIELD_RULE = (
    "must be a schedule (of dist_sched.schedules, or Schedule([Phase(...), ...])), "
    "schedules.proportional_to(...), or a number"
)
_OVERRIDE_RULE = "must be a Schedule, or a number that multiplies the field's value"
_RESERVED = frozenset({REST, UNIT, HISTORY})
"""Keys of a policy that are not entries."""
AnySchedule = TypeVar("AnySchedule", Schedule | ProportionalTo, Schedule | ProportionalTo | float)
Groups = dict[str, dict[str, FieldSchedule | float]]


@dataclass(frozen=True, kw_only=True)
class Specification(Config):
    """The config of `ParamScheduler`: schedules of fields, overrides for groups, and extras.

    Raises:
        ConfigError: A part is invalid. The message has the field, pattern or extra, the value and
            the rule.
    """

    fields: dict[str, FieldSchedule]
    """Schedules by param-group key. A number becomes a constant schedule."""
    groups: Groups
    """Overrides by pattern of group names, then by field: a schedule, or a multiplier."""
    extras: dict[str, FieldSchedule] = dataclass_field(default_factory=dict)
    """Schedules of values that no group holds, by name. A number becomes a constant schedule."""

    KIND: ClassVar[str] = "ParamScheduler"
    TEXT_NAME: ClassVar[str] = "specification"

    def __post_init__(self) -> None:
        if not mapping("fields", self.fields) and not mapping("extras", self.extras):
            raise ConfigError("fields={}: pass at least one field with its schedule, or extras")
        fields = _schedules("fields", self.fields, partial(_printable, "field"))
        extras = _schedules("extras", self.extras, _extra_name)
        for name in extras:
            if name in fields:
                raise ConfigError(
                    f"{brief(name)} is in both fields and extras; keep it in fields if it is a key "
                    "of the param groups, else in extras"
                )
        for pattern, overrides in mapping("groups", self.groups).items():
            _printable("pattern", pattern)
            for key in mapping(str(Path("", pattern=pattern)), overrides):
                if _printable("field", key) in extras:
                    path = brief(str(Path(key, pattern=pattern)))
                    rule = f"{shown(key)} is an extra, which no group holds; remove it from groups"
                    raise ConfigError(f"{path}: {rule}")
        groups = _each(self.groups, lambda path, one: _checked(str(path), one, _OVERRIDE_RULE))
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "extras", extras)
        self._check_references()

    @classmethod
    def of(
        cls,
        fields: Mapping[str, FieldSchedule | float],
        groups: Mapping[str, Mapping[str, FieldSchedule | float]] | None = None,
        extras: Mapping[str, FieldSchedule | float] | None = None,
    ) -> Specification:
        """Build a specification in which a number may stand for a constant schedule."""
        parts: Any = {
            "fields": fields,
            "groups": {} if groups is None else groups,
            "extras": {} if extras is None else extras,
        }
        return cls(**parts)

    def _check_references(self) -> None:
        """Check that every field or extra that is referred to has a schedule."""
        for path, one in self._by_path().items():
            is_extra = path.field in self.extras
            if not is_extra and path.field not in self.fields:
                close = near_miss(path.field, self.fields)
                rule = f"{shown(path.field)} is not a scheduled field{close}"
                raise ConfigError(f"{brief(str(path))}: {rule}")
            if isinstance(one, ProportionalTo):
                self.curve_of(path, one, {})
            # torch checks betas only when an optimizer is built. At 1 a running mean never changes.
            is_weight = not is_extra and Field(path.field).is_weight
            if is_weight and isinstance(one, Schedule) and one.max_value >= 1:
                raise ConfigError(
                    f"{brief(str(path))} would reach {one.max_value!r}: must be below 1, as the "
                    "weight of a running mean; use a lower schedule"
                )

    def _by_path(self) -> dict[Path, FieldSchedule | float]:
        return _by_path(self.parts())

    def curve_of(
        self, path: Path, one: FieldSchedule, overrides: Mapping[str, Any]
    ) -> Schedule | ProportionalCurve:
        """Return the curve of a schedule. A proportional one follows the override, if any."""
        if isinstance(one, Schedule):
            return one
        # Weight decay that follows lr thus keeps its ratio to lr in groups with an lr schedule.
        own = overrides.get(one.field)
        found = own if isinstance(own, Schedule) else self.schedule_of(one.field)
        if not isinstance(found, Schedule):
            close = near_miss(one.field, [*self.fields, *self.extras])
            own = close if found is None else " that does not itself follow another one"
            rule = f"must be a field or an extra with a schedule{own}"
            raise illegal(str(path.of("to")), one.field, rule)
        if found.max_value == 0:
            raise ConfigError(
                f"{brief(str(path))} follows {one.field}, which is always 0; schedule it directly"
            )
        with within(brief(str(path))):
            return one.following(found)

    def schedule_of(self, name: str) -> FieldSchedule | None:
        """Return the schedule of a field, without overrides, or of an extra."""
        return self.fields.get(name, self.extras.get(name))

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked parts of data from `to_dict`, which may lack extras.

        Raises:
            Misfit: A part is missing, unknown or invalid.
        """
        return super().read({"extras": {}, **data})

    @classmethod
    def _read_part(cls, name: str, data: Any) -> dict[str, Any]:
        found = fitting(name, mapping, "value", data)
        if name != "groups":
            return {key: fitting(f"{name}.{key}", _read, one) for key, one in found.items()}
        for pattern, overrides in found.items():
            fitting(str(Path("", pattern=pattern)), mapping, "value", overrides)
        return _each(found, lambda path, one: fitting(str(path), _read_override, one))

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as JSON data, without extras if there are none."""
        extras = {key: one.to_dict() for key, one in self.extras.items()}
        return {
            "fields": {key: one.to_dict() for key, one in self.fields.items()},
            "groups": _each(
                self.groups,
                lambda _, one: one.to_dict() if isinstance(one, FieldSchedule) else one,
            ),
            **({"extras": extras} if extras else {}),
        }

    @cached_property
    def version(self) -> int:
        """The lowest version of the state format that can store this config."""
        if self.extras:
            return 2
        schedules = (one for one in self._by_path().values() if isinstance(one, FieldSchedule))
        return max(one.version for one in schedules)

    def summary(self) -> dict[str, str]:
        """Return the schedules as text."""
        return {str(path): str(one) for path, one in self._by_path().items()}

    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return this specification's and a checkpoint's values, entry by entry.

        Schedules with the same number of phases are compared phase by phase. Other schedules are
        one entry.
        """
        found: dict[Path, Sides] = {}
        for path, mine, other in self._pairs(saved):
            if _are_alike(mine, other):
                found.update(_parts(path, mine, other))
            else:
                is_curve = isinstance(mine, FieldSchedule) or isinstance(other, FieldSchedule)
                found[path] = Sides(mine, other, path.field if is_curve else "")
        return found

    def unite(self, other: Specification, inventory: Inventory) -> Specification:
        """Return this specification with the parts of another rank's that do not concern this rank.

        These are fields that none of this rank's groups has, and patterns that match none of their
        names. Extras stay this rank's.
        """
        fields = {key: one for key, one in other.fields.items() if key not in inventory.fields}
        groups = {
            pattern: overrides
            for pattern, overrides in other.groups.items()
            if not any(fnmatchcase(name, pattern) for name in inventory.names)
        }
        fields, groups = {**fields, **self.fields}, {**groups, **self.groups}
        return self._with(fields, groups, self.extras)

    def merge(self, saved: Mapping[str, Any], used: Mapping[Path, Any]) -> Specification:
        """Build a specification from the entries to use, or return this one if they are the same.

        A name that is a field on one side and an extra on the other is what it is in this config.

        Raises:
            ConfigError: The entries are not a valid specification, or only the checkpoint schedules
                a field, which the groups here may not have.
        """
        chosen = {
            path: _merged(path, mine, other, used) for path, mine, other in self._pairs(saved)
        }
        # Refused, because nothing would write the field if no group has it.
        for key in saved.get("fields", {}):
            if self.schedule_of(key) is None and chosen[Path(key)] is not ABSENT:
                raise ConfigError(
                    f"{brief(key)} has a schedule in the checkpoint and not in the config; add one "
                    f"to fields, or ignore the checkpoint's with policy={{{shown(key)}: 'config', "
                    "...}"
                )
        fields = {key: chosen[Path(key)] for key in self.fields}
        # Extras that only the checkpoint has are used, because no group needs to have them.
        others = (key for key in saved.get("extras", {}) if self.schedule_of(key) is None)
        names = dict.fromkeys((*self.extras, *others))
        extras = {key: one for key in names if (one := chosen[Path(key)]) is not ABSENT}
        groups: Groups = {}
        for path, one in chosen.items():
            if path.pattern is not None and one is not ABSENT:
                groups.setdefault(path.pattern, {})[path.field] = one
        return self._with(fields, groups, extras)

    def _with(
        self, fields: dict[str, FieldSchedule], groups: Groups, extras: dict[str, FieldSchedule]
    ) -> Specification:
        # The same object keeps its plan.
        is_same = (fields, groups, extras) == (self.fields, self.groups, self.extras)
        return self if is_same else Specification(fields=fields, groups=groups, extras=extras)

    def _pairs(self, saved: Mapping[str, Any]) -> list[tuple[Path, Any, Any]]:
        """Return both sides' value of each field, extra and override."""
        mine, other = self._by_path(), _by_path(saved)
        # Overrides that only the checkpoint has are placed beside the others of their pattern.
        patterns = dict.fromkeys(path.pattern for path in (*mine, *other))
        order = {pattern: index for index, pattern in enumerate([None, *patterns])}
        paths = sorted({**mine, **other}, key=lambda path: order[path.pattern])
        return [(path, mine.get(path, ABSENT), other.get(path, ABSENT)) for path in paths]

    def may_name(self, path: Path) -> bool:
        """Return whether a checkpoint may have an entry that this config lacks.

        It may have any part of this config's phases, the power of a proportion, any override, and
        any field or extra whose name is not probably a misspelt one.
        """
        if path.pattern is not None:
            return True
        schedule = self.schedule_of(path.field)
        if schedule is None:
            is_misspelt = bool(near_miss(path.field, [*self.fields, *self.extras]))
            return not path.parts and is_field_name(path.field) and not is_misspelt
        if isinstance(schedule, ProportionalTo):
            return path.parts == ("power",)
        phases = schedule.phases
        parameters = {name for phase in phases for name in phase.parameters}
        names = {"start", "since", "until", *parameters}
        indices = {f"[{index}]" for index in range(len(phases))}
        match path.parts:
            case ("phases", index, name):
                return index in indices and name in names
            case ("multiple_of",):
                return True
        return False

    def _build_plan(self) -> Plan:
        fields = tuple(_KNOWN_FIELDS.get(key) or Field(key) for key in self.fields)
        base = [self.curve_of(Path(key), one, {}) for key, one in self.fields.items()]
        bounded = (
            partial(self._bounded, field.key, curve) if field.upper else None
            for field, curve in zip(fields, base, strict=True)
        )
        extras = {key: self.curve_of(Path(key), one, {}) for key, one in self.extras.items()}
        return Plan.of(fields, base, self._overrides(), bounded, extras=extras)

    def _bounded(self, key: str, curve: Schedule | ProportionalCurve, pattern: str = "") -> Bounded:
        """Return the curve of a field between the bounds of groups whose names match a pattern.

        Late changes are applied to the mapped curve, so that groups with bounds do not jump.
        """
        made, is_rise = self.made_by(), key == "weight_decay"
        if not made:
            return BoundedSchedule.of(curve, is_rise=is_rise)
        first = made[0][0]
        declared = first.fields[key]
        followed, power = key, 1.0
        if isinstance(declared, ProportionalTo):
            followed, power = declared.field, declared.power
        bounded = BoundedSchedule.of(first.curve_for(key, pattern), is_rise=is_rise)
        peak = bounded.peak
        after = [*(config for config, _ in made[1:]), self]
        for (_, change), config in zip(made, after, strict=True):
            if change.field == followed:
                bounded = bounded.changed(
                    config.curve_for(key, pattern),
                    change.position,
                    change.operation,
                    end=_goal(change, first.schedule_of(followed), power, peak),
                    factor=change.arguments.get("factor", 1.0) ** power,
                )
        return bounded

    def curve_for(self, key: str, pattern: str) -> Schedule | ProportionalCurve:
        """Return the curve of a field for groups whose names match a pattern."""
        return self.curve_of(Path(key), self.fields[key], self.groups.get(pattern, {}))

    def _overrides(self) -> Iterator[Override]:
        for pattern, overrides in self.groups.items():
            scheduled = {key for key, one in overrides.items() if isinstance(one, Schedule)}
            for key, one in overrides.items():
                if not isinstance(one, FieldSchedule):
                    yield Override(pattern=pattern, field=key, multiplier=one)
                    continue
                curve = self.curve_of(Path(key, pattern=pattern), one, overrides)
                followed = one.field if isinstance(one, ProportionalTo) else ""
                follows = "" if followed in scheduled else followed
                yield Override(pattern=pattern, field=key, curve=curve, follows=follows)
            # A field that follows another one follows its override in these groups.
            for key, one in self.fields.items():
                has_own = isinstance(overrides.get(key), FieldSchedule)
                if isinstance(one, ProportionalTo) and one.field in scheduled and not has_own:
                    curve = self.curve_of(Path(key), one, overrides)
                    yield Override(
                        pattern=pattern,
                        field=key,
                        curve=curve,
                        bounded=partial(self._bounded, key, curve, pattern),
                        is_implied=True,
                    )

    def _changed(self, change: Change) -> Specification:
        """Return the specification after a late change.

        The schedules of overrides change, too. `end` and `peak` are then in proportion to their
        highest values. A schedule that already ends later than the new horizon is not extended.

        Raises:
            ConfigError: The change is invalid, or the field has no schedule.
        """
        base = self.schedule_of(change.field)
        if base is None:
            close = near_miss(change.field, [*self.fields, *self.extras])
            raise illegal("field", change.field, f"is not scheduled{close}")
        if isinstance(base, ProportionalTo):
            raise illegal("field", change.field, f"follows {base.field}; change that one instead")

        # An override that is a multiplier applies to the changed schedule of the field.
        def changed(path: Path, one: FieldSchedule | float) -> FieldSchedule | float:
            if path.field != change.field or not isinstance(one, Schedule):
                return one
            if change.operation == "extend" and one.horizon >= change.arguments["horizon"]:
                return one
            return change.apply(one, one.max_value / base.max_value if base.max_value else 1.0)

        if change.field in self.extras:
            after = replace(self, extras={**self.extras, change.field: change.apply(base)})
        else:
            fields = {**self.fields, change.field: change.apply(base)}
            after = replace(self, fields=fields, groups=_each(self.groups, changed))
        return self._in_proportion(after, change) if change.operation == "scale" else after

    def _in_proportion(self, after: Specification, change: Change) -> Specification:
        """Return a scaled specification in which fields that follow keep their proportion.

        A proportion is to the highest value, which changes if a scale comes before the peak.

        Raises:
            ConfigError: A field that follows would need a different proportion in some groups.
        """
        before = self._by_path()
        shares = {
            path.pattern: one.max_value / former.max_value
            for path, one in after._by_path().items()
            if path.field == change.field
            and isinstance(one, Schedule)
            and isinstance(former := before[path], Schedule)
            and former.max_value
        }
        share = shares.pop(None, 1.0)

        def kept(path: Path, one: AnySchedule) -> AnySchedule:
            if not isinstance(one, ProportionalTo) or one.field != change.field:
                return one
            return cast("AnySchedule", one.scaled(shares.get(path.pattern, share)))

        for key, one in after.fields.items():
            if not isinstance(one, ProportionalTo) or one.field != change.field:
                continue
            for pattern, overrides in after.groups.items():
                has_own = isinstance(overrides.get(key), FieldSchedule)
                if shares.get(pattern, share) != share and not has_own:
                    raise ConfigError(
                        f"{change}: {key} follows {change.field} and "
                        f"{Path(change.field, pattern=pattern)}, but only one of the two is past "
                        f"its peak; add a schedule of {key} for these groups"
                    )
        fields, extras = (
            {key: kept(Path(key), one) for key, one in part.items()}
            for part in (after.fields, after.extras)
        )
        return replace(after, fields=fields, extras=extras, groups=_each(after.groups, kept))

    def _findings(self, updates: int | None, increment: Number) -> Iterator[tuple[Path, Finding]]:
        for path, one in self._by_path().items():
            if not isinstance(one, Schedule):
                continue
            # A batch size grows in stages, often long before the end of lr, on purpose.
            passed = {"jump", "field-ends-elsewhere"} if path.field in self.extras else set()
            found = [*one.lint(path.field, updates=updates, increment=increment)]
            lr = self._lr_beside(path)
            if lr is not None and has_end(lr) and one.min_value < one.max_value:
                found += other_end(one, one.horizon, lr.horizon)
            yield from ((path, finding) for finding in found if finding.code not in passed)

    def _lr_beside(self, path: Path) -> Schedule | None:
        """Return the lr schedule of the same groups, if there is one and the field is not lr."""
        if path.field == "lr":
            return None
        own = self.groups.get(path.pattern or "", {}).get("lr")
        found = own if isinstance(own, Schedule) else self.fields.get("lr")
        return found if isinstance(found, Schedule) else None


def _goal(change: Change, source: FieldSchedule | None, power: float, peak: Point) -> Point | None:
    """Return the last point of a cooldown or a rise, or None if the change has no `end` or `peak`.

    The point is in proportion to the peak, like `end` and `peak` in schedules of groups.
    """
    goal = change.arguments.get("end", change.arguments.get("peak"))
    if goal is None:
        return None
    if not isinstance(source, Schedule) or not source.max_value:
        return Point(goal, 0.0, 0.0)
    share = goal / source.max_value
    factor = share if power == 1 else share**power
    return Point(*(part * factor for part in peak))


def _by_path(parts: Mapping[str, Any]) -> dict[Path, Any]:
    """Return all schedules by path: fields, extras, then overrides."""
    # A foreign state may have only some parts.
    names = {**parts.get("fields", {}), **parts.get("extras", {})}
    found = {Path(key): one for key, one in names.items()}
    for pattern, overrides in parts.get("groups", {}).items():
        found |= {Path(key, pattern=pattern): one for key, one in overrides.items()}
    return found


def _each(groups: Mapping[str, Any], change: Callable[[Path, Any], Any]) -> Groups:
    """Return groups with each override replaced by the result of a function."""
    return {
        pattern: {key: change(Path(key, pattern=pattern), one) for key, one in overrides.items()}
        for pattern, overrides in groups.items()
    }


def _printable(name: str, key: object) -> str:
    found = text(name, key)
    if any(not character.isprintable() for character in found):
        raise illegal(name, key, "must have printable characters only")
    return found


def _extra_name(key: object) -> str:
    found = _printable("extra", key)
    if found in _RESERVED or Path.parse(found) != Path(found):
        words = listed(sorted(_RESERVED))
        rule = f"must be a name such as batch_size, without dots, and not one of {words}"
        raise illegal("extra", key, rule)
    return found


def _schedules(
    name: str, given: Mapping[str, Any], check_name: Callable[[object], str]
) -> dict[str, FieldSchedule]:
    """Return the checked schedules of fields or extras. Numbers become constant schedules."""
    if len(mapping(name, given)) > MOST_FIELDS:
        rule = f"has {len(given):,} names; at most {MOST_FIELDS:,} are allowed"
        raise illegal(name, given, rule)
    schedules: dict[str, FieldSchedule] = {}
    for key, one in given.items():
        found = _checked(check_name(key), one, _FIELD_RULE)
        schedules[key] = found if isinstance(found, FieldSchedule) else constant(found)
    return schedules


def _checked(name: str, value: object, rule: str) -> FieldSchedule | float:
    if isinstance(value, FieldSchedule):
        return value
    try:
        return rate(name, value)
    except ConfigError as error:
        raise illegal(name, value, rule) from error


def _read(data: object) -> FieldSchedule:
    # Recognised by its keys, because the frozen format has no key for the kind of a schedule.
    if isinstance(data, Mapping) and {"peak", "to"} <= data.keys() <= {"peak", "to", "power"}:
        return ProportionalTo.from_dict(data)
    return Schedule.from_dict(data)


def _read_override(data: object) -> FieldSchedule | float:
    return _read(data) if isinstance(data, Mapping) else rate("multiplier", data)


def _are_alike(mine: Any, other: Any) -> bool:
    """Return whether two schedules can be compared part by part."""
    if isinstance(mine, Schedule) and isinstance(other, Schedule):
        return len(mine.phases) == len(other.phases)
    return isinstance(mine, ProportionalTo) and isinstance(other, ProportionalTo)


def _parts(path: Path, mine: Any, other: Any) -> Iterator[tuple[Path, Sides]]:
    """Yield the values of two schedules that are alike, part by part."""
    if isinstance(mine, ProportionalTo):
        for key, both in _proportion_parts(mine, other).items():
            yield path.of(key), Sides(*both, path.field)
        return
    for index, pair in enumerate(zip(mine.phases, other.phases, strict=True)):
        at = path.of("phases", index)
        for key, both in _phase_parts(*pair).items():
            yield Path(at.field, (*at.parts, key), at.pattern), Sides(*both, path.field)
    if mine.multiple_of is not None or other.multiple_of is not None:
        sides = Sides(mine.multiple_of, other.multiple_of, path.field)
        yield path.of("multiple_of"), sides


def _proportion_parts(mine: ProportionalTo, other: ProportionalTo) -> dict[str, tuple[Any, Any]]:
    """Return the values of two proportions, with powers only if one is not 1."""
    ours, others = mine.to_dict(), other.to_dict()
    return {key: (ours.get(key, 1.0), others.get(key, 1.0)) for key in ours | others}


def _phase_parts(mine: Phase, other: Phase) -> dict[str, tuple[Any, Any]]:
    """Return the values of two phases. Different shapes are one value with their parameters."""
    ours, others = mine.to_dict(), other.to_dict()
    if mine.shape == other.shape:
        return {key: (ours.get(key), others.get(key)) for key in ours | others}
    # Parameters of different shapes cannot be chosen one by one: cosine has no power.
    common = ("steps", "end", "start", "since", "until")
    parts = {key: (ours.get(key), others.get(key)) for key in common if key in {*ours, *others}}
    return {"shape": (_shape_text(mine), _shape_text(other)), **parts}


def _shape_text(phase: Phase) -> str:
    given = ", ".join(f"{name}={value}" for name, value in phase.parameters.items())
    return f"{phase.shape} ({given})" if given else phase.shape


def _merged(path: Path, mine: Any, other: Any, used: Mapping[Path, Any]) -> Any:
    """Build one schedule from the entries to use."""
    if not _are_alike(mine, other):
        return used[path]
    if mine == other:
        return other
    if isinstance(mine, ProportionalTo):
        keys = _proportion_parts(mine, other)
        return ProportionalTo.from_dict({key: used[path.of(key)] for key in keys})
    phases = []
    for index, (ours, others) in enumerate(zip(mine.phases, other.phases, strict=True)):
        at = path.of("phases", index)
        keys = _phase_parts(ours, others)
        chosen = {key: used[Path(at.field, (*at.parts, key), at.pattern)] for key in keys}
        if ours.shape != others.shape:  # parameters belong to their shape
            side = ours if chosen["shape"] == _shape_text(ours) else others
            chosen = {**chosen, **side.parameters, "shape": side.shape}
        phases.append({key: value for key, value in chosen.items() if value is not None})
    multiples = {mine.multiple_of, other.multiple_of}
    multiple_of = used[path.of("multiple_of")] if multiples != {None} else None
    # If the checkpoint wins everywhere, its schedule need not be built again.
    if (phases, multiple_of) == (other.to_dict()["phases"], other.multiple_of):
        return other
    with within(brief(str(path))):
        return Schedule.from_dict({"phases": phases, "multiple_of": multiple_of})
