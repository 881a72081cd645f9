"""Specifications: a schedule for any field, and for named groups their own; plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from dist_sched._config.entries import ABSENT, Misfit, Sides
from dist_sched._config.plan import Field, Inventory, Override, Plan
from dist_sched._config.policy import Policy
from dist_sched._curves.lint import Finding
from dist_sched._curves.phases import Phase, Schedule
from dist_sched._curves.proportional import ProportionalCurve, ProportionalTo
from dist_sched._rules import Number, illegal, near_miss, rate, text
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dist_sched._config.history import Change
    from dist_sched._curves.curve import Curve

_KNOWN_FIELDS = {
    "lr": Field("lr", "max_lr", "min_lr", "lr_mult", has_bounds=False),
    "weight_decay": Field("weight_decay", "end_wd", "start_wd", "wd_mult", has_bounds=False),
}


_FIELD = re.compile(r"[A-Za-z_]\w*(\[\d+\])?")

Course = Schedule | ProportionalTo
Groups = dict[str, dict[str, Course | float]]


def always(value: float) -> Schedule:
    """Give the schedule of one value."""
    return Schedule([Phase("constant", 0, value, value)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """What `ParamScheduler` is given: a schedule for each field, and what named groups have.

    Raises:
        ConfigError: Names field or pattern, value and rule.
    """

    fields: dict[str, Course]
    """By param-group key; a number is a constant schedule."""
    groups: Groups
    """By pattern of names and then by field: a schedule, or a multiplier of the field's."""

    KIND: ClassVar[str] = "ParamScheduler"
    TEXT_NAME: ClassVar[str] = "specification"
    STATE_KEYS: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        given = _mapping(self.fields, "fields")
        if not given:
            raise ConfigError("fields={}: give at least one field and its schedule")
        plan = {_key("field", key): _course(key, course) for key, course in given.items()}
        groups = {
            _key("pattern", pattern): {
                key: _own(f"groups[{pattern}].{key}", course)
                for key, course in _mapping(own, f"groups[{pattern}]").items()
            }
            for pattern, own in _mapping(self.groups, "groups").items()
        }
        object.__setattr__(self, "fields", plan)
        object.__setattr__(self, "groups", groups)
        self._check()

    @classmethod
    def of(
        cls,
        fields: Mapping[str, Course | float],
        groups: Mapping[str, Mapping[str, Course | float]] | None = None,
    ) -> Specification:
        """Build a specification in which a number may stand for a constant schedule."""
        return cls(fields=fields, groups=groups or {})  # type: ignore[arg-type] # made so when built

    def _check(self) -> None:
        """Make sure that what refers to a field refers to one that is scheduled."""
        for pattern, own in self.groups.items():
            for key in own:
                if key not in self.fields:
                    close = near_miss(key, self.fields)
                    raise ConfigError(
                        f"groups[{pattern}].{key}: {key!r} is not among the scheduled fields{close}"
                    )
        for name, course in self._every():
            if isinstance(course, ProportionalTo):
                self._schedule_for(name, course)
            is_weight = Field(name.rpartition("].")[2] or name).is_weight
            if is_weight and isinstance(course, Schedule) and course.max_value >= 1:
                raise ConfigError(
                    f"{name} would reach {course.max_value!r}, and must be below 1: lower the schedule"
                )

    def _every(self) -> Iterator[tuple[str, Course | float]]:
        """Give what there is, by the names that reports use."""
        yield from self.fields.items()
        for pattern, own in self.groups.items():
            yield from ((f"groups[{pattern}].{key}", course) for key, course in own.items())

    def _schedule_for(
        self,
        name: str,
        proportional_to: ProportionalTo,
        own: Mapping[str, Course | float] | None = None,
    ) -> ProportionalCurve:
        """Give the curve of a proportional_to field, which follows a group's own schedule if it has one."""
        found = {**self.fields, **_schedules(own or {})}.get(proportional_to.field)
        if not isinstance(found, Schedule):
            close = near_miss(proportional_to.field, self.fields)
            raise illegal(
                f"{name}.to", proportional_to.field, f"must be a field with a schedule{close}"
            )
        if found.max_value == 0:
            raise ConfigError(f"{name} follows {proportional_to.field}, which is 0 throughout")
        return proportional_to.following(found)

    @classmethod
    def check_entry(cls, name: str, value: object) -> NoReturn:  # noqa: ARG003
        """Refuse: no entry stands in the state under its own name."""
        raise ConfigError(f"{name}: is not known")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> dict[str, Any]:
        """Check, part by part, what `told` once gave.

        Raises:
            Misfit: A part is missing, unknown or illegal.
        """
        for name in sorted(told.keys() ^ {"fields", "groups"}, key=str):
            reason = "is not known to this release" if name in told else "is missing"
            raise Misfit(str(name), reason)
        fields = {
            key: _fitting(f"fields.{key}", _read_course, course)
            for key, course in _fitting("fields", _mapping, told["fields"]).items()
        }
        groups = {
            pattern: {
                key: _fitting(f"groups[{pattern}].{key}", _read_own, course)
                for key, course in _fitting(f"groups[{pattern}]", _mapping, own).items()
            }
            for pattern, own in _fitting("groups", _mapping, told["groups"]).items()
        }
        read = _fitting("fields", lambda _: cls(fields=fields, groups=groups), None)
        return {"fields": read.fields, "groups": read.groups}

    @classmethod
    def of_parts(cls, read: Mapping[str, Any]) -> Specification:
        """Build a specification of what was read."""
        return cls(**read)

    def parts(self) -> dict[str, Any]:
        """Give what `of_parts` takes."""
        return {"fields": self.fields, "groups": self.groups}

    def told(self) -> dict[str, Any]:
        """Give the whole as data for JSON."""
        return {
            "fields": {key: _told(course) for key, course in self.fields.items()},
            "groups": {
                pattern: {key: _told(course) for key, course in own.items()}
                for pattern, own in self.groups.items()
            },
        }

    def entries(self) -> dict[str, Any]:
        """Give the entries by name: paths such as `lr.phases[1].steps`."""
        return {name: sides.config for name, sides in self.sides(self.parts()).items()}

    def summary(self) -> dict[str, str]:
        """Say in a line each what is scheduled, for people."""
        return {name: str(course) for name, course in self._every()}

    def sides(self, theirs: Mapping[str, Any]) -> dict[str, Sides]:
        """Give what this specification and what was read of a checkpoint have, path by path.

        Schedules of the same number of phases are compared phase by phase; other ones are one
        entry.
        """
        found: dict[str, Sides] = {}
        for name, (key, mine, other) in self._pairs(theirs).items():
            parts = _parts(mine, other)
            if parts is None:
                is_curve = isinstance(mine, Schedule | ProportionalTo) or isinstance(
                    other, Schedule | ProportionalTo
                )
                found[name] = Sides(mine, other, key if is_curve else "")
            else:
                found |= {f"{name}{path}": Sides(*both, key) for path, both in parts.items()}
        return found

    def united(self, other: Specification, inventory: Inventory) -> Specification:
        """Give this specification, with what another rank's has and this rank could not declare.

        That is fields that none of its groups has, and patterns that match none of their names.
        """
        fields = {key: one for key, one in other.fields.items() if key not in inventory.fields}
        groups = {
            pattern: own
            for pattern, own in other.groups.items()
            if not any(fnmatchcase(name, pattern) for name in inventory.names)
        }
        return Specification(fields={**fields, **self.fields}, groups={**groups, **self.groups})

    def merged(self, theirs: Mapping[str, Any], used: Mapping[str, Any]) -> Specification:
        """Build a specification of the entries to use, named as in `sides`.

        Raises:
            ConfigError: They make none, or a field is the checkpoint's alone: its groups may not
                have it here.
        """
        chosen = {
            name: _merged(name, mine, other, used)
            for name, (_, mine, other) in self._pairs(theirs).items()
        }
        for name in theirs.get("fields", {}):
            if name not in self.fields and chosen[name] is not ABSENT:
                raise ConfigError(
                    f"{name} is scheduled in the checkpoint and not here: schedule it, or leave it "
                    f"alone with policy={{{name!r}: 'config', ...}}"
                )
        fields = {key: chosen[key] for key in self.fields}
        groups = {
            pattern: {
                key: course
                for key in {**self.groups.get(pattern, {}), **own}
                if (course := chosen[f"groups[{pattern}].{key}"]) is not ABSENT
            }
            for pattern, own in {**self.groups, **theirs.get("groups", {})}.items()
        }
        return Specification(
            fields=fields, groups={pattern: own for pattern, own in groups.items() if own}
        )

    def _pairs(self, theirs: Mapping[str, Any]) -> dict[str, tuple[str, Any, Any]]:
        """Give by name the field, and what the two sides have for it."""
        others = theirs.get("fields", {})
        found: dict[str, tuple[str, Any, Any]] = {
            key: (key, self.fields.get(key, ABSENT), others.get(key, ABSENT))
            for key in {**self.fields, **others}
        }
        patterns = theirs.get("groups", {})
        for pattern in {**self.groups, **patterns}:
            mine, other = self.groups.get(pattern, {}), patterns.get(pattern, {})
            for key in {**mine, **other}:
                name = f"groups[{pattern}].{key}"
                found[name] = (key, mine.get(key, ABSENT), other.get(key, ABSENT))
        return found

    def parse_policy(
        self,
        policy: str | Mapping[str, str] | None,
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse a policy, which may also name entries that only a checkpoint has."""
        return Policy.parse(
            policy,
            tuple(self.entries()),
            self._may_name,
            use_checkpoint=use_checkpoint,
            override=override,
        )

    def _may_name(self, entry: str) -> bool:
        """Return whether a checkpoint may have an entry that this specification lacks.

        That is any part of one's own phases, any named group, and a field that is no misspelt one.
        """
        if entry.startswith("groups["):
            return "]" in entry
        course = self.fields.get(entry.partition(".")[0])
        if course is not None:
            phase, _, part = entry.partition(".phases[")[2].partition("].")
            known = ("start", "until", *(name for name in _parameters_of(course)))
            return phase.isdecimal() and int(phase) < len(_phases_of(course)) and part in known
        return _FIELD.fullmatch(entry) is not None and not near_miss(entry, self.fields)

    def unused(self) -> frozenset[str]:
        """Name the entries that have no influence: none."""
        return frozenset()

    def plan(self) -> Plan:
        """Give the curve of each field, and those of named groups."""
        fields = tuple(_KNOWN_FIELDS.get(key) or Field(key) for key in self.fields)
        base = [self._curve(key, course) for key, course in self.fields.items()]
        return Plan.of(fields, base, self._overrides())

    def _curve(
        self, name: str, course: Course, own: Mapping[str, Course | float] | None = None
    ) -> Curve:
        return (
            self._schedule_for(name, course, own) if isinstance(course, ProportionalTo) else course
        )

    def _overrides(self) -> Iterator[Override]:
        for pattern, own in self.groups.items():
            for key, course in own.items():
                if isinstance(course, float):
                    yield Override(pattern=pattern, field=key, multiplier=course)
                else:
                    curve = self._curve(f"groups[{pattern}].{key}", course, own)
                    is_elsewhere = isinstance(
                        course, ProportionalTo
                    ) and course.field not in _schedules(own)
                    follows = (
                        course.field if isinstance(course, ProportionalTo) and is_elsewhere else ""
                    )
                    yield Override(pattern=pattern, field=key, curve=curve, follows=follows)
            for key, course in self.fields.items():
                is_told = isinstance(own.get(key), Schedule | ProportionalTo)
                if (
                    isinstance(course, ProportionalTo)
                    and course.field in _schedules(own)
                    and not is_told
                ):
                    curve = self._schedule_for(key, course, own)
                    yield Override(pattern=pattern, field=key, curve=curve, is_implied=True)

    def changed(self, change: Change) -> Specification:
        """Give the specification that a late change makes of this one.

        Every schedule of the field changes, those that groups have of their own too: `end` and
        `peak` are then in proportion to their highest values, and one that ends later than an
        extension asks for stays.

        Raises:
            ConfigError: It is illegal, or the field has no schedule.
        """
        course = self.fields.get(change.field)
        if course is None:
            close = near_miss(change.field, self.fields)
            raise illegal("field", change.field, f"is not scheduled{close}")
        if isinstance(course, ProportionalTo):
            raise illegal("field", change.field, f"follows {course.field}: change that one")
        return replace(
            self,
            fields={**self.fields, change.field: change.applied(course)},
            groups={
                pattern: {
                    key: _changed(found, course, change) if key == change.field else found
                    for key, found in own.items()
                }
                for pattern, own in self.groups.items()
            },
        )

    def lint(self, *, updates: int | None = None, increment: Number = 1) -> tuple[Finding, ...]:
        """Name what is legal and yet probably not meant.

        Args:
            updates: Length of the run in optimizer updates, to be compared with the horizon.
            increment: Units that an update completes.
        """
        found = [
            Finding(finding.position, f"{name}: {finding.message}")
            for name, course in self._every()
            if isinstance(course, Schedule)
            for finding in course.lint(
                name.rpartition(".")[2], updates=updates, increment=increment
            )
        ]
        return tuple(sorted(found, key=lambda finding: finding.position))


def _changed(own: Course | float, base: Schedule, change: Change) -> Course | float:
    """Make a late change of what a group has of its own."""
    if not isinstance(own, Schedule):
        return own
    if change.operation == "extend" and own.horizon >= change.arguments["horizon"]:
        return own
    return change.applied(own, own.max_value / base.max_value if base.max_value else 1.0)


def _phases_of(course: Course) -> tuple[Phase, ...]:
    return course.phases if isinstance(course, Schedule) else ()


def _parameters_of(course: Course) -> Iterator[str]:
    for phase in _phases_of(course):
        yield from phase.parameters


def _schedules(own: Mapping[str, Course | float]) -> dict[str, Course | float]:
    return {key: course for key, course in own.items() if isinstance(course, Schedule)}


def _mapping(found: object, name: str = "value") -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise illegal(name, found, "must be a mapping")
    return found


def _key(name: str, key: object) -> str:
    found = text(name, key)
    if any(not character.isprintable() for character in found):
        raise illegal(name, key, "must be printable")
    return found


def _course(name: str, course: object) -> Course:
    """Take a schedule, a coupling, or a number, which is a constant schedule."""
    if isinstance(course, Schedule | ProportionalTo):
        return course
    try:
        return always(rate(name, course))
    except ConfigError as error:
        rule = (
            "must be a schedule (of dist_sched.schedules, or Schedule([Phase(...), ...])), "
            "schedules.proportional_to(...), or a number"
        )
        raise illegal(name, course, rule) from error


def _own(name: str, course: object) -> Course | float:
    """Take a schedule, a coupling, or a multiplier."""
    if isinstance(course, Schedule | ProportionalTo):
        return course
    try:
        return rate(name, course)
    except ConfigError as error:
        rule = "must be a Schedule, or a number that multiplies the field's"
        raise illegal(name, course, rule) from error


def _fitting(part: str, read: Callable[[Any], Any], told: object) -> Any:
    try:
        return read(told)
    except ConfigError as error:
        raise Misfit(part, str(error)) from error


def _read_course(told: object) -> Course:
    if isinstance(told, Mapping) and told.keys() == {"peak", "to"}:
        return ProportionalTo.from_dict(told)
    return Schedule.from_dict(told)


def _read_own(told: object) -> Course | float:
    return _read_course(told) if isinstance(told, Mapping) else _multiplier(told)


def _multiplier(told: object) -> float:
    return rate("multiplier", told)


def _told(course: Course | float) -> Any:
    return course if isinstance(course, float) else course.to_dict()


def _parts(mine: Any, theirs: Any) -> dict[str, tuple[Any, Any]] | None:
    """Give by path what two plan have, or None where they cannot be compared part by part."""
    if isinstance(mine, ProportionalTo) and isinstance(theirs, ProportionalTo):
        return {f".{key}": (value, theirs.to_dict()[key]) for key, value in mine.to_dict().items()}
    if not _are_alike(mine, theirs):
        return None
    return {
        f".phases[{index}].{key}": both
        for index, pair in enumerate(zip(mine.phases, theirs.phases, strict=True))
        for key, both in _phase_parts(*pair).items()
    }


def _phase_parts(mine: Phase, theirs: Phase) -> dict[str, tuple[Any, Any]]:
    """Give what two phases have; shapes that differ are compared with their parameters, as one."""
    ours, others = mine.to_dict(), theirs.to_dict()
    if mine.shape == theirs.shape:
        return {key: (ours.get(key), others.get(key)) for key in {**ours, **others}}
    common = ("steps", "end", "start", "until")
    parts = {key: (ours.get(key), others.get(key)) for key in common if key in {*ours, *others}}
    return {"shape": (_shape_told(mine), _shape_told(theirs)), **parts}


def _shape_told(phase: Phase) -> str:
    given = ", ".join(f"{name}={value}" for name, value in phase.parameters.items())
    return f"{phase.shape} ({given})" if given else phase.shape


def _are_alike(mine: Any, theirs: Any) -> bool:
    are_schedules = isinstance(mine, Schedule) and isinstance(theirs, Schedule)
    return are_schedules and len(mine.phases) == len(theirs.phases)


def _merged(name: str, mine: Any, theirs: Any, used: Mapping[str, Any]) -> Any:
    """Build one course of the entries to use."""
    parts = _parts(mine, theirs)
    if parts is None:
        return used[name]
    chosen = {path: used[f"{name}{path}"] for path in parts}
    if isinstance(mine, ProportionalTo):
        return ProportionalTo(chosen[".to"], at_max=chosen[".peak"])
    phases = [
        _merged_phase(
            *pair, {key: chosen[f".phases[{index}].{key}"] for key in _phase_parts(*pair)}
        )
        for index, pair in enumerate(zip(mine.phases, theirs.phases, strict=True))
    ]
    try:
        return Schedule.from_dict({"phases": phases})
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _merged_phase(mine: Phase, theirs: Phase, chosen: dict[str, Any]) -> dict[str, Any]:
    """Give one phase of the parts to use; a shape brings its parameters along."""
    if mine.shape != theirs.shape:
        side = mine if chosen["shape"] == _shape_told(mine) else theirs
        chosen = {**chosen, **side.parameters, "shape": side.shape}
    return {key: value for key, value in chosen.items() if value is not None}
