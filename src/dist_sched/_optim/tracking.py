"""Tracked groups: information about each param group, and how a group is recognised.

The information is kept here and never in the group, because DCP cannot load a checkpoint that lacks
a key of the current groups (pytorch #140900, #143828).
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
from dist_sched._optim import buffers
from dist_sched._optim import fields as group_fields
from dist_sched._optim.missed_loads import Snapshot
from dist_sched._optim.wrappers import as_list, innermost, may_wrap, runs_load_hooks
from dist_sched._rules import rate
from dist_sched.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dist_sched._config.plan import Field
    from dist_sched._config.policy import Policy
    from dist_sched._optim.buffers import Buffer, Slot
    from dist_sched._optim.fields import Group

logger = logging.getLogger("dist_sched")

INITIAL_LR = "initial_lr"
"""Key in which torch's schedulers keep the lr that a group had before them."""
_LEFTOVERS = ("max_lr", "min_lr")
"""Keys that torch's OneCycleLR adds beside `initial_lr`. They are not bounds for us."""

_EMPTY: dict[str, Any] = {}
"""Shared by groups, because a dict of its own takes 64 bytes. Never changed in place."""


def _empty() -> dict[str, Any]:
    return _EMPTY


@dataclass(slots=True, eq=False)
class TrackedGroup:
    """Information about one group. It stays valid if a load replaces the group's dict."""

    group: Group
    source: int
    """Index of the optimizer."""
    index: int
    """Index of the group within its optimizer."""
    name: object = None
    """The name when it was first seen. A load that renames a group does not make it a new one."""
    own: dict[str, float | None] = dataclass_field(default_factory=dict)
    """The group's own value of each field, or None if it does not have the field."""
    tensors: dict[str, torch.Tensor] = dataclass_field(default_factory=_empty)
    """The script's own tensor objects, by field key."""
    overrides: Group = dataclass_field(default_factory=_empty)
    """Bounds and multipliers just before the optimizer was loaded."""
    carried: Group = dataclass_field(default_factory=_empty)
    """The group's values in an optimizer's checkpoint, until they are compared."""
    offered: Group = dataclass_field(default_factory=_empty)
    """The same before the load has succeeded."""
    optimizer: str = ""
    """Class of its optimizer, with the index if there are several."""
    place: int = 0
    """Index among the groups of all optimizers."""
    not_ours: frozenset[str] = frozenset()
    """Keys that are hyper-parameters of the optimizer, and therefore not bounds."""
    leftovers: Group = dataclass_field(default_factory=_empty)
    """Bounds that torch's OneCycleLR has left in the group. They are ignored."""
    is_late: bool = False
    """Whether it was added after the scheduler was built."""
    is_open: bool = False
    """Whether it was added, and a load before the next step may still determine its ratio."""
    ratios: dict[str, float] = dataclass_field(default_factory=_empty)
    """Ratios by field that are not the own value over the reference, for a group added late."""
    last_write: Snapshot | None = None
    """The contents after our last write, if its optimizer may be loaded without hooks."""

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
        """Return whether it has this dict and this place."""
        known = self.source, self.index, self.optimizer, self.place, self.not_ours
        return self.group is group and known == (source, index, optimizer, place, not_ours)

    def own_value(self, key: str) -> float | None:
        """Return the group's own value of a field, or None if it does not have the field.

        For lr it is `initial_lr` if an earlier scheduler has left it, because lr itself is then a
        scheduled value.

        Raises:
            ConfigError: The value is invalid.
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
        """Return a bound or multiplier of the group, or None if it has none."""
        return self._own_override(key, self.group.get(key))

    def own_overrides(self, held: Group) -> Group:
        """Return the bounds and multipliers that are overrides of the group."""
        return {
            key: found for key, found in held.items() if self._own_override(key, found) is not None
        }

    def _own_override(self, key: str, found: Any) -> Any:
        if found is None or key in self.not_ours:
            return None
        return None if key in self.leftovers and self.leftovers[key] == found else found

    def note_leftovers(self) -> None:
        """Remember bounds left by torch's OneCycleLR, if its whole set of keys is there."""
        initial, upper, lower = (self.group.get(key, "") for key in (INITIAL_LR, *_LEFTOVERS))
        if any(type(value) not in {int, float} for value in (initial, upper, lower)):
            return
        if initial < upper and lower <= initial:
            self.leftovers = {
                key: self.group[key] for key in _LEFTOVERS if key not in self.not_ours
            }

    def put_back_tensors(self, fields: Iterable[Field]) -> None:
        """Restore the script's own tensors after a load has replaced them.

        `Optimizer.load_state_dict` and DCP create new tensors, but compiled steps, CUDA graphs and
        users hold the old ones (pytorch #107076, #162359).
        """
        for field in fields:
            found = group_fields.get(self.group, field.key)
            if field.key in self.tensors:
                group_fields.assign(self.group, field.key, self.tensors[field.key])
            elif found is None and self._should_have(field):
                group_fields.assign(self.group, field.key, 0.0)  # written immediately afterwards
            elif found is not None and not isinstance(found, float):
                group_fields.assign(self.group, field.key, float(found))

    def _should_have(self, field: Field) -> bool:
        had_it = self.own.get(field.key) is not None
        return field.is_added or (had_it and group_fields.split(field.key)[1] is None)


def _number(key: str, found: Any) -> float | None:
    if found is None or isinstance(found, tuple | list):
        return None  # the fields are the parts of a tuple
    if isinstance(found, torch.Tensor):
        found = group_fields.shortest_decimal(key, found)
    return rate(key, found)


@dataclass(frozen=True, slots=True)
class _Memory:
    """Information that earlier schedulers on an optimizer have left.

    Parameters are referenced weakly, because they may refer to their optimizer.
    """

    tracked: list[tuple[TrackedGroup, int, tuple[weakref.ref[Any], ...]]]
    """The information, identity and parameters of each group."""
    drivers: list[weakref.ref[Tracker]]
    """The trackers of the schedulers that write into its groups."""


_MEMORIES: weakref.WeakKeyDictionary[Any, _Memory] = weakref.WeakKeyDictionary()
"""Memories by optimizer: a second scheduler must not mistake written values for own values."""


class Tracker:
    """The param groups of some optimizers, followed through loads, additions and exchanges.

    Args:
        optimizer: One optimizer, or several.
        fields: The scheduled fields, whose own values are read immediately.

    Raises:
        ConfigError: There is no optimizer, or a group has an invalid value. Nothing has changed.
    """

    def __init__(self, optimizer: Any, fields: Sequence[Field]) -> None:
        self._turn_to(optimizer, fields)
        self.slots: dict[int, Slot] = {}
        """The place of each tensor that is in a buffer, by the tensor's identity."""
        self.buffers: list[Buffer] = []
        """The buffers of these tensors."""
        self.driven = frozenset(field.key for field in fields)
        """The fields that are written."""
        self.is_replaced = False
        """Whether a newer scheduler writes one of these fields."""
        self.is_waiting = False
        """Whether the next step must finish the work for a load or a new group."""
        self.has_named_writes = False
        """Whether the warning about something else that writes the fields was logged."""
        self.recalled: list[TrackedGroup] = []
        """Information from earlier schedulers on these optimizers."""
        self.known_lr: frozenset[int] = frozenset()
        """Groups whose lr an earlier scheduler of ours has written, by identity of `own`."""
        _refresh_memories(self.optimizers())
        for source, one in enumerate(self.optimizers()):
            self.recalled += _recall(one, source)
        self.known_lr = frozenset(id(one.own) for one in self.recalled if "lr" in one.own)
        self.tracked = self._recognise(self.recalled, fields)
        self.is_waiting = any(one.is_open for one in self.tracked)

    def __getstate__(self) -> dict[str, Any]:
        # The tensors of a copy are not in these buffers.
        return {**self.__dict__, "slots": {}, "buffers": []}

    def _turn_to(self, optimizer: Any, fields: Sequence[Field]) -> None:
        self.sources = as_list(optimizer, fields)
        # Wrappers are searched each time, because the optimizer inside may be replaced.
        self._leaves = None if any(map(may_wrap, self.sources)) else self.sources
        self._by_optimizer: dict[int, list[TrackedGroup]] | None = None
        """Tracked groups by identity of the optimizer, as soon as they are needed."""
        is_sole = self.optimizers() == self.sources[:1]
        self.sole = self.sources[0] if self.sources and is_sole else None

    def optimizers(self) -> list[Any]:
        """Return the optimizers that are stepped, without their wrappers."""
        if self._leaves is not None:
            return self._leaves
        return [leaf for source in self.sources for leaf in innermost(source)]

    def groups(self) -> list[Group]:
        """Return the present param groups of all optimizers.

        After a replacement it is one that nobody knows, so that the next write raises.
        """
        if self.is_replaced:
            return [{}]  # not an empty list: a copy that has written nothing knows no group, either
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
        """Yield the optimizers without an earlier scheduler, and their indices."""
        known = {one.source for one in self.recalled}
        for source, optimizer in enumerate(self.optimizers()):
            if source not in known:
                yield source, optimizer

    def turn_to(self, optimizer: Any, fields: Sequence[Field], rebind: Callable[[], None]) -> None:
        """Switch to another optimizer. Groups with the same parameters stay the same.

        Args:
            optimizer: One optimizer, or several.
            fields: The scheduled fields.
            rebind: Called after the switch. If it raises, the switch is undone.

        Raises:
            ConfigError: It is not an optimizer, or `rebind` raises.
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
            fields: The scheduled fields.
            check: Called with each new group before anything changes. It may raise.
            loaded: An optimizer whose groups a load has just replaced.

        Returns:
            The new groups.
        """
        previous = self.tracked
        tracked = self._recognise(previous, fields)
        # Compared by the dict of own values, because the group's dict may have been replaced.
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
        """Track groups whose dicts a load has replaced, without checking all other groups.

        Returns:
            Each former dict with its group. None if anything else has changed.
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
        """Return the groups that were added after the tracked ones, for `append`.

        Returns:
            The new groups. None if anything else has changed.
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
        """Track the groups from `new_groups`."""
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
        """Make sure that each group has its own tensors, and the script's after a load.

        Args:
            fields: The scheduled fields.
            previous: Groups that already have their own tensors, except groups of `loaded`.
            loaded: An optimizer whose groups a load has just replaced.
        """
        optimizers = self.optimizers()
        known = {id(one.group) for one in previous}
        for one in self.tracked:
            if id(one.group) not in known or optimizers[one.source] is loaded:
                one.put_back_tensors(fields)
        # Defaults, too, because a group that is added later would share their tensor.
        holders = [one.group for one in self.tracked]
        defaults = (getattr(optimizer, "defaults", None) for optimizer in optimizers)
        holders += [holder for holder in defaults if isinstance(holder, dict)]
        for field in fields:
            group_fields.unshare(holders, field.key)
        for one in self.tracked:
            one.tensors = group_fields.tensors_in(one.group, fields) or _EMPTY
        self._move_tensors(fields)

    def _move_tensors(self, fields: Sequence[Field]) -> None:
        """Move the groups' tensors into buffers, and the tensors of removed groups out of them."""
        tensors = {id(held): held for one in self.tracked for held in one.tensors.values()}
        for buffer in self.buffers:
            for tensor in buffer.tensors:
                if id(tensor) not in tensors:
                    buffers.release(tensor, self.slots)
        whole = [field for field in fields if group_fields.split(field.key)[1] is None]
        for field in whole:  # the tensors in tuples are filled one by one
            held = (one.tensors.get(field.key) for one in self.tracked)
            buffers.move([tensor for tensor in held if tensor is not None], self.slots)
        self.buffers = list({id(slot.buffer): slot.buffer for slot in self.slots.values()}.values())

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
                        "a newer scheduler writes %s of %s from now on, and the older one will "
                        "raise an error at its next step; use only one of the two",
                        ", ".join(fields),
                        type(optimizer).__name__,
                    )

    def remember(self) -> None:
        """Keep the information about groups for later schedulers of these optimizers."""
        if self.is_replaced:  # a newer scheduler knows more
            return
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
        """Return each group's label for metrics: name or index, with both indices if not unique."""
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
        """Return the names of the groups, in order."""
        return list(dict.fromkeys(one.name for one in self.tracked if isinstance(one.name, str)))

    def inventory(self) -> Inventory:
        """Return the names and fields of the groups."""
        names = frozenset(self.names())
        fields = (key for one in self.tracked for key in group_fields.names_in(one.group))
        return Inventory(names=names, fields=frozenset(fields))

    def note_load(
        self, optimizer: Optimizer, saved: Sequence[Group], fields: Sequence[Field]
    ) -> None:
        """Remember the groups' contents just before a load, and the values in the checkpoint.

        Args:
            optimizer: The optimizer that will be loaded.
            saved: The param groups of its checkpoint.
            fields: The scheduled fields.
        """
        self.is_waiting = True
        override_keys = _override_keys(fields)
        keys = [*override_keys, *(field.key for field in fields)]
        for one in self.tracked_of(optimizer):
            # `load_state_dict` replaces both dicts and tensors.
            one.tensors = group_fields.tensors_in(one.group, fields) or _EMPTY
            one.overrides = {
                key: found for key in override_keys if (found := one.override(key)) is not None
            }
            group = saved[one.index] if one.index < len(saved) else {}
            carried = {key: group_fields.get(group, key) for key in keys}
            one.offered = {
                # A copy, because the group may get this very tensor, which is then written.
                key: found.clone() if isinstance(found, torch.Tensor) else found
                for key, found in carried.items()
                if found is not None
            }

    def note_writes(self, fields: Sequence[Field]) -> None:
        """Remember the written values, if a load may run without hooks."""
        optimizers = self.optimizers()
        for one in self.tracked:
            if not runs_load_hooks(optimizers[one.source]):
                one.last_write = Snapshot.of(one.group, fields)

    def doubt(self, optimizer: Optimizer) -> None:
        """Note that an optimizer may change its groups again after its load hooks."""
        for one in self.tracked_of(optimizer):
            if one.last_write is not None:
                one.last_write.is_in_doubt = True

    def is_in_doubt(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer that overrides loading was loaded since the last write."""
        groups = {id(group) for group in optimizer.param_groups}
        last = (one.last_write for one in self.tracked_of(optimizer))
        return any(
            one.is_in_doubt or id(one.group) not in groups for one in last if one is not None
        )

    def note_missed_load(
        self, optimizer: Any, now: Sequence[Snapshot], *, is_load: bool
    ) -> list[str] | None:
        """Do the work of `note_load` after a load that ran no hooks.

        Args:
            optimizer: The optimizer that may have been loaded.
            now: The present contents of its groups.
            is_load: As for `Snapshot.was_loaded`.

        Returns:
            A sentence for each value that differs from the last write. None if there was no load.
        """
        lines: list[str] = []
        found = False
        for one in self.tracked_of(optimizer):
            held, last = now[one.index], one.last_write
            one.overrides = one.own_overrides((held if last is None else last).overrides)
            if last is not None and last.was_loaded(held, is_load=is_load):
                found = True
                one.carried, one.offered = {**held.values, **held.overrides}, _EMPTY
                lines += [f"{one}: {line}" for line in last.differences(held)]
        return lines if found else None

    def resolve_overrides(
        self, optimizer: Optimizer, fields: Sequence[Field], policy: Policy
    ) -> list[str]:
        """Choose by policy between the script's bounds and multipliers and the loaded ones.

        Returns:
            A sentence for each difference.
        """
        lines = []
        for one in self.tracked_of(optimizer):
            if one.offered:
                one.carried, one.offered = one.offered, _EMPTY
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
        """Restore the bounds and multipliers from before the load."""
        for one in self.tracked_of(optimizer):
            for key in _override_keys(fields):
                if key not in one.not_ours:
                    group_fields.assign_or_drop(one.group, key, one.overrides)

    def stop_waiting(self) -> Callable[[], None]:
        """Stop waiting for loads that determine ratios of late groups, because training begins.

        Returns:
            A function that waits again.
        """
        before = [(one, one.is_open, one.carried, one.offered) for one in self.tracked]

        def wait_again() -> None:
            self.is_waiting = True
            for one, is_open, carried, offered in before:
                one.is_open, one.carried, one.offered = is_open, carried, offered

        self.is_waiting = False
        self.forget_carried()
        if any(one.is_open for one in self.tracked):
            for one in self.tracked:
                one.is_open = False
            self.remember()
        return wait_again

    def forget_carried(self) -> None:
        """Forget the values from optimizers' checkpoints, after they were compared."""
        for one in self.tracked:
            one.carried = one.offered = _EMPTY

    def _recognise(
        self, previous: Iterable[TrackedGroup], fields: Sequence[Field]
    ) -> list[TrackedGroup]:
        """Return the tracked groups for the present groups: known ones, and new ones.

        A known group is the same dict, or has the same parameters, because loads create new dicts,
        and some frameworks create new optimizers. A group without parameters is recognised by its
        place.
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
                    tensors = group_fields.tensors_in(group, fields) or _EMPTY
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


def _remembered(one: TrackedGroup) -> tuple[TrackedGroup, int, tuple[weakref.ref[Any], ...]]:
    references = (*map(weakref.ref, _params(one.group)),)
    return replace(one, group=_EMPTY, last_write=None), id(one.group), references


def _have_same_params(one: Group, other: Group) -> bool:
    mine, others = _params(one), _params(other)
    return len(mine) == len(others) and all(map(is_, mine, others))


def _memory_of(optimizer: Any) -> _Memory | None:
    try:
        return _MEMORIES.get(optimizer)
    except TypeError:  # not hashable or not weakly referable, such as a mock
        return None


def _refresh_memories(optimizers: Iterable[Any]) -> None:
    """Let the schedulers that wrote these optimizers last remember what they have measured."""
    memories = (memory for memory in map(_memory_of, optimizers) if memory is not None)
    for latest in {memory.drivers[-1]() for memory in memories}:
        if latest is not None:
            latest.remember()


def _recall(optimizer: Any, source: int) -> list[TrackedGroup]:
    """Return tracked groups from an earlier scheduler, with their dicts if still the same."""
    memory = _memory_of(optimizer)
    if memory is None:
        return []
    present = {id(group): group for group in optimizer.param_groups}
    recalled = []
    for one, identity, references in memory.tracked:
        params = [param for reference in references if (param := reference()) is not None]
        group = present.get(identity, {})
        # Another dict may have this identity now, so the first parameter must be equal, too.
        is_same = [*map(id, _params(group))][:1] == [*map(id, params)][:1]
        if is_same:
            known = replace(one, group=group, name=group.get("name"), source=source)
        else:
            known = replace(one, group={"params": params}, source=source)
        if not known.is_open:  # else they may still determine its ratio
            known.carried = known.offered = _EMPTY
        recalled.append(known)
    return recalled


def _override_keys(fields: Iterable[Field]) -> list[str]:
    return [key for field in fields for key in field.override_keys()]


def _params(group: Group) -> Sequence[Any]:
    params: Sequence[Any] = group.get("params", ())
    return params
