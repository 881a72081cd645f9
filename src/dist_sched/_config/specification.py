"""The specification: a schedule for any field, and overrides for groups of some names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from dist_sched._config.config import ABSENT, Config, Sides, fitting
from dist_sched._config.path import Path, is_field_name
from dist_sched._config.plan import Field, Inventory, Override, Plan
from dist_sched._curves.bounds import BoundedSchedule, Point
from dist_sched._curves.lint import has_end, other_end
from dist_sched._curves.named import constant
from dist_sched._curves.proportional import ProportionalCurve, ProportionalTo
from dist_sched._curves.schedule import Schedule
from dist_sched._rules import brief, illegal, mapping, near_miss, rate, shown, text, within
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
"""More are a mistake: they are keys of param groups."""

FieldSchedule = Schedule | ProportionalTo
_FIELD_RULE = (
    "must be a schedule (of dist_sched.schedules, or Schedule([Phase(...), ...])), "
    "schedules.proportional_to(...), or a number"
)
_OVERRIDE_RULE = "must be a Schedule, or a number that multiplies the field's"
Groups = dict[str, dict[str, FieldSchedule | float]]


@dataclass(frozen=True, kw_only=True)
class Specification(Config):
    """The config of `ParamScheduler`: a schedule for each field, and overrides by group name.

    Raises:
        ConfigError: Names field or pattern, value and rule.
    """

    fields: dict[str, FieldSchedule]
    """By param-group key; a number becomes a constant schedule."""
    groups: Groups
    """By pattern of names and then by field: a schedule, or a multiplier of the field's."""

    KIND: ClassVar[str] = "ParamScheduler"
    TEXT_NAME: ClassVar[str] = "specification"

    def __post_init__(self) -> None:
        if not mapping("fields", self.fields):
            raise ConfigError("fields={}: give at least one field and its schedule")
        if len(self.fields) > MOST_FIELDS:
            rule = f"has {len(self.fields):,} names, and must have at most {MOST_FIELDS:,}"
            raise illegal("fields", self.fields, rule)
        fields: dict[str, FieldSchedule] = {}
        for key, one in self.fields.items():
            found = _checked(_printable("field", key), one, _FIELD_RULE)
            fields[key] = found if isinstance(found, FieldSchedule) else constant(found)
        for pattern, overrides in mapping("groups", self.groups).items():
            _printable("pattern", pattern)
            for key in mapping(str(Path("", pattern=pattern)), overrides):
                _printable("field", key)
        groups = _each(self.groups, lambda path, one: _checked(str(path), one, _OVERRIDE_RULE))
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "groups", groups)
        self._check_references()

    @classmethod
    def of(
        cls,
        fields: Mapping[str, FieldSchedule | float],
        groups: Mapping[str, Mapping[str, FieldSchedule | float]] | None = None,
    ) -> Specification:
        """Build a specification in which a number may stand for a constant schedule."""
        return cls(fields=fields, groups=groups or {})  # type: ignore[arg-type] # made so when built

    def _check_references(self) -> None:
        """Check that what refers to a field refers to one that is scheduled."""
        for path, one in self._by_path().items():
            if path.field not in self.fields:
                close = near_miss(path.field, self.fields)
                rule = f"{shown(path.field)} is not among the scheduled fields{close}"
                raise ConfigError(f"{brief(str(path))}: {rule}")
            if isinstance(one, ProportionalTo):
                self.curve_of(path, one, {})
            # torch checks betas when an optimizer is built only; at 1 the running mean never moves.
            if Field(path.field).is_weight and isinstance(one, Schedule) and one.max_value >= 1:
                raise ConfigError(
                    f"{brief(str(path))} would reach {one.max_value!r}, and must be below 1: lower "
                    "the schedule"
                )

    def _by_path(self) -> dict[Path, FieldSchedule | float]:
        return _by_path(self.parts())

    def curve_of(
        self, path: Path, one: FieldSchedule, overrides: Mapping[str, Any]
    ) -> Schedule | ProportionalCurve:
        """Return the curve of a schedule; one that follows a field follows its override first."""
        if isinstance(one, Schedule):
            return one
        # So weight decay that follows lr keeps its ratio to lr in groups with their own schedule.
        own = overrides.get(one.field)
        found = own if isinstance(own, Schedule) else self.fields.get(one.field)
        if not isinstance(found, Schedule):
            close = near_miss(one.field, self.fields)
            raise illegal(str(path.of("to")), one.field, f"must be a field with a schedule{close}")
        if found.max_value == 0:
            raise ConfigError(f"{brief(str(path))} follows {one.field}, which is 0 throughout")
        return one.following(found)

    @classmethod
    def _read_part(cls, name: str, data: Any) -> dict[str, Any]:
        found = fitting(name, mapping, "value", data)
        if name == "fields":
            return {key: fitting(f"fields.{key}", _read, one) for key, one in found.items()}
        for pattern, overrides in found.items():
            fitting(str(Path("", pattern=pattern)), mapping, "value", overrides)
        return _each(found, lambda path, one: fitting(str(path), _read_override, one))

    def to_dict(self) -> dict[str, Any]:
        """Return the parts as data for JSON."""
        return {
            "fields": {key: one.to_dict() for key, one in self.fields.items()},
            "groups": _each(
                self.groups,
                lambda _, one: one.to_dict() if isinstance(one, FieldSchedule) else one,
            ),
        }

    def summary(self) -> dict[str, str]:
        """Return a line for each schedule, for people."""
        return {str(path): str(one) for path, one in self._by_path().items()}

    def compare(self, saved: Mapping[str, Any]) -> dict[Path, Sides]:
        """Return what this specification and a checkpoint's parts have, entry by entry.

        Schedules of the same number of phases are compared phase by phase; others are one entry.
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
        """Return this specification with what another rank schedules and this rank's groups lack.

        That is fields that none of its groups has, and patterns that match none of their names.
        """
        fields = {key: one for key, one in other.fields.items() if key not in inventory.fields}
        groups = {
            pattern: overrides
            for pattern, overrides in other.groups.items()
            if not any(fnmatchcase(name, pattern) for name in inventory.names)
        }
        fields, groups = {**fields, **self.fields}, {**groups, **self.groups}
        return self._with(fields, groups)

    def merge(self, saved: Mapping[str, Any], used: Mapping[Path, Any]) -> Specification:
        """Build a specification of the entries to use; this very one where they are the same.

        Raises:
            ConfigError: They make none, or a field is the checkpoint's alone: its groups may not
                have it here.
        """
        chosen = {
            path: _merged(path, mine, other, used) for path, mine, other in self._pairs(saved)
        }
        # Refused here: on a rank whose groups lack the field, nothing would write it.
        for key in saved.get("fields", {}):
            if key not in self.fields and chosen[Path(key)] is not ABSENT:
                raise ConfigError(
                    f"{brief(key)} is scheduled in the checkpoint and not here: schedule it, or "
                    f"leave it alone with policy={{{shown(key)}: 'config', ...}}"
                )
        fields = {key: chosen[Path(key)] for key in self.fields}
        groups: Groups = {}
        for path, one in chosen.items():
            if path.pattern is not None and one is not ABSENT:
                groups.setdefault(path.pattern, {})[path.field] = one
        return self._with(fields, groups)

    def _with(self, fields: dict[str, FieldSchedule], groups: Groups) -> Specification:
        # The same object keeps its plan.
        is_same = (fields, groups) == (self.fields, self.groups)
        return self if is_same else Specification(fields=fields, groups=groups)

    def _pairs(self, saved: Mapping[str, Any]) -> list[tuple[Path, Any, Any]]:
        """Return for each field and override what this side has, and what the other has."""
        mine, other = self._by_path(), _by_path(saved)
        # An override of the checkpoint alone stands beside the others of its pattern.
        patterns = dict.fromkeys(path.pattern for path in (*mine, *other))
        order = {pattern: index for index, pattern in enumerate([None, *patterns])}
        paths = sorted({**mine, **other}, key=lambda path: order[path.pattern])
        return [(path, mine.get(path, ABSENT), other.get(path, ABSENT)) for path in paths]

    def may_name(self, path: Path) -> bool:
        """Return whether a checkpoint may have an entry that this config lacks.

        That is any part of one's own phases, any override, and a field that is no misspelt one.
        """
        if path.pattern is not None:
            return True
        schedule = self.fields.get(path.field)
        if schedule is None:
            is_misspelt = bool(near_miss(path.field, self.fields))
            return not path.parts and is_field_name(path.field) and not is_misspelt
        phases = schedule.phases if isinstance(schedule, Schedule) else ()
        names = {
            "start",
            "since",
            "until",
            *(name for phase in phases for name in phase.parameters),
        }
        indices = {f"[{index}]" for index in range(len(phases))}
        match path.parts:
            case ("phases", index, name):
                return index in indices and name in names
            case ("multiple_of",):
                return isinstance(schedule, Schedule)
        return False

    def _build_plan(self) -> Plan:
        fields = tuple(_KNOWN_FIELDS.get(key) or Field(key) for key in self.fields)
        base = [self.curve_of(Path(key), one, {}) for key, one in self.fields.items()]
        bounded = (
            partial(self._bounded, field.key, curve) if field.upper else None
            for field, curve in zip(fields, base, strict=True)
        )
        return Plan.of(fields, base, self._overrides(), bounded)

    def _bounded(self, key: str, curve: Schedule | ProportionalCurve, pattern: str = "") -> Bounded:
        """Return how the curve of a field goes between the bounds of a group of some names.

        Late changes are made of what each group had, so that none of them jumps.
        """
        made = self.made_by()
        first = made[0][0] if made else self
        declared = first.fields[key]
        followed = declared.field if isinstance(declared, ProportionalTo) else key
        overrides = first.groups.get(pattern, {})
        root = first.curve_of(Path(key), declared, overrides) if made else curve
        highest = first.curve_of(Path(followed), first.fields[followed], {}).max_value
        bounded = BoundedSchedule.of(root, is_rise=key == "weight_decay")
        peak = bounded.peak
        after = [*(config for config, _ in made[1:]), self]
        for (_, change), config in zip(made, after, strict=False):
            if change.field != followed:
                continue
            goal = change.arguments.get("end", change.arguments.get("peak"))
            end = None if goal is None else Point(goal, 0.0, 0.0)
            if goal is not None and highest:  # in proportion, as the schedules of groups change
                end = Point(*(part * (goal / highest) for part in peak))
            bounded = bounded.changed(
                config.curve_of(Path(key), config.fields[key], config.groups.get(pattern, {})),
                change.position,
                change.operation,
                end=end,
                factor=change.arguments.get("factor", 1.0),
            )
        return bounded

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
            # A field that follows another follows it into groups that override the other.
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

        Every schedule of the field changes, those of overrides too: `end` and `peak` are then in
        proportion to their highest values, and one that ends later than an extension asks for
        stays.

        Raises:
            ConfigError: It is illegal, or the field has no schedule.
        """
        base = self.fields.get(change.field)
        if base is None:
            close = near_miss(change.field, self.fields)
            raise illegal("field", change.field, f"is not scheduled{close}")
        if isinstance(base, ProportionalTo):
            raise illegal("field", change.field, f"follows {base.field}: change that one")

        # What has a multiplier follows the field's schedule, which changes, by itself.
        def changed(path: Path, one: FieldSchedule | float) -> FieldSchedule | float:
            if path.field != change.field or not isinstance(one, Schedule):
                return one
            if change.operation == "extend" and one.horizon >= change.arguments["horizon"]:
                return one
            return change.apply(one, one.max_value / base.max_value if base.max_value else 1.0)

        fields = {**self.fields, change.field: change.apply(base)}
        after = replace(self, fields=fields, groups=_each(self.groups, changed))
        return self._in_proportion(after, change) if change.operation == "scale" else after

    def _in_proportion(self, after: Specification, change: Change) -> Specification:
        """Return a scaled specification in which followers still have the same proportion.

        A proportion is to the highest value, which a scale before the peak multiplies.

        Raises:
            ConfigError: One that follows the field in all groups would need two proportions.
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

        def kept(path: Path, one: FieldSchedule | float) -> FieldSchedule | float:
            if not isinstance(one, ProportionalTo) or one.field != change.field:
                return one
            return one.scaled(shares.get(path.pattern, share))

        fields = {**after.fields}
        for key, one in after.fields.items():
            if not isinstance(one, ProportionalTo) or one.field != change.field:
                continue
            fields[key] = one.scaled(share)
            for pattern, overrides in after.groups.items():
                has_own = isinstance(overrides.get(key), FieldSchedule)
                if shares.get(pattern, share) != share and not has_own:
                    raise ConfigError(
                        f"{change}: one of {change.field} and {Path(change.field, pattern=pattern)}"
                        f" has passed its peak, and {key} follows both: give these groups a {key} "
                        "of their own"
                    )
        return replace(after, fields=fields, groups=_each(after.groups, kept))

    def _findings(self, updates: int | None, increment: Number) -> Iterator[tuple[Path, Finding]]:
        for path, one in self._by_path().items():
            if not isinstance(one, Schedule):
                continue
            for finding in one.lint(path.field, updates=updates, increment=increment):
                yield path, finding
            lr = self._lr_beside(path)
            if lr is not None and has_end(lr) and one.min_value < one.max_value:
                for finding in other_end(one, one.horizon, lr.horizon):
                    yield path, finding

    def _lr_beside(self, path: Path) -> Schedule | None:
        """Return the lr schedule of the groups that another field's schedule is for, if any."""
        if path.field == "lr":
            return None
        own = self.groups.get(path.pattern or "", {}).get("lr")
        found = own if isinstance(own, Schedule) else self.fields.get("lr")
        return found if isinstance(found, Schedule) else None


def _by_path(parts: Mapping[str, Any]) -> dict[Path, Any]:
    """Return what is scheduled, fields first."""
    # A foreign state has some parts only.
    found = {Path(key): one for key, one in parts.get("fields", {}).items()}
    for pattern, overrides in parts.get("groups", {}).items():
        found |= {Path(key, pattern=pattern): one for key, one in overrides.items()}
    return found


def _each(groups: Mapping[str, Any], change: Callable[[Path, Any], Any]) -> Groups:
    """Return groups in which each override is replaced by what a function returns for it."""
    return {
        pattern: {key: change(Path(key, pattern=pattern), one) for key, one in overrides.items()}
        for pattern, overrides in groups.items()
    }


def _printable(name: str, key: object) -> str:
    found = text(name, key)
    if any(not character.isprintable() for character in found):
        raise illegal(name, key, "must be printable")
    return found


def _checked(name: str, value: object, rule: str) -> FieldSchedule | float:
    if isinstance(value, FieldSchedule):
        return value
    try:
        return rate(name, value)
    except ConfigError as error:
        raise illegal(name, value, rule) from error


def _read(data: object) -> FieldSchedule:
    # By its keys: the frozen format has no word for the kind of a schedule.
    if isinstance(data, Mapping) and data.keys() == {"peak", "to"}:
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
    """Yield what two schedules that are alike have, part by part."""
    if isinstance(mine, ProportionalTo):
        others = other.to_dict()
        for key, value in mine.to_dict().items():
            yield path.of(key), Sides(value, others[key], path.field)
        return
    for index, pair in enumerate(zip(mine.phases, other.phases, strict=True)):
        at = path.of("phases", index)
        for key, both in _phase_parts(*pair).items():
            yield Path(at.field, (*at.parts, key), at.pattern), Sides(*both, path.field)
    if mine.multiple_of is not None or other.multiple_of is not None:
        sides = Sides(mine.multiple_of, other.multiple_of, path.field)
        yield path.of("multiple_of"), sides


def _phase_parts(mine: Phase, other: Phase) -> dict[str, tuple[Any, Any]]:
    """Return what two phases have; different shapes are compared with their parameters, as one."""
    ours, others = mine.to_dict(), other.to_dict()
    if mine.shape == other.shape:
        return {key: (ours.get(key), others.get(key)) for key in ours | others}
    # Parameters of two shapes cannot be chosen one by one: cosine has no power.
    common = ("steps", "end", "start", "since", "until")
    parts = {key: (ours.get(key), others.get(key)) for key in common if key in {*ours, *others}}
    return {"shape": (_shape_text(mine), _shape_text(other)), **parts}


def _shape_text(phase: Phase) -> str:
    given = ", ".join(f"{name}={value}" for name, value in phase.parameters.items())
    return f"{phase.shape} ({given})" if given else phase.shape


def _merged(path: Path, mine: Any, other: Any, used: Mapping[Path, Any]) -> Any:
    """Build one schedule of the entries to use."""
    if not _are_alike(mine, other):
        return used[path]
    if mine == other:
        return other
    if isinstance(mine, ProportionalTo):
        return ProportionalTo.from_dict({key: used[path.of(key)] for key in mine.to_dict()})
    phases = []
    for index, (ours, others) in enumerate(zip(mine.phases, other.phases, strict=True)):
        at = path.of("phases", index)
        keys = _phase_parts(ours, others)
        chosen = {key: used[Path(at.field, (*at.parts, key), at.pattern)] for key in keys}
        if ours.shape != others.shape:  # a shape brings its own parameters along
            side = ours if chosen["shape"] == _shape_text(ours) else others
            chosen = {**chosen, **side.parameters, "shape": side.shape}
        phases.append({key: value for key, value in chosen.items() if value is not None})
    multiples = {mine.multiple_of, other.multiple_of}
    multiple_of = used[path.of("multiple_of")] if multiples != {None} else None
    # What it would be built as again, where the checkpoint wins throughout.
    if (phases, multiple_of) == (other.to_dict()["phases"], other.multiple_of):
        return other
    with within(brief(str(path))):
        return Schedule.from_dict({"phases": phases, "multiple_of": multiple_of})
