"""Tracked groups: what is remembered of each param group, and how one is recognised.

It is remembered here and never in the group, because DCP refuses to load a checkpoint that lacks a
key which the current groups have (pytorch #140900, #143828).
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from dist_sched._config.path import Path
from dist_sched._config.plan import Inventory
from dist_sched._config.policy import CONFIG
from dist_sched._optim import fields as group_fields
from dist_sched._optim.missed_loads import Snapshot
from dist_sched._optim.wrappers import as_list, innermost, may_wrap, runs_load_hooks
from dist_sched._rules import rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dist_sched._config.plan import Field
    from dist_sched._config.policy import Policy
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")

INITIAL_LR = "initial_lr"
"""What torch's schedulers call the lr that a group had before them."""
_LEFTOVERS = ("max_lr", "min_lr")
"""What OneCycleLR adds to `initial_lr`; its own, and no bounds of ours."""


@dataclass(slots=True, eq=False)
class TrackedGroup:
    """What is remembered of one group; it outlives the group's dict object."""

    group: Group
    source: int
    """Index of the optimizer."""
    index: int
    """Index of the group within its optimizer."""
    name: object = None
    """The name when it was first seen; a load that renames a group does not make it a new one."""
    own: dict[str, float | None] = dataclass_field(default_factory=dict)
    """The group's own value of each field when it was first asked for; None where it had none."""
    tensors: dict[str, torch.Tensor] = dataclass_field(default_factory=dict)
    """The script's own tensor objects, by field key."""
    overrides: Group = dataclass_field(default_factory=dict)
    """Bounds and multipliers as they were just before the optimizer was loaded."""
    carried: Group = dataclass_field(default_factory=dict)
    """What an optimizer's checkpoint had for this group, until it is compared."""
    offered: Group = dataclass_field(default_factory=dict)
    """The same before the load has succeeded: torch may yet refuse it."""
    optimizer: str = ""
    """Class of its optimizer, with the index where there are several."""
    place: int = 0
    """Index among the groups of all optimizers."""
    not_ours: frozenset[str] = frozenset()
    """Keys that the optimizer has as hyper-parameters of its own, so that they are no bounds."""
    leftovers: Group = dataclass_field(default_factory=dict)
    """Bounds that torch's OneCycleLR has left in the group; they are passed over."""
    is_late: bool = False
    """Whether it was added after the scheduler was built."""
    is_open: bool = False
    """Whether a load may still say what it had: it was added, and no step was made since."""
    ratios: dict[str, float] = dataclass_field(default_factory=dict)
    """By field, those that are not its own value's to the reference, since it was added late."""
    last_write: Snapshot | None = None
    """What it held after our last write, where its optimizer may be loaded without hooks."""

    def __str__(self) -> str:
        return (
            f"optimizer {self.source}, group {self.index}" if self.source else f"group {self.index}"
        )

    def is_at(
        self,
        group: Group,
        source: int,
        index: int,
        optimizer: str,
        place: int,
        not_ours: frozenset[str],
    ) -> bool:
        """Return whether it is this very dict, at this place."""
        known = self.source, self.index, self.optimizer, self.place, self.not_ours
        return self.group is group and known == (source, index, optimizer, place, not_ours)

    def own_value(self, key: str) -> float | None:
        """Return the value that the group was built with; None where it has no such field.

        That of lr is `initial_lr` where an earlier scheduler has left one, because lr is scheduled
        by then.

        Raises:
            ConfigError: It is no legal number.
        """
        if key not in self.own:
            found = group_fields.get(self.group, key)
            try:
                if key == "lr" and found is not None and self.has_initial_lr:
                    self.own[key] = _number(INITIAL_LR, self.group[INITIAL_LR])
                else:
                    self.own[key] = _number(key, found)
            except ConfigError as error:
                raise ConfigError(f"{self}: {error}") from error
        return self.own[key]

    @property
    def has_initial_lr(self) -> bool:
        """Whether an earlier scheduler has left its `initial_lr`."""
        return self.group.get(INITIAL_LR) is not None and INITIAL_LR not in self.not_ours

    def override(self, key: str) -> Any:
        """Return a bound or multiplier that the group has; None where it has none of its own."""
        return self._own_override(key, self.group.get(key))

    def own_overrides(self, held: Group) -> Group:
        """Return which of some bounds and multipliers are the group's own."""
        return {
            key: found for key, found in held.items() if self._own_override(key, found) is not None
        }

    def _own_override(self, key: str, found: Any) -> Any:
        if found is None or key in self.not_ours:
            return None
        return None if key in self.leftovers and self.leftovers[key] == found else found

    def note_leftovers(self) -> None:
        """Remember the bounds of the whole set of keys that torch's OneCycleLR leaves behind."""
        initial, upper, lower = (self.group.get(key, "") for key in (INITIAL_LR, *_LEFTOVERS))
        if any(type(value) not in {int, float} for value in (initial, upper, lower)):
            return
        if initial < upper and lower <= initial:
            self.leftovers = {
                key: self.group[key] for key in _LEFTOVERS if key not in self.not_ours
            }

    def put_back_tensors(self, fields: Iterable[Field]) -> None:
        """Put back the script's own objects where a load has replaced them.

        `Optimizer.load_state_dict` and DCP bring new tensors; compiled steps, CUDA graphs and users
        hold the old ones (pytorch #107076, #162359).
        """
        for field in fields:
            found = group_fields.get(self.group, field.key)
            if field.key in self.tensors:
                group_fields.assign(self.group, field.key, self.tensors[field.key])
            elif found is None and self._should_have(field):
                group_fields.assign(self.group, field.key, 0.0)  # to be written at once
            elif found is not None and not isinstance(found, float):
                group_fields.assign(self.group, field.key, float(found))

    def _should_have(self, field: Field) -> bool:
        had_it = self.own.get(field.key) is not None
        return field.is_added or (had_it and group_fields.split(field.key)[1] is None)


def _number(key: str, found: Any) -> float | None:
    if found is None or isinstance(found, tuple | list):
        return None  # of a tuple, the parts are the fields
    if isinstance(found, torch.Tensor):
        found = group_fields.shortest_decimal(key, found)
    return rate(key, found)


@dataclass(frozen=True, slots=True)
class _Memory:
    """What schedulers on one optimizer saw before they changed it, and which of them are alive.

    Parameters are held weakly: one may refer to its optimizer, and would keep it alive from here.
    """

    tracked: list[tuple[TrackedGroup, int, list[weakref.ref[Any]]]]
    """For each group what is remembered, its identity, and its parameters."""
    drivers: list[weakref.ref[Tracker]]
    """The trackers of the schedulers that write into its groups."""


_MEMORIES: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()
"""A second scheduler on an optimizer must not take what the first has written for own values."""


class Tracker:
    """The param groups of some optimizers, followed through loads, additions and exchanges.

    Args:
        optimizer: One optimizer, or several.
        fields: What is scheduled; own values of these are read at once.

    Raises:
        ConfigError: There is no optimizer, or a group has an illegal value. Nothing has changed.
    """

    def __init__(self, optimizer: Any, fields: Sequence[Field]) -> None:
        self._turn_to(optimizer, fields)
        self.driven = frozenset(field.key for field in fields)
        """The fields that are written."""
        self.is_replaced = False
        """Whether a newer scheduler writes one of these fields."""
        self.is_waiting = False
        """Whether the next step has to look at what a load or a new group has left."""
        self.has_named_writes = False
        """Whether it was logged that something else writes them; once is enough."""
        self.recalled: list[TrackedGroup] = []
        """What earlier schedulers on these optimizers remembered of the groups."""
        self.known_lr: frozenset[int] = frozenset()
        """By identity of own values, the groups whose lr earlier ones of ours have written."""
        for source, one in enumerate(self.optimizers()):
            memory = _memory_of(one)
            if memory is not None:
                self.recalled += _recall(memory, one, source)
        self.known_lr = frozenset(id(one.own) for one in self.recalled if "lr" in one.own)
        self.tracked = self._recognise(self.recalled, fields)

    def _turn_to(self, optimizer: Any, fields: Sequence[Field]) -> None:
        self.sources = as_list(optimizer, fields)
        # Wrappers are searched each time, since what is inside may be exchanged.
        self._leaves = None if any(map(may_wrap, self.sources)) else self.sources
        self._by_optimizer: dict[int, list[TrackedGroup]] | None = None
        """By identity of an optimizer, its tracked groups, once they were asked for."""
        is_sole = self.optimizers() == self.sources[:1]
        self.sole = self.sources[0] if self.sources and is_sole else None

    def optimizers(self) -> list[Any]:
        """Return the optimizers that are stepped, without what wraps them."""
        if self._leaves is not None:
            return self._leaves
        return [leaf for source in self.sources for leaf in innermost(source)]

    def groups(self) -> list[Group]:
        """Return the present param groups of all optimizers; none where another writes them."""
        if self.is_replaced:
            return []
        if self.sole is not None:
            groups: list[Group] = self.sole.param_groups
            return groups
        return [group for leaf in self.optimizers() for group in leaf.param_groups]

    def tracked_of(self, optimizer: Optimizer) -> list[TrackedGroup]:
        """Return the tracked groups of one optimizer."""
        if self._by_optimizer is None:
            optimizers = self.optimizers()
            self._by_optimizer = {}
            for one in self.tracked:
                self._by_optimizer.setdefault(id(optimizers[one.source]), []).append(one)
        return self._by_optimizer.get(id(optimizer), [])

    def sources_without_memory(self) -> Iterator[tuple[int, Any]]:
        """Yield the optimizers, with their indices, that no earlier scheduler has driven."""
        known = {one.source for one in self.recalled}
        for source, optimizer in enumerate(self.optimizers()):
            if source not in known:
                yield source, optimizer

    def turn_to(self, optimizer: Any, fields: Sequence[Field], rebind: Callable[[], None]) -> None:
        """Follow another optimizer; groups with the same parameters stay the same.

        Args:
            optimizer: One optimizer, or several.
            fields: What is scheduled.
            rebind: Called after the exchange. If it raises, the exchange is undone.

        Raises:
            ConfigError: It is no optimizer, or what `rebind` raises.
        """
        sources, tracked = self.sources, self.tracked
        self._turn_to(optimizer, fields)
        try:
            rebind()
        except ConfigError:
            self._turn_to(sources, fields)
            self.tracked, self._by_optimizer = tracked, None
            raise

    def rebind(
        self,
        fields: Sequence[Field],
        check: Callable[[TrackedGroup], None],
        loaded: Optimizer | None = None,
    ) -> list[TrackedGroup]:
        """Track the present groups: those known before, and new ones.

        Args:
            fields: What is scheduled.
            check: Called with each new group before anything changes; may raise.
            loaded: An optimizer whose groups a load has just replaced.

        Returns:
            The new groups.
        """
        previous = self.tracked
        tracked = self._recognise(previous, fields)
        # By the dict of own values, which `replace` hands on: the group's dict may be another one.
        known = {id(one.own) for one in previous}
        late = [one for one in tracked if id(one.own) not in known]
        for one in late:
            one.is_late = True
            check(one)
        self.tracked, self._by_optimizer = tracked, None
        self.own_tensors(fields, previous, loaded)
        return late

    def follow_load(
        self, optimizer: Optimizer, fields: Sequence[Field]
    ) -> list[tuple[Group, TrackedGroup]] | None:
        """Follow groups whose dicts a load has replaced, without a look at all others.

        Returns:
            Each former dict, and the group; None where more than that has changed.
        """
        tracked, groups = self.tracked_of(optimizer), optimizer.param_groups
        if len(tracked) != len(groups):
            return None
        for one, group in zip(tracked, groups, strict=True):
            has_tensors = one.tensors or group_fields.tensors_in(group, fields)
            if has_tensors or not _have_same_params(one.group, group):
                return None
        former = [(one.group, one) for one in tracked]
        for one, group in zip(tracked, groups, strict=True):
            one.group = group
            one.put_back_tensors(fields)
        return former

    def new_groups(self, fields: Sequence[Field]) -> list[TrackedGroup] | None:
        """Return the groups that were added behind those tracked, which `append` may take up.

        Returns:
            None where more than that has changed.
        """
        optimizer, known = self.sole, self.tracked
        if not isinstance(optimizer, Optimizer) or not known:
            return None
        groups: list[Group] = optimizer.param_groups
        added = groups[len(known) :]
        same = all(one.group is group for one, group in zip(known, groups, strict=False))
        if not added or not same or any(group_fields.tensors_in(one, fields) for one in added):
            return None
        found = []
        for index, group in enumerate(added, start=len(known)):
            one = TrackedGroup(group, 0, index, group.get("name"), place=index, is_late=True)
            one.optimizer, one.not_ours = known[0].optimizer, known[0].not_ours
            one.note_leftovers()
            found.append(one)
        return found

    def append(self, added: Iterable[TrackedGroup], fields: Sequence[Field]) -> None:
        """Track what `new_groups` has found."""
        memory = _memory_of(self.sole)
        for one in added:
            one.put_back_tensors(fields)
            self.tracked.append(one)
            if memory is not None:
                memory.tracked.append(_remembered(one))
        self._by_optimizer = None

    def own_tensors(
        self,
        fields: Sequence[Field],
        previous: Iterable[TrackedGroup],
        loaded: Optimizer | None = None,
    ) -> None:
        """Make each group hold tensors of its own: the script's, where a load has replaced them.

        Args:
            fields: What is scheduled.
            previous: Groups whose tensors are theirs already, but for those of `loaded`.
            loaded: An optimizer whose groups a load has just replaced.
        """
        optimizers = self.optimizers()
        known = {id(one.group) for one in previous}
        for one in self.tracked:
            if id(one.group) not in known or optimizers[one.source] is loaded:
                one.put_back_tensors(fields)
        # The defaults too, else a group that is added later would share the tensor that is written.
        holders = [one.group for one in self.tracked]
        defaults = (getattr(optimizer, "defaults", None) for optimizer in optimizers)
        holders += [holder for holder in defaults if isinstance(holder, dict)]
        for field in fields:
            group_fields.unshare(holders, field.key)
        for one in self.tracked:
            one.tensors = group_fields.tensors_in(one.group, fields)

    def take_over(self) -> None:
        """Make other schedulers of the same fields and optimizers raise at their next write."""
        for optimizer in self.optimizers():
            memory = _memory_of(optimizer)
            for driver in [] if memory is None else memory.drivers:
                older = driver()
                if older is None or older is self or older.is_replaced:
                    continue
                fields = sorted(self.driven & older.driven)
                if fields:
                    older.is_replaced, older.sole = True, None
                    logger.warning(
                        "a newer scheduler writes %s of %s from now on, and the older one raises "
                        "at its next step: keep one of the two",
                        ", ".join(fields),
                        type(optimizer).__name__,
                    )

    def remember(self) -> None:
        """Leave what is remembered with the optimizers, for a later scheduler."""
        by_source: dict[int, list[TrackedGroup]] = {}
        for one in self.tracked:
            by_source.setdefault(one.source, []).append(one)
        for source, optimizer in enumerate(self.optimizers()):
            try:
                tracked = list(map(_remembered, by_source.get(source, [])))
                memory = _memory_of(optimizer)
                others = [] if memory is None else memory.drivers
                drivers = [one for one in others if one() not in (None, self)]
                _MEMORIES[optimizer] = _Memory(tracked, [*drivers, weakref.ref(self)])
            except TypeError:
                logger.debug("%s cannot be referred to weakly", type(optimizer).__name__)

    def labels(self) -> list[str]:
        """Return what metrics call each group: a name or index, with both indices if not unique."""
        names = [one.name if isinstance(one.name, str) else "" for one in self.tracked]
        counts = Counter(
            name or str(one.index) for name, one in zip(names, self.tracked, strict=True)
        )
        labels = []
        for name, one in zip(names, self.tracked, strict=True):
            short = name or str(one.index)
            whole = f"{one.source}.{one.index}"
            labels.append(short if counts[short] == 1 else f"{name}.{whole}" if name else whole)
        return labels

    def names(self) -> list[str]:
        """Return how the groups are named, in order."""
        return list(dict.fromkeys(one.name for one in self.tracked if isinstance(one.name, str)))

    def inventory(self) -> Inventory:
        """Return how the groups are named, and which fields they have."""
        names = frozenset(self.names())
        fields = (key for one in self.tracked for key in group_fields.names_in(one.group))
        return Inventory(names=names, fields=frozenset(fields))

    def note_load(
        self, optimizer: Optimizer, saved: Sequence[Group], fields: Sequence[Field]
    ) -> None:
        """Remember what groups have just before a load, and what the load carries.

        Args:
            optimizer: The optimizer that is about to be loaded.
            saved: The param groups of its checkpoint.
            fields: What is scheduled.
        """
        self.is_waiting = True
        override_keys = _override_keys(fields)
        keys = [*override_keys, *(field.key for field in fields)]
        for one in self.tracked_of(optimizer):
            # `load_state_dict` replaces dicts and tensors alike, so both are noted before it.
            one.tensors = group_fields.tensors_in(one.group, fields)
            one.overrides = {
                key: found for key in override_keys if (found := one.override(key)) is not None
            }
            group = saved[one.index] if one.index < len(saved) else {}
            carried = {key: group_fields.get(group, key) for key in keys}
            one.offered = {
                # A copy, because a load may hand the very tensor over, which is then written.
                key: found.clone() if isinstance(found, torch.Tensor) else found
                for key, found in carried.items()
                if found is not None
            }

    def note_writes(self, fields: Sequence[Field]) -> None:
        """Remember what was just written, where a load may run without hooks."""
        optimizers = self.optimizers()
        for one in self.tracked:
            if not runs_load_hooks(optimizers[one.source]):
                one.last_write = Snapshot.of(one.group, fields)

    def doubt(self, optimizer: Optimizer) -> None:
        """Expect an optimizer to change its groups once more, when its load hooks have run."""
        for one in self.tracked_of(optimizer):
            if one.last_write is not None:
                one.last_write.is_in_doubt = True

    def is_in_doubt(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer was loaded since the last write, in a way of its own."""
        groups = {id(group) for group in optimizer.param_groups}
        last = (one.last_write for one in self.tracked_of(optimizer))
        return any(
            one.is_in_doubt or id(one.group) not in groups for one in last if one is not None
        )

    def note_missed_load(
        self, optimizer: Any, now: Sequence[Snapshot], *, is_load: bool
    ) -> list[str] | None:
        """Do what `note_load` does, after a load that ran no hooks.

        Args:
            optimizer: The optimizer that was perhaps loaded.
            now: What its groups hold now.
            is_load: As for `Snapshot.was_loaded`.

        Returns:
            A sentence for each value that differs from the last write; None where no load is found.
        """
        lines: list[str] = []
        found = False
        for one in self.tracked_of(optimizer):
            held, last = now[one.index], one.last_write
            one.overrides = one.own_overrides((held if last is None else last).overrides)
            if last is not None and last.was_loaded(held, is_load=is_load):
                found = True
                one.carried, one.offered = {**held.values, **held.overrides}, {}
                lines += [f"{one}: {line}" for line in last.differences(held)]
        return lines if found else None

    def resolve_overrides(
        self, optimizer: Optimizer, fields: Sequence[Field], policy: Policy
    ) -> list[str]:
        """Resolve by policy the bounds and multipliers that an optimizer's load brought.

        Returns:
            A sentence for each difference.
        """
        lines = []
        for one in self.tracked_of(optimizer):
            if one.offered:
                one.carried, one.offered = one.offered, {}
            bounds = {key: one.overrides.get(key) for key in _LEFTOVERS}
            if any(one.override(key) != bound for key, bound in bounds.items()):
                one.note_leftovers()
            for key in _override_keys(fields):
                script, loaded = one.overrides.get(key), one.override(key)
                if key in one.not_ours or script == loaded:
                    continue
                word = policy.word(Path(key))
                if word == CONFIG:
                    group_fields.assign_or_drop(one.group, key, one.overrides)
                used = "script's" if word == CONFIG else "optimizer checkpoint's"
                lines.append(
                    f"{one}: {key} is {script!r} in the script and {loaded!r} in the optimizer "
                    f"checkpoint; using the {used} value (policy {word!r})"
                )
        return lines

    def put_back_overrides(self, optimizer: Optimizer, fields: Sequence[Field]) -> None:
        """Restore the bounds and multipliers that the groups had before the load."""
        for one in self.tracked_of(optimizer):
            for key in _override_keys(fields):
                if key not in one.not_ours:
                    group_fields.assign_or_drop(one.group, key, one.overrides)

    def forget_carried(self) -> None:
        """Drop what loaded optimizers carried, once it was compared."""
        for one in self.tracked:
            one.carried = one.offered = {}

    def _recognise(
        self, previous: Iterable[TrackedGroup], fields: Sequence[Field]
    ) -> list[TrackedGroup]:
        """Find each present group among those tracked before, or track it as a new one.

        It is the same dict, or has the same parameters: a load makes new dicts, and some frameworks
        new optimizers over the same parameters. A group without parameters is known by its place.
        """
        previous = list(previous)
        by_group = {id(one.group): one for one in previous}
        by_param = {id(param): one for one in previous for param in _params(one.group)}
        by_place = {(one.source, one.index): one for one in previous if not _params(one.group)}
        tracked: list[TrackedGroup] = []
        optimizers = self.optimizers()
        for source, optimizer in enumerate(optimizers):
            label = type(optimizer).__name__ + (f" {source}" if len(optimizers) > 1 else "")
            defaults = getattr(optimizer, "defaults", None)
            not_ours = frozenset(
                key
                for key in (INITIAL_LR, "lr_scale", *_override_keys(fields))
                if isinstance(defaults, dict) and key in defaults
            )
            for index, group in enumerate(optimizer.param_groups):
                found = by_group.get(id(group))
                if found is None and _params(group):
                    same = (by_param.get(id(param)) for param in _params(group))
                    found = next((one for one in same if one is not None), None)
                elif found is None:
                    found = by_place.get((source, index))
                if found is None:
                    tensors = group_fields.tensors_in(group, fields)
                    found = TrackedGroup(group, source, index, group.get("name"), tensors=tensors)
                    found.not_ours = not_ours
                    found.note_leftovers()
                place = group, source, index, label, len(tracked), not_ours
                if not found.is_at(*place):
                    names = ("group", "source", "index", "optimizer", "place", "not_ours")
                    found = replace(found, **dict(zip(names, place, strict=True)))
                tracked.append(found)
        for one in tracked:
            for field in fields:
                one.own_value(field.key)
        return tracked


def _remembered(one: TrackedGroup) -> tuple[TrackedGroup, int, list[weakref.ref[Any]]]:
    references = [*map(weakref.ref, _params(one.group))]
    return replace(one, group={}, last_write=None), id(one.group), references


def _have_same_params(one: Group, other: Group) -> bool:
    mine, others = _params(one), _params(other)
    return len(mine) == len(others) and all(map(is_, mine, others))


def _memory_of(optimizer: Any) -> _Memory | None:
    try:
        return _MEMORIES.get(optimizer)
    except TypeError:  # neither hashable nor weakly referable, which only stand-ins are
        return None


def _recall(memory: _Memory, optimizer: Any, source: int) -> list[TrackedGroup]:
    """Track what an earlier scheduler left, with the groups' own dicts where they are the same."""
    present = {id(group): group for group in optimizer.param_groups}
    recalled = []
    for one, identity, references in memory.tracked:
        params = [param for reference in references if (param := reference()) is not None]
        group = present.get(identity, {})
        # An identity may belong to another dict by now, so the first parameter must agree too.
        is_same = [*map(id, _params(group))][:1] == [*map(id, params)][:1]
        if is_same:
            recalled.append(replace(one, group=group, name=group.get("name"), source=source))
        else:
            recalled.append(replace(one, group={"params": params}, source=source))
    return recalled


def _override_keys(fields: Iterable[Field]) -> list[str]:
    return [key for field in fields for key in field.override_keys()]


def _params(group: Group) -> Sequence[Any]:
    params: Sequence[Any] = group.get("params", ())
    return params
