"""The rules that the state machines share, and what holds after each of them."""

from __future__ import annotations

import copy
import json
import logging
import math
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dist_sched import ConfigError, ReconcileError, StateError
from helpers import contents, held, optimizer_of, text_of, with_text
from machine_model import OVERRIDES, Group, Model, Refused, Save

ILLEGAL = [-1.0, math.nan, math.inf, "0.1", True]
SOMETHING_ELSE = "something else writes"
SAVES = st.integers(0, 7)
PLACES = st.integers(0, 3)
INCREMENTS = st.sampled_from([0, 1, 1, 2, 5, 17, 64, 1000, 10**9])
POSITIONS = st.sampled_from([0, 1, 4, 8, 10, 16, 40, 60, 90, 100, 104, 110, 111, 5000])
_PLAIN = Group({}, {}, {})


@dataclass
class Driven:
    """The real things: an optimizer, its scheduler, and the tensors that the script holds."""

    optimizer: Any
    scheduler: Any
    tensors: dict[int, tuple[Any, torch.Tensor]] = field(default_factory=dict)
    """Each group's first parameter, which keeps its identity, and the script's tensor."""

    def seen(self, fields: tuple[str, ...]) -> tuple[Any, ...]:
        """Return all that an operation which fails must leave as it was."""
        scheduler = self.scheduler
        groups = [
            [
                (key, one[key])
                for key in (*fields, *(key for _, key in OVERRIDES))
                if one.get(key) is not None
            ]
            for one in contents(self.optimizer)
        ]
        return (
            repr(groups),
            scheduler.state_dict(),
            scheduler.num_steps,
            scheduler.history,
            id(scheduler.last_reconciliation),
        )


class Messages(logging.Handler):
    """Keeps what the library logs."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def named(self) -> int:
        """Return how often something else was said to write."""
        return sum(SOMETHING_ELSE in text for text in self.texts)


class SchedulerMachine(RuleBasedStateMachine):
    """The rules of both machines. Each adds its configs, its foreign states and late changes."""

    defaults: dict[str, float]
    optimizer_class: Any

    def __init__(self) -> None:
        super().__init__()
        self.messages = Messages()
        self.logger = logging.getLogger("dist_sched")
        self.was = self.logger.level, self.logger.propagate
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.addHandler(self.messages)
        self.saves: list[Save] = []
        self.model: Any = None
        self.driven: Any = None

    def teardown(self) -> None:
        self.logger.removeHandler(self.messages)
        level, self.logger.propagate = self.was
        self.logger.setLevel(level)

    # What a machine adds ------------------------------------------------------------------------

    def build(self, optimizer: Any, model: Model) -> Any:
        raise NotImplementedError

    def settings_of(self) -> Any:
        """Return a strategy for what a script passes to the constructor."""
        raise NotImplementedError

    # What the rules use -------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        return self.driven.scheduler

    @property
    def is_clean(self) -> bool:
        """Whether every group holds what its overrides say, and no group is new."""
        if self.model is None or any(one.is_pending for one in self.model.groups):
            return False
        now = self.model.values(self.model.position)
        return all(one.held == values for one, values in zip(self.model.groups, now, strict=True))

    def perform(self, real: Any, expected: Any) -> bool:
        """Do something, and the same to the model; where the model refuses, nothing changes."""
        after = copy.deepcopy(self.model)
        before = self.driven.seen(self.model.fields)
        try:
            expected(after)
        except Refused as refused:
            with pytest.raises(refused.errors) as caught:
                real()
            assert len(str(caught.value)) < 4000
            assert before == self.driven.seen(self.model.fields)
            return False
        real()
        self.model = after
        return True

    def refuse(self, real: Any, *errors: type[Exception]) -> None:
        def refused(_: Model) -> None:
            raise Refused(*errors)

        self.perform(real, refused)

    def changing(
        self, operation: str, arguments: dict[str, Any], *, allow_jump: bool = False
    ) -> None:
        """Make a late change."""
        keywords = {} if operation == "scale" else {"allow_jump": allow_jump}
        self.perform(
            lambda: getattr(self.scheduler, operation)(**arguments, **keywords),
            lambda model: model.change(operation, arguments, allow_jump=allow_jump),
        )

    def optimizer_of(self, groups: list[Group]) -> Any:
        """Return an optimizer of the groups that the model has."""
        made = []
        for one in groups:
            # None means no override. Some of the groups with one have all keys.
            nones = dict.fromkeys(key for _, key in OVERRIDES) if one.own["lr"] == 0.5 else {}
            overrides = {**nones, **one.overrides} if one.overrides else {}
            name = {} if one.name is None else {"name": one.name}
            made.append({**one.own, **overrides, **name})
        for one, group in zip(made, groups, strict=True):
            if group.is_tensor:
                one["lr"] = torch.tensor(one["lr"])
        optimizer = optimizer_of(self.optimizer_class, *made, **self.defaults)
        if any(group.is_tensor for group in groups):
            optimizer.defaults["lr"] = torch.tensor(self.defaults["lr"])
        return optimizer

    def begin(self, model: Model, optimizer: Any = None) -> None:
        """Build an optimizer and its scheduler."""
        before = len(self.messages.texts)
        optimizer = self.optimizer_of(model.groups) if optimizer is None else optimizer
        holds = contents(optimizer)
        try:
            model.start()
        except Refused as refused:
            with pytest.raises(refused.errors):
                self.build(optimizer, model)
            assert repr(holds) == repr(contents(optimizer))
            assume(self.driven is not None)
            return
        scheduler = self.build(optimizer, model)
        assert not any(SOMETHING_ELSE in text for text in self.messages.texts[before:])
        self.messages.texts.clear()
        self.driven, self.model = Driven(optimizer, scheduler), model

    # Rules --------------------------------------------------------------------------------------

    @rule(increment=INCREMENTS)
    def step(self, increment):
        self.perform(lambda: self.scheduler.step(increment), lambda model: model.step(increment))

    @rule(position=POSITIONS)
    def seek(self, position):
        self.perform(lambda: self.scheduler.seek(position), lambda model: model.seek(position))

    @precondition(lambda self: self.is_clean)
    @rule()
    def save(self):
        model = self.model
        self.saves.append(
            Save(
                self.scheduler.state_dict(),
                copy.deepcopy(self.driven.optimizer.state_dict()),
                copy.deepcopy(model.groups),
                model.position,
                model.config,
                model.history,
                model.unit,
            )
        )
        self.saves = self.saves[-8:]

    def saved(self, index: int) -> Save:
        return self.saves[index % len(self.saves)]

    def loading(self, save: Save, state: Any = None) -> bool:
        """Load a state of ours, of which the text is the save's."""
        state = save.state if state is None else state

        def expected(model: Model) -> None:
            model.load(
                save.position,
                save.config.parts(),
                save.history,
                unit=save.unit,
                text=save.state["dist_sched"],
                curve=save.config.after(save.history),
            )

        return self.loading_as(state, expected)

    def loading_as(self, state: Any, expected: Any) -> bool:
        """Load a state, and compare the report."""
        done = self.perform(lambda: self.scheduler.load_state_dict(state), expected)
        if done:
            self.check_report()
        return done

    def check_report(self) -> None:
        report = self.scheduler.last_reconciliation
        effective, position = self.model.effective, self.model.position
        used = {one.field: one.used for one in report.next_update}
        assert position == report.position
        for key in self.model.fields:
            # As exact as a group without overrides.
            assert self.is_same(_PLAIN, effective.base_value(key, position), used[key], key)

    def loading_optimizer(self, save: Save) -> bool:
        done = self.perform(
            lambda: self.driven.optimizer.load_state_dict(copy.deepcopy(save.optimizer)),
            lambda model: model.load_optimizer(save.groups),
        )
        if not done and len(save.groups) == len(self.model.groups):
            # What is none of ours was loaded all the same.
            for group, other in zip(self.model.groups, save.groups, strict=True):
                group.name_held = other.name_held
                others = {key for key in other.held if key not in self.model.fields}
                group.held.update({key: other.held[key] for key in others})
        return done

    @precondition(lambda self: self.saves)
    @rule(index=SAVES, times=st.integers(1, 2))
    def load(self, index, times):
        """Load a state, perhaps twice; an earlier one is a rollback."""
        for _ in range(times):
            self.loading(self.saved(index))

    @precondition(lambda self: self.saves)
    @rule(index=SAVES)
    def load_optimizer(self, index):
        self.loading_optimizer(self.saved(index))

    def fitting(self, index: int) -> Save:
        """Return a save of as many groups as there are now, if there is one."""
        count = len(self.model.groups)
        saves = [one for one in self.saves if len(one.groups) == count] or self.saves
        return saves[index % len(saves)]

    @precondition(lambda self: self.is_clean)
    @rule(
        place=PLACES,
        key=st.sampled_from([key for _, key in OVERRIDES]),
        value=st.sampled_from([None, 0.25, 0.5]),
        is_kept=st.booleans(),
    )
    def load_optimizer_over_an_edit(self, place, key, value, is_kept):
        self.save()
        self.edit_override(place, key, value, is_kept)
        self.loading_optimizer(self.saves[-1])

    @precondition(lambda self: self.saves)
    @rule(index=SAVES, is_first=st.booleans())
    def resume(self, index, is_first):
        """Load both, in either order."""
        save = self.fitting(index)
        if is_first:
            self.loading(save)
        self.loading_optimizer(save)
        if not is_first:
            self.loading(save)

    @precondition(lambda self: self.is_clean)
    @rule(
        settings=st.runner().flatmap(lambda self: self.other_settings()),
        is_first=st.booleans(),
        has_optimizer=st.booleans(),
    )
    def start_again(self, settings, is_first, has_optimizer):
        """Save, start the same script or an edited one, and load."""
        self.save()
        save, former = self.saves[-1], self.model
        groups = [
            Group(
                dict(one.own),
                dict(one.own),
                dict(one.overrides),
                one.name,
                one.name,
                is_tensor=one.is_tensor,
            )
            for one in former.groups
        ]
        names = ("declared", "policy", "unit", "keeps", "defaults", "fields")
        same = {name: getattr(former, name) for name in names}
        both = {**same, **settings}
        reference = former.reference if both["keeps"] else {}
        self.begin(Model(groups=groups, **{**both, "reference": reference}))
        if self.model is former:
            return
        if is_first:
            self.loading(save)
        if has_optimizer:
            self.loading_optimizer(save)
        if not is_first:
            self.loading(save)

    def other_settings(self):
        """Return what an edit of the script changes: often nothing, and else what is drawn."""
        drawn = self.settings_of()
        return st.one_of(st.just({}), drawn.map(lambda found: {"policy": found["policy"]}), drawn)

    @precondition(lambda self: self.saves)
    @rule(index=SAVES, position=POSITIONS)
    def load_torn(self, index, position):
        """Load a state whose key for the position is another save's: its text is used.

        But a text that is this scheduler's own now, and was not loaded, was never read.
        """
        save = self.saved(index)
        state = {**save.state, "num_steps": position}
        own = self.scheduler.state_dict()["dist_sched"]
        if own == state["dist_sched"] != self.model.loaded_text and position != save.position:
            self.load_keys(state)
        else:
            self.loading(save, state)

    def load_keys(self, state: dict[str, Any]) -> None:
        """Load the plain keys of a state."""
        raise NotImplementedError

    @precondition(lambda self: self.saves)
    @rule(index=SAVES, offset=st.sampled_from([1, -1, 1000]))
    def load_at_another_position(self, index, offset):
        save = self.saved(index)
        expected = max(0, save.position + offset)
        if expected != save.position:
            self.refuse(
                lambda: self.scheduler.load_state_dict(save.state, expected_position=expected),
                StateError,
            )

    @precondition(lambda self: self.saves)
    @rule(
        index=SAVES,
        harm=st.sampled_from(["empty", "list", "version", "json", "position", "unit", "part"]),
    )
    def load_malformed(self, index, harm):
        state = self.saved(index).state
        text = text_of(state)
        harmed = {
            "empty": {},
            "list": [],
            "version": with_text(state, {**text, "version": 99}),
            "json": {**state, "dist_sched": state["dist_sched"][:-1]},
            "position": with_text(state, {**text, "position": -1}),
            "unit": with_text(state, {**text, "unit": "parsecs"}),
            "part": with_text(state, {**text, "more": 1}),
        }[harm]
        self.refuse(lambda: self.scheduler.load_state_dict(harmed), StateError)

    @rule(
        operation=st.sampled_from(["step", "seek", "exchange"]),
        number=st.sampled_from([-1, 0.5, True, "1", None, math.nan, math.inf, 2**53 + 1, [{}]]),
    )
    def misuse(self, operation, number):
        """Pass what is neither a number of units nor an optimizer."""

        def real() -> None:
            if operation == "exchange":
                self.scheduler.optimizer = number
            else:
                getattr(self.scheduler, operation)(number)

        self.refuse(real, ConfigError)

    def edit(self, place: int, key: str, value: Any, *, is_kept: bool = False) -> None:
        """Write an override into a group, or None; it acts at the next write.

        None means no override, and the group keeps the key or not.
        """
        index = place % len(self.model.groups)
        real, known = self.driven.optimizer.param_groups[index], self.model.groups[index]
        known.overrides.pop(key, None)
        real.pop(key, None)
        self.model.is_written = False
        if value is not None:
            known.overrides[key] = real[key] = value
        elif is_kept:
            real[key] = None

    @rule(
        place=PLACES,
        key=st.sampled_from([key for _, key in OVERRIDES]),
        value=st.sampled_from([None, None, 0.0, 0.25, 0.5, 1, 2.0]),
        is_kept=st.booleans(),
    )
    def edit_override(self, place, key, value, is_kept):
        index = place % len(self.model.groups)
        before = self.model.groups[index].overrides.get(key)
        self.edit(place, key, value, is_kept=is_kept)
        try:
            self.model.values(self.model.position)
        except Refused:  # by a rule between two of them
            if not any(one.is_pending for one in self.model.groups):
                self.refuse_all()
            self.edit(place, key, before)

    def refuse_all(self) -> None:
        scheduler = self.scheduler
        self.refuse(lambda: scheduler.step(1), ConfigError)
        self.refuse(lambda: scheduler.seek(3), ConfigError)
        self.refuse(scheduler.get_last_lr, ConfigError)
        self.refuse(scheduler.describe_groups, ConfigError)
        model, save = self.model, self.saves[-1] if self.saves else None
        # Other curves may make an override legal.
        if save and save.config == model.config == model.declared and save.history == model.history:
            errors = ConfigError, ReconcileError, StateError
            self.refuse(lambda: scheduler.load_state_dict(save.state), *errors)

    @precondition(lambda self: self.is_clean)
    @rule(
        place=PLACES,
        override=st.sampled_from(OVERRIDES),
        value=st.sampled_from(ILLEGAL),
    )
    def edit_illegally(self, place, override, value):
        (field_, key), index = override, place % len(self.model.groups)
        group = self.driven.optimizer.param_groups[index]
        if not self.is_read(field_, self.model.groups[index]):
            return
        had = {key: group[key]} if key in group else {}
        group[key] = value
        self.refuse_all()
        del group[key]
        group.update(had)

    @precondition(lambda self: self.is_clean and not any(one.is_open for one in self.model.groups))
    @rule(place=PLACES, override=st.sampled_from(OVERRIDES), value=st.sampled_from(ILLEGAL))
    def load_illegal_override(self, place, override, value):
        """Load an optimizer whose group has an override that only the policy "config" ignores."""
        (field_, key), index = override, place % len(self.model.groups)
        if not self.is_read(field_, self.model.groups[index]):
            return
        state = copy.deepcopy(self.driven.optimizer.state_dict())
        state["param_groups"][index][key] = value
        policy = self.model.policy

        def expected(model: Model) -> None:
            if policy.get(key, policy["*"]) != "config":
                raise Refused(ConfigError)
            model.load_optimizer(copy.deepcopy(model.groups))

        self.perform(lambda: self.driven.optimizer.load_state_dict(state), expected)

    def is_read(self, key: str, group: Group) -> bool:  # noqa: ARG002 - for a subclass
        """Return whether a group's overrides of a field are read."""
        return key in self.model.fields

    @rule(
        settings=st.fixed_dictionaries(
            {},
            optional={
                "lr": st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 8.0]),
                "weight_decay": st.sampled_from([0.0, 0.05, 0.1, 0.2]),
                "lr_mult": st.sampled_from([0.5, 3.0]),
                "max_lr": st.sampled_from([0.5, 2.0]),
            },
        ),
        name=st.sampled_from([None, None, "head", "tail"]),
    )
    def add_group(self, settings, name):
        if len(self.model.groups) > 4:
            return
        own = {**self.defaults, **{key: settings[key] for key in self.defaults if key in settings}}
        overrides = {key: value for key, value in settings.items() if key not in own}
        lr = self.driven.optimizer.defaults["lr"]
        is_tensor = "lr" not in settings and isinstance(lr, torch.Tensor)
        group = Group(own, dict(own), overrides, name, name, is_tensor=is_tensor, is_pending=True)
        try:
            for key in self.model.fields:
                self.model.value(group, key, self.model.position)
        except Refused:
            return
        named = {} if name is None else {"name": name}
        parameter = torch.nn.Parameter(torch.ones(2))
        self.driven.optimizer.add_param_group({"params": [parameter], **settings, **named})
        self.model.groups.append(group)

    @precondition(lambda self: self.model is not None and len(self.model.groups) > 1)
    @rule(place=PLACES)
    def remove_group(self, place):
        index = place % len(self.model.groups)
        del self.driven.optimizer.param_groups[index]
        del self.model.groups[index]
        self.model.is_written = False

    @precondition(lambda self: self.is_clean and self.model.is_written)
    @rule(place=PLACES, value=st.sampled_from([0.0, 0.125, 7.0]), position=POSITIONS)
    def something_else_writes(self, place, value, position):
        """Overwrite an lr: the next write wins, and the first time it is named."""
        index = place % len(self.model.groups)
        group, key = self.driven.optimizer.param_groups[index], self.model.fields[0]
        if held(self.driven.optimizer, key)[index] == value:
            return
        if isinstance(group[key], torch.Tensor):
            group[key].fill_(value)
        else:
            group[key] = value
        self.perform(lambda: self.scheduler.seek(position), lambda model: model.seek(position))
        self.model.is_named = True

    def through(self, copied: tuple[Any, Any]) -> None:
        """Go on with a copy, which leaves what it was copied from alone."""
        before = self.driven.seen(self.model.fields)
        former, (optimizer, scheduler) = self.driven, copied
        assert scheduler.optimizer is optimizer
        driven = Driven(optimizer, scheduler)
        if self.is_clean:
            scheduler.step(0)
            self.perform(lambda: None, lambda model: model.step(0))
        else:
            self.model.is_written = False
        assert before == former.seen(self.model.fields)
        self.driven = driven

    @rule(settings=st.runner().flatmap(lambda self: self.settings_of()))
    def rebuild(self, settings):
        """Build a newer scheduler on the same optimizer: the older one's next write raises."""
        groups = copy.deepcopy(self.model.groups)
        for group in groups:
            group.name = group.name_held
            group.carried = group.carried if group.is_open else {}
        older, former = self.driven, self.model
        self.begin(Model(groups=groups, fields=former.fields, **settings), older.optimizer)
        if self.driven is older:
            return
        self.driven.tensors = older.tensors
        before = self.driven.seen(self.model.fields)
        with pytest.raises(ConfigError, match="newer scheduler"):
            older.scheduler.step(1)
        with pytest.raises(ConfigError, match="newer scheduler"):
            older.scheduler.seek(3)
        assert before == self.driven.seen(self.model.fields)

    @rule(is_pickle=st.booleans())
    def copy(self, is_pickle):
        both = self.driven.optimizer, self.scheduler
        self.through(pickle.loads(pickle.dumps(both)) if is_pickle else copy.deepcopy(both))  # noqa: S301

    @precondition(lambda self: self.is_clean)
    @rule(keeps_overrides=st.booleans(), lr=st.sampled_from([0.125, 5.0]))
    def exchange_optimizer(self, keeps_overrides, lr):
        """Assign another optimizer over the same parameters."""
        model = self.model
        groups = [
            {
                **{
                    key: value
                    for key, value in group.items()
                    if key not in [one for _, one in OVERRIDES]
                },
                **(known.overrides if keeps_overrides else {}),
                "lr": torch.tensor(lr) if known.is_tensor else lr,
            }
            for group, known in zip(self.driven.optimizer.param_groups, model.groups, strict=True)
        ]
        other = self.optimizer_class(groups, **self.defaults)
        former = self.driven.optimizer

        def expected(model: Model) -> None:
            for group in model.groups:
                group.overrides = group.overrides if keeps_overrides else {}
            model.write(model.position)

        def real() -> None:
            self.scheduler.optimizer = other

        if self.perform(real, expected):
            before = repr(contents(former))
            self.driven.optimizer = other
            assert repr(contents(former)) == before

    # Invariants ---------------------------------------------------------------------------------

    @invariant()
    def groups_hold_what_the_model_says(self):
        if self.model is None:
            return
        for group, known in zip(self.driven.optimizer.param_groups, self.model.groups, strict=True):
            for key, value in known.held.items():
                found, is_tensor = group[key], known.is_tensor and key == "lr"
                if is_tensor:
                    if not known.is_pending:
                        parameter = group["params"][0]
                        _, first = self.driven.tensors.setdefault(id(parameter), (parameter, found))
                        assert first is found
                    value, found = known.holds(key), found.item()  # noqa: PLW2901
                assert type(found) is float, (key, found)
                assert self.is_same(known, value, found, key), (key, value, found)
            keys = {key for _, key in OVERRIDES if group.get(key) is not None}
            assert set(known.overrides) == keys

    def is_same(self, group: Group, value: float, found: float, key: str) -> bool:  # noqa: ARG002
        return value == found

    @invariant()
    def what_is_said_agrees_with_what_the_groups_hold(self):
        model = self.model
        if model is None or any(one.is_pending for one in model.groups):
            return
        values, scheduler = model.values(model.position), self.scheduler
        assert model.position == scheduler.num_steps
        table = scheduler.describe_groups()
        said = [
            {row.field: row.value for row in table if row.group == index}
            for index in range(len(model.groups))
        ]
        for group, mine, theirs, lr in zip(
            model.groups, values, said, scheduler.get_last_lr(), strict=True
        ):
            assert mine.keys() == theirs.keys()
            assert all(self.is_same(group, mine[key], theirs[key], key) for key in mine)
            assert self.is_same(group, mine.get("lr", group.held["lr"]), lr, "lr")
        assert all(row.source for row in table)
        self.check_metrics(model.metrics(), scheduler.metrics())
        if self.is_clean:
            scheduler.verify()

    def check_metrics(self, mine: dict[str, float], theirs: dict[str, float]) -> None:
        assert mine == theirs

    @invariant()
    def the_state_is_primitives_and_says_position_and_history(self):
        if self.model is None:
            return
        model, state = self.model, self.scheduler.state_dict()
        assert all(type(one) in {int, float, str} for one in state.values())
        text = json.loads(state["dist_sched"])
        assert (model.position, model.position) == (state["num_steps"], text["position"])
        assert model.unit == text["unit"]
        assert len(model.history) == len(self.scheduler.history)
        expected = model.effective.keys()
        assert expected == {key: state[key] for key in expected}

    @invariant()
    def a_writer_that_is_not_ours_is_named_once(self):
        if self.model is not None:
            assert int(self.model.is_named) == self.messages.named()
            assert all(len(text) < 4000 for text in self.messages.texts)
