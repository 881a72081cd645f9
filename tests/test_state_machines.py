"""Random sequences: whatever is done in whatever order, the groups have what the rules say.

`OptimizerParamScheduler` is compared with Megatron's own class, and `ParamScheduler` with an
evaluator of its own here.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    ReconcileError,
    Schedule,
)
from helpers import state_at
from machine_helpers import KEYS, POSITIONS, SAVES, Group, Model, Refused, SchedulerMachine

RUNS = int(os.environ.get("STATE_MACHINE_RUNS", "0"))
"""How many sequences to draw on demand. 0 for the few that the ordinary tests draw."""


def run(machine, ordinary):
    """Run a machine: the same sequences each time, or new ones on demand."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS or ordinary,
            stateful_step_count=25,
            derandomize=not RUNS,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# Megatron's class -------------------------------------------------------------------------------

STYLES = ["constant", "linear", "cosine", "inverse-square-root", "WSD"]
TAILS = {"linear": "linear", "cosine": "cosine", "halving": "exponential"}
TAILS["minus_sqrt"] = "minus_sqrt"
WSD_ENTRIES = {"wsd_decay_steps", "lr_wsd_decay_style"}


@cache
def oracle(entries):
    """Return an object of Megatron's class, which has no groups."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler as Megatrons

    class Nothing:
        param_groups = ()

    return Megatrons(Nothing(), **dict(entries))


@dataclass(frozen=True)
class Entries:
    """Megatron's entries, and what late changes have made of the bounds of groups."""

    entries: dict[str, Any]
    share: float | None = None
    """The lower bound of lr as a part of the upper one."""
    factors: dict[str, float] = field(default_factory=lambda: {"lr": 1.0, "weight_decay": 1.0})

    def __deepcopy__(self, memo):
        return self

    def _repr_pretty_(self, printer, _):
        printer.text(f"Entries({self.entries!r})")

    def parts(self):
        return self.entries

    def keys(self):
        """Return the ten keys of a state, but for the position."""
        left = {"init_lr", *WSD_ENTRIES}
        return {key: value for key, value in self.entries.items() if key not in left}

    def fields_of(self, fields):
        return fields

    def is_legal(self):
        one = self.entries
        is_wsd = one["lr_decay_style"] == "WSD"
        return (
            0 <= one["min_lr"] <= one["max_lr"]
            and 0 <= one["init_lr"] <= one["max_lr"]
            and one["lr_warmup_steps"] < one["lr_decay_steps"]
            and one["start_wd"] <= one["end_wd"]
            and not (one["wd_incr_style"] == "constant" and one["start_wd"] != one["end_wd"])
            and not (is_wsd and None in (one["wsd_decay_steps"], one["lr_wsd_decay_style"]))
            and not (is_wsd and one["wsd_decay_steps"] > one["lr_decay_steps"])
        )

    def check(self, groups, declared):
        """Raise if the names of groups do not fit. These entries have none."""

    def reference(self, key, groups):
        return next((one.own[key] for one in groups if one.own[key]), None)

    def takes_part(self, key, group):
        return not group.has_override(key)

    def has_ratio(self, key, group):
        return True

    def between(self, key, position, upper, lower):
        """Return Megatron's value between two bounds."""
        megatrons = oracle(tuple(self.entries.items()))
        megatrons.num_steps = position
        if key == "lr":
            value = megatrons.get_lr({"max_lr": upper, "min_lr": lower})
            return value if value >= 0 else upper  # a warmup down to 0, as test_differences says
        if self.entries["wd_incr_style"] == "constant" and upper != lower:
            raise Refused(ConfigError)
        if self.entries["wd_incr_steps"] == 0:
            return upper
        return megatrons.get_wd({"start_wd": lower, "end_wd": upper})

    def base_value(self, key, position):
        upper, lower, _ = KEYS[key]
        return self.between(key, position, self.entries[upper], self.entries[lower])

    def base(self, key, position, group):
        return self.base_value(key, position)

    def value(self, key, position, group, ratio):
        (upper, lower, multiplier), overrides = KEYS[key], group.overrides
        if not overrides.keys() & {upper, lower}:
            return self.base_value(key, position) * overrides.get(multiplier, ratio)
        high, low = (
            overrides[one] * self.factors[key] if one in overrides else self.entries[one]
            for one in (upper, lower)
        )
        if key == "lr" and self.share is not None:
            low = high * self.share
        return self.between(key, position, high, low) * overrides.get(multiplier, 1.0)

    # Loads and late changes

    def decide(self, parts, history, policy):
        """Return the config and the late changes after a load."""
        used, refused, left, kept = {}, set(), set(), set()
        for name, mine in self.entries.items():
            word = policy.get(name, policy["*"])
            theirs = parts.get(name, mine) if name in parts else mine
            used[name] = mine if word in {"config", "strict"} else theirs
            curve = "weight_decay" if "wd_" in name or name.endswith("_wd") else "lr"
            kept |= set() if word == "config" else {curve}
            left |= {curve} if theirs != mine and used[name] != theirs else set()
            refused |= {name} if theirs != mine and word == "strict" else set()
        config = self if used == self.entries else Entries(used)
        if not config.is_legal():
            raise Refused(ReconcileError)
        if refused - (set() if used["lr_decay_style"] == "WSD" else WSD_ENTRIES):
            raise Refused(ReconcileError)
        if "history" in policy:
            kept, left = ({"lr", "weight_decay"}, set()) if policy["history"] != "config" else (kept, kept)
        history = tuple(one for one in history if dict(one[2])["field"] in kept - left)
        try:
            config.after(history)
        except Refused as error:
            raise Refused(ReconcileError) from error
        return config, history

    def after(self, history):
        found = self
        for position, operation, arguments in history:
            found = found.changed(position, operation, dict(arguments))
        return found

    def changed(self, position, operation, arguments):
        entries, factors, share = dict(self.entries), dict(self.factors), self.share
        if operation == "scale":
            names = {"lr": ("init_lr", "max_lr", "min_lr"), "weight_decay": ("start_wd", "end_wd")}
            for name in names[arguments["field"]]:
                entries[name] *= arguments["factor"]
            factors[arguments["field"]] *= arguments["factor"]
        elif arguments["field"] != "lr" or operation == "rewarm":
            raise Refused(ConfigError)
        elif operation == "extend":
            if arguments["horizon"] <= entries["lr_decay_steps"]:
                raise Refused(ConfigError)
            if "keep" in arguments and not self._is_stable(position):
                raise Refused(ConfigError)
            entries["lr_decay_steps"] = arguments["horizon"]
        else:
            if arguments["shape"] not in TAILS or not self._is_at_peak(position):
                raise Refused(ConfigError)
            end = arguments["end"]
            if end is not None:
                share = end / entries["max_lr"] if entries["max_lr"] else share
            entries |= {
                "lr_decay_style": "WSD",
                "lr_decay_steps": position + arguments["steps"],
                "wsd_decay_steps": arguments["steps"],
                "lr_wsd_decay_style": TAILS[arguments["shape"]],
                "min_lr": entries["min_lr"] if end is None else end,
            }
        found = Entries(entries, share, factors)
        if not found.is_legal():
            raise Refused(ConfigError)
        return found

    def _tail(self):
        return self.entries["lr_decay_steps"] - (self.entries["wsd_decay_steps"] or 0)

    def _is_at_peak(self, position):
        style = self.entries["lr_decay_style"]
        return position >= self.entries["lr_warmup_steps"] and (
            style == "constant" or (style == "WSD" and position <= self._tail())
        )

    def _is_stable(self, position):
        style = self.entries["lr_decay_style"]
        is_slow = style == "inverse-square-root" and position <= self.entries["lr_decay_steps"]
        is_before = position <= self.entries["lr_warmup_steps"]
        return is_before or is_slow or style == "constant" or (
            style == "WSD" and position <= self._tail()
        )

    def check_change(self, change):
        """Raise where a new cooldown would rise."""
        position, operation, arguments = change
        end = dict(arguments).get("end")
        if operation == "cooldown" and end is not None:
            if end > self.base_value("lr", position) * (1 + 1e-6):
                raise Refused(ConfigError)

    def jumps(self, after, position):
        return any(
            after.base_value(key, position)
            != pytest.approx(self.base_value(key, position), rel=1e-9, abs=1e-300)
            for key in KEYS
        )


@st.composite
def entries(draw):
    """Return a legal config, one of few values, so that two drawn ones are often alike."""
    style = draw(st.sampled_from(STYLES))
    horizon = draw(st.sampled_from([110, 110, 100, 40]))
    peak = draw(st.sampled_from([1.0, 1.0, 0.5, 0.003]))
    wd_style = draw(st.sampled_from(["linear", "linear", "cosine", "constant"]))
    end_wd = draw(st.sampled_from([0.1, 0.1, 0.3]))
    return Entries(
        {
            "init_lr": draw(st.sampled_from([0.0, 0.0, 0.5])) * peak,
            "max_lr": peak,
            "min_lr": draw(st.sampled_from([0.1, 0.1, 0.0, 1.0])) * peak,
            "lr_warmup_steps": draw(st.sampled_from([10, 10, 0, 1, 37.5])),
            "lr_decay_steps": horizon,
            "lr_decay_style": style,
            "start_wd": end_wd if wd_style == "constant" else draw(st.sampled_from([0.0, 0.05])),
            "end_wd": end_wd,
            "wd_incr_steps": draw(st.sampled_from([100, 100, 0, 60])),
            "wd_incr_style": wd_style,
            "wsd_decay_steps": draw(st.sampled_from([20, 40, 0])) if style == "WSD" else None,
            "lr_wsd_decay_style": draw(st.sampled_from(list(TAILS.values())))
            if style == "WSD"
            else None,
        }
    )


POLICIES = st.sampled_from(
    [
        {"*": "checkpoint"},
        {"*": "checkpoint"},
        {"*": "config"},
        {"*": "strict"},
        {"*": "checkpoint", "unit": "config"},
        {"*": "checkpoint", "history": "config"},
        {"*": "config", "history": "checkpoint"},
        {"*": "checkpoint", "max_lr": "config"},
        {"*": "config", "lr_decay_steps": "checkpoint"},
        {"*": "strict", "lr_decay_steps": "config"},
    ]
)


def group_of(defaults, lr, name, overrides, *, is_tensor, **others):
    own = {**defaults, "lr": lr, **others}
    return Group(own, dict(own), overrides, name, name, is_tensor=is_tensor)


@st.composite
def groups(draw, defaults, names):
    """Return one to three groups, of which some have overrides."""
    is_tensor = draw(st.booleans())
    found = []
    for _ in range(draw(st.integers(1, 3))):
        overrides = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    key: st.sampled_from([0.25, 0.5, 2.0])
                    for key in ("max_lr", "min_lr", "lr_mult", "wd_mult")
                },
            )
            if draw(st.integers(0, 3)) == 0
            else st.just({})
        )
        lr = draw(st.sampled_from([1.0, 1.0, 0.5, 0.1, 0.0]))
        name = draw(st.sampled_from(names))
        wd = draw(st.sampled_from([defaults["weight_decay"], 0.0]))
        is_float = draw(st.integers(0, 4)) == 0
        found.append(
            group_of(
                defaults,
                lr,
                name,
                overrides,
                is_tensor=is_tensor and not is_float,
                weight_decay=wd,
            )
        )
    return found


class OptimizerParamMachine(SchedulerMachine):
    """`OptimizerParamScheduler` beside Megatron's class."""

    defaults = {"lr": 1.0, "weight_decay": 0.1}
    optimizer_class = torch.optim.AdamW

    def build(self, optimizer, model):
        arguments = {"reference": model.reference} if model.reference else {}
        return OptimizerParamScheduler(
            optimizer,
            **model.declared.entries,
            **arguments,
            policy=model.policy,
            unit=model.unit,
            keep_group_ratios=model.keeps,
        )

    def settings_of(self):
        return st.fixed_dictionaries(
            {
                "declared": entries(),
                "policy": POLICIES,
                "unit": st.sampled_from(["steps", "steps", "steps", "samples"]),
                "keeps": st.sampled_from([True, True, True, False]),
                "defaults": st.just(self.defaults),
            }
        )

    @initialize(
        settings=st.runner().flatmap(lambda self: self.settings_of()),
        groups=groups({"lr": 1.0, "weight_decay": 0.1}, [None, None, "head"]),
    )
    def begin_first(self, settings, groups):
        self.begin(Model(groups=groups, fields=tuple(KEYS), **settings))

    @rule(
        settings=st.runner().flatmap(lambda self: self.settings_of()),
        groups=groups({"lr": 1.0, "weight_decay": 0.1}, [None, None, "head"]),
        reference=st.sampled_from([None, None, 0.25]),
    )
    def restart(self, settings, groups, reference):
        """Begin with another optimizer, config and policy, as a script that is started again."""
        has = {} if reference is None or not settings["keeps"] else {"lr": reference}
        self.begin(Model(groups=groups, fields=tuple(KEYS), reference=has, **settings))

    @rule(settings=st.runner().flatmap(lambda self: self.settings_of()))
    def rebuild(self, settings):
        self.begins_again(settings)

    def load_keys(self, state):
        keys = set(self.model.effective.keys())
        parts = {key: state[key] for key in state if key in keys}
        declared = self.model.declared.entries

        def expected(model):
            both = Entries({**declared, **parts})
            model.load(
                state["num_steps"],
                parts,
                text=state.get("dist_sched"),
                curve=both if both.is_legal() else None,
            )

        self.loading_as(state, expected)

    @rule(config=entries(), position=POSITIONS)
    def load_megatrons(self, config, position):
        """Load a state that Megatron's class saves."""
        if not config.is_legal():
            return
        theirs = oracle(tuple(config.entries.items()))
        theirs.num_steps = position
        self.load_keys(theirs.state_dict())

    @precondition(lambda self: self.saves)
    @rule(index=SAVES)
    def load_ten_keys(self, index):
        """Load a state of ours without its text."""
        state = copy.deepcopy(self.saved(index).state)
        del state["dist_sched"]
        self.load_keys(state)

    @precondition(lambda self: self.saves)
    @rule(index=SAVES, other=SAVES, key=st.sampled_from(["max_lr", "lr_decay_steps", "end_wd"]))
    def load_torn_entry(self, index, other, key):
        """Load a state of which one entry is another's: its text is used."""
        save = self.saved(index)
        state = {**save.state, key: self.saved(other).state[key]}
        own = self.scheduler.state_dict()["dist_sched"]
        is_own = own == state["dist_sched"] != self.model.loaded_text
        if is_own and state != save.state:
            self.load_keys(state)
        else:
            self.loading(save, state)

    @rule(position=POSITIONS, kind=st.sampled_from(["DeepSpeed", "lambda", "cosine"]))
    def load_foreign(self, position, kind):
        """Load another library's state: its position, and a curve where these entries have it."""
        lambdas = {"last_epoch": position, "_step_count": position + 1, "base_lrs": [0.5]}
        states = {
            "DeepSpeed": {"last_batch_iteration": position - 1},
            "lambda": lambdas,
            "cosine": {**lambdas, "T_max": 110, "eta_min": 0.05},
        }
        cosine = {
            "init_lr": 0.5,
            "max_lr": 0.5,
            "min_lr": 0.05,
            "lr_warmup_steps": 0,
            "lr_decay_steps": 110,
            "lr_decay_style": "cosine",
        }
        # Past its end torch's cosine climbs again, and ours does not.
        parts = cosine if kind == "cosine" and position <= 110 else {}

        def expected(model):
            both = Entries({**model.declared.entries, **parts})
            curve = both if parts and both.is_legal() else None
            model.load(position, parts, curve=curve)

        self.loading_as(states[kind], expected)

    def changing(self, operation, arguments, *, allow_jump=False, **more):
        keywords = {**more} if operation == "scale" else {**more, "allow_jump": allow_jump}
        self.perform(
            lambda: getattr(self.scheduler, operation)(**arguments, **keywords),
            lambda model: model.change(operation, {**arguments, **more}, allow_jump=allow_jump),
        )

    @rule(
        steps=st.sampled_from([1, 16, 40]),
        shape=st.sampled_from([*TAILS, "exponential"]),
        end=st.sampled_from([None, 0.0, 0.05, 0.9]),
        key=st.sampled_from(["lr", "lr", "lr", "weight_decay"]),
    )
    def cooldown(self, steps, shape, end, key):
        self.changing("cooldown", {"steps": steps, "shape": shape, "end": end, "field": key})

    @rule(
        horizon=st.sampled_from([50, 120, 300]),
        keep=st.sampled_from([None, "value"]),
        allow_jump=st.booleans(),
    )
    def extend(self, horizon, keep, allow_jump):
        more = {} if keep is None else {"keep": keep}
        arguments = {"horizon": horizon, "field": "lr", **more}
        self.changing("extend", arguments, allow_jump=allow_jump)

    @rule(steps=st.sampled_from([1, 16]))
    def rewarm(self, steps):
        self.changing("rewarm", {"steps": steps, "field": "lr"})

    @rule(
        factor=st.sampled_from([0.5, 0.3, 0.7, 2.0]),
        key=st.sampled_from(["lr", "lr", "weight_decay"]),
    )
    def scale(self, factor, key):
        self.changing("scale", {"factor": factor, "field": key}, allow_jump=True)


@pytest.mark.timeout(120 if not RUNS else 0)
def test_random_sequences_of_optimizer_param_scheduler_have_megatrons_values():
    run(OptimizerParamMachine, ordinary=120)


# An evaluator of schedules ----------------------------------------------------------------------

PATTERN, NAME = "head*", "head"


@dataclass(frozen=True)
class Line:
    """A phase: a line from a value to another, and what both are between a group's bounds."""

    steps: int
    start: float
    end: float
    low: float
    high: float
    is_constant: bool = False
    is_cut: bool = False
    """Whether a late change has cut off its end."""
    is_rest: bool = False
    """Whether a late change has cut off its beginning."""

    def at(self, units, *, is_mapped=False):
        start, end = (self.low, self.high) if is_mapped else (self.start, self.end)
        if units >= self.steps:
            return end
        return start + (end - start) * units / self.steps

    def times(self, factor):
        numbers = {name: getattr(self, name) * factor for name in ("start", "end", "low", "high")}
        return replace(self, **numbers)


def line(steps, start, end):
    return Line(steps, start, end, start, end, is_constant=start == end)


@dataclass(frozen=True)
class Curve:
    """Lines joined end to end; with numbers that floats hold exactly, every order of arithmetic
    gives the same bits."""

    lines: tuple[Line, ...]
    is_exact: bool = True

    def _repr_pretty_(self, printer, _):
        printer.text(repr([(one.steps, one.start, one.end) for one in self.lines]))

    __repr__ = lambda self: repr([(one.steps, one.start, one.end) for one in self.lines])

    @property
    def begins(self):
        return [sum(one.steps for one in self.lines[:at]) for at in range(len(self.lines) + 1)]

    @property
    def horizon(self):
        return self.begins[-1]

    @property
    def highest(self):
        return max(value for one in self.lines for value in (one.start, one.end))

    def index(self, position):
        return max(at for at, begin in enumerate(self.begins[:-1]) if begin <= position)

    def at(self, position, *, is_mapped=False):
        index = self.index(position)
        return self.lines[index].at(position - self.begins[index], is_mapped=is_mapped)

    def mapped(self, upper, lower, *, is_rise):
        """Return the curve between a group's bounds, as rule 4 says."""
        first, last, highest = self.lines[0].start, self.lines[-1].end, self.highest
        found, is_before = [], not is_rise

        def between(value, low, high):
            if low == high:
                return upper * (value / high if high else 1.0)
            return lower + (upper - lower) * (value - low) / (high - low)

        def before(value):
            return first + (upper - first) * (value - first) / (highest - first)

        for one in self.lines:
            is_before = is_before and one.start != highest
            ends = [
                between(value, first, last)
                if is_rise
                else (before(value) if is_before else between(value, last, highest))
                for value in (one.start, one.end)
            ]
            found.append(replace(one, low=ends[0], high=ends[1]))
            is_before = is_before and one.end != highest
        return Curve(tuple(found))

    def known(self, value):
        """Return what a first or last value is between the bounds."""
        ends = [(one.start, one.low) for one in self.lines]
        joined = [pair for one in self.lines for pair in ((one.start, one.low), (one.end, one.high))]
        return dict(joined or ends).get(value, value)

    def until(self, position):
        """Return the lines before a position, of which the last may be cut or hold the end."""
        if position >= self.horizon:
            last = self.lines[-1]
            hold = Line(position - self.horizon, last.end, last.end, last.high, last.high, True)
            return (*self.lines, *([hold] if hold.steps else []))
        index = self.index(position)
        used = position - self.begins[index]
        one = self.lines[index]
        cut = replace(one, steps=used, end=one.at(used), high=one.at(used, is_mapped=True), is_cut=True)
        return (*self.lines[:index], *([cut] if used else []))

    def going(self, position, steps, goal, mapped_goal):
        """Return the curve whose rest is one line to a goal."""
        here, mapped = self.at(position), self.at(position, is_mapped=True)
        rest = Line(steps, here, goal, mapped, mapped_goal)
        return replace(self, lines=(*self.until(position), rest))

    def scaled(self, position, factor):
        if position >= self.horizon:
            last = self.lines[-1]
            end = Line(0, last.end, last.end, last.high, last.high, True).times(factor)
            return replace(self, lines=(*self.until(position), end))
        index = self.index(position)
        used, one = position - self.begins[index], self.lines[index]
        rest = one
        if used:
            rest = replace(
                one,
                steps=one.steps - used,
                start=one.at(used),
                low=one.at(used, is_mapped=True),
                is_rest=not one.is_constant,
            )
        after = (rest, *self.lines[index + 1 :])
        return replace(self, lines=(*self.until(position), *(one.times(factor) for one in after)))

    def extended(self, position, horizon, keep):
        more = horizon - self.horizon
        if more <= 0:
            raise Refused(ConfigError)
        index = self._to_extend(position)
        one, used = self.lines[index], position - self.begins[index]
        is_inside = keep and 0 < used < one.steps
        if one.is_constant:
            longer, is_exact = [replace(one, steps=one.steps + more, is_cut=False)], True
        elif is_inside:
            here, mapped = one.at(used), one.at(used, is_mapped=True)
            first = replace(one, steps=used, end=here, high=mapped, is_cut=True)
            rest = replace(
                one, steps=one.steps - used + more, start=here, low=mapped, is_rest=True
            )
            longer, is_exact = [first, rest], False
        elif one.is_cut or (keep and used >= one.steps) or not one.steps:
            longer = [one, Line(more, one.end, one.end, one.high, one.high, True)]
            is_exact = True
        else:
            longer, is_exact = [replace(one, steps=one.steps + more)], False
        lines = (*self.lines[:index], *longer, *self.lines[index + 1 :])
        return Curve(lines, self.is_exact and is_exact)

    def _to_extend(self, position):
        begins = self.begins
        running = [at for at in range(len(self.lines)) if begins[at + 1] > position]
        if running and running[0] and begins[running[0]] == position:
            before, one = self.lines[running[0] - 1 : running[0] + 1]
            if before.is_constant and before.end == one.start > one.end:
                return running[0] - 1
        constant = [at for at in running if self.lines[at].is_constant]
        if constant:
            return constant[0]
        last = len(self.lines) - 1
        return max(running, key=lambda at: self.lines[at].steps, default=last)

    def schedule(self):
        return Schedule(
            [
                Phase("constant" if one.is_constant else "linear", one.steps, one.end, one.start)
                for one in self.lines
            ]
        )


@dataclass(frozen=True)
class Spec:
    """What a `ParamScheduler` is declared with, and the late changes since."""

    curves: dict[str, Curve]
    own: dict[str, Curve | float]
    """What groups of the pattern have of their own: a schedule, or a number."""
    history: tuple[Any, ...] = ()

    def __deepcopy__(self, memo):
        return self

    def _repr_pretty_(self, printer, _):
        printer.text(f"Spec({self.curves!r}, {self.own!r})")

    def parts(self):
        return self

    def keys(self):
        return {}

    def fields_of(self, fields):
        return [key for key in fields if key in self.curves]

    def is_legal(self):
        return self.own.keys() <= self.curves.keys()

    def check(self, groups, declared):
        """Raise if no group has the pattern's name, unless that is the script's own pattern."""
        new = self.own.keys() - (set() if declared is None else declared.own.keys())
        if new and not any(one.name == NAME for one in groups):
            raise Refused(ConfigError)

    def reference(self, key, groups):
        part = [one for one in groups if self.takes_part(key, one)]
        own, peak = [one.own[key] for one in part if one.own[key]], self.curves[key].highest
        if len(set(own)) <= 1 or not peak:
            return max(own, default=None)
        if peak not in own:
            raise Refused(ConfigError)
        return peak

    def own_of(self, key, group):
        return self.own.get(key) if group.name == NAME else None

    def takes_part(self, key, group):
        return not group.has_override(key) and self.has_ratio(key, group)

    def has_ratio(self, key, group):
        return not isinstance(self.own_of(key, group), Curve)

    def after(self, history):
        return replace(self, history=tuple(history))

    @cached_property
    def now(self):
        """Return the curves and the groups' own ones after the late changes."""
        curves, own = dict(self.curves), dict(self.own)
        for position, operation, arguments in self.history:
            given = dict(arguments)
            key = given.pop("field")
            if key not in curves:
                raise Refused(ConfigError)
            base, mine = curves[key], own.get(key)
            curves[key] = changed(base, position, operation, given)
            if isinstance(mine, Curve):
                is_longer = operation == "extend" and mine.horizon >= given["horizon"]
                share = mine.highest / base.highest if base.highest else 1.0
                if not is_longer:
                    own[key] = changed(mine, position, operation, given, share)
            if key == "momentum" and curves[key].highest >= 1:
                raise Refused(ConfigError)
        return curves, own

    def base_value(self, key, position):
        return self.now[0][key].at(position)

    def base(self, key, position, group):
        own = self.now[1].get(key) if group.name == NAME else None
        if isinstance(own, Curve):
            return own.at(position)
        return self.base_value(key, position) * (1.0 if own is None else own)

    def value(self, key, position, group, ratio):
        own = self.now[1].get(key) if group.name == NAME else None
        upper, lower, multiplier = KEYS.get(key, ("", "", ""))
        overrides = group.overrides
        if isinstance(own, Curve):
            if overrides.get(multiplier, 1.0) != 1.0:
                raise Refused(ConfigError)
            return own.at(position)
        number = 1.0 if own is None else own
        if overrides.keys() & {upper, lower}:
            value = self.bounded(key, overrides.get(upper), overrides.get(lower)).at(
                position, is_mapped=True
            )
            return max(0.0, value) * (overrides.get(multiplier, 1.0) * number)
        return self.base_value(key, position) * (overrides.get(multiplier, ratio) * number)

    def bounded(self, key, upper, lower):
        """Return the field's curve between bounds, after the late changes."""
        curve, is_rise = self.curves[key], key == "weight_decay"
        first, last, highest = curve.lines[0].start, curve.lines[-1].end, curve.highest
        ends = (last, first) if is_rise else (highest, last)
        upper, lower = (
            end if one is None else one for one, end in zip((upper, lower), ends, strict=True)
        )
        if is_rise and first == last and upper != lower:
            raise Refused(ConfigError)
        found = curve.mapped(upper, lower, is_rise=is_rise)
        peak = max(
            (pair for one in found.lines for pair in ((one.start, one.low), (one.end, one.high))),
            key=lambda pair: pair[0],
        )[1]
        for position, operation, arguments in self.history:
            given = dict(arguments)
            if given.pop("field") == key:
                goal = given.get("end", given.get("peak"))
                share = None if goal is None or not highest else peak * (goal / highest)
                found = changed(found, position, operation, given, goal=share)
        return found

    def decide(self, parts, history, policy):
        """Return the config and the late changes after a load."""
        word = policy["*"]
        theirs = parts if isinstance(parts, Spec) else Spec({}, {})
        if word == "config" or not isinstance(parts, Spec):
            return self, ()
        if not theirs.curves.keys() <= self.curves.keys():
            raise Refused(ReconcileError)
        own = {**self.own, **theirs.own}
        curves = {**self.curves, **theirs.curves}
        if word == "strict" and (own, curves) != (self.own, self.curves):
            raise Refused(ReconcileError)
        found = self if (own, curves) == (self.own, self.curves) else Spec(curves, own)
        try:
            _ = found.after(history).now
        except Refused as error:
            raise Refused(ReconcileError) from error
        return found, tuple(history)

    def check_change(self, change):
        """Raise where a new cooldown would rise, in groups of the pattern too."""
        position, operation, arguments = change
        given = dict(arguments)
        key, end = given["field"], given.get("end")
        if operation != "cooldown" or key not in self.curves:
            return
        if end is not None and end > self.base_value(key, position) * (1 + 1e-6):
            raise Refused(ConfigError)
        mine = self.now[1].get(key)
        if isinstance(mine, Curve):
            after = self.after((*self.history, change)).now[1][key]
            if after.lines[-1].end > mine.at(position) * (1 + 1e-6):
                raise Refused(ConfigError)

    def jumps(self, after, position):
        before, later = self.now, after.now
        pairs = [(before[0][key], later[0][key]) for key in before[0]]
        pairs += [(one, later[1][key]) for key, one in before[1].items() if isinstance(one, Curve)]
        return any(
            other.at(position) != pytest.approx(one.at(position), rel=1e-9, abs=1e-300)
            for one, other in pairs
        )

    def is_exact(self, key, group):
        """Return whether every number on the way is one that a float holds."""
        if key not in self.curves:
            return True
        own = self.now[1].get(key) if group.name == NAME else None
        curve = own if isinstance(own, Curve) else self.now[0][key]
        has_bounds = any(one in group.overrides for one in KEYS.get(key, ("", ""))[:2])
        return curve.is_exact and not (has_bounds and self.history)


def changed(curve, position, operation, given, share=1.0, goal=None):
    """Return a curve after a late change; `share` is for `end` and `peak` of a group's own."""
    if operation == "scale":
        return curve.scaled(position, given["factor"])
    if operation == "extend":
        return curve.extended(position, given["horizon"], given.get("keep"))
    end = given.get("end", given.get("peak"))
    if end is not None:
        value = end * share
        return curve.going(position, given["steps"], value, value if goal is None else goal)
    if operation == "rewarm":
        value = curve.highest
    else:
        last = curve.lines[-1].end
        value = last if last < curve.at(position) else 0.0
    return curve.going(position, given["steps"], value, curve.known(value))


def curve(*lines):
    return Curve(tuple(line(*one) for one in lines))


LRS = [
    curve((8, 0.0, 1.0), (32, 1.0, 1.0), (64, 1.0, 0.0)),
    curve((8, 0.0, 1.0), (32, 1.0, 0.5)),
    curve((4, 0.0, 2.0), (32, 2.0, 1.0)),
    curve((16, 0.5, 1.0), (8, 1.0, 0.5), (8, 0.5, 0.75), (64, 0.75, 0.5)),
]
DECAYS = [curve((64, 0.0, 0.125)), curve((32, 0.0625, 0.125)), curve((0, 0.125, 0.125))]
MOMENTA = [curve((8, 0.25, 0.75)), curve((0, 0.5, 0.5))]
CHOICES = {"lr": LRS, "weight_decay": DECAYS, "momentum": MOMENTA}


@st.composite
def specs(draw, fields):
    curves = {key: draw(st.sampled_from(CHOICES[key])) for key in fields}
    own = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "lr": st.sampled_from([0.5, 0.25, 2.0, LRS[0], LRS[3]]),
                **({"weight_decay": st.sampled_from([0.0, DECAYS[0]])} if "weight_decay" in fields else {}),
            },
        )
        if draw(st.integers(0, 2)) == 0
        else st.just({})
    )
    return Spec(curves, own)


class ParamMachine(SchedulerMachine):
    """`ParamScheduler` beside the evaluator."""

    defaults = {"lr": 1.0, "weight_decay": 0.125, "momentum": 0.5}
    optimizer_class = torch.optim.SGD

    def build(self, optimizer, model):
        declared = model.declared
        own = {
            key: one.schedule() if isinstance(one, Curve) else one
            for key, one in declared.own.items()
        }
        return ParamScheduler(
            optimizer,
            {key: one.schedule() for key, one in declared.curves.items()},
            groups={PATTERN: own} if own else None,
            policy=model.policy,
            unit=model.unit,
            keep_group_ratios=model.keeps,
        )

    def settings_of(self, fields):
        return st.fixed_dictionaries(
            {
                "declared": specs(fields),
                "policy": st.sampled_from(
                    [
                        {"*": "checkpoint"},
                        {"*": "checkpoint"},
                        {"*": "config"},
                        {"*": "strict"},
                        {"*": "checkpoint", "unit": "config"},
                    ]
                ),
                "unit": st.sampled_from(["steps", "steps", "steps", "samples"]),
                "keeps": st.sampled_from([True, True, True, False]),
                "defaults": st.just(self.defaults),
            }
        )

    @initialize(data=st.runner().flatmap(lambda self: self.scripts()))
    def begin_first(self, data):
        self.restart(data)

    @rule(data=st.runner().flatmap(lambda self: self.scripts()))
    def restart_with(self, data):
        """Begin with another optimizer, config and policy, as a script that is started again."""
        self.restart(data)

    def scripts(self):
        names = [None, None, NAME, "tail"]
        return st.sampled_from(
            [("lr",), ("lr", "weight_decay"), ("lr", "weight_decay", "momentum")]
        ).flatmap(
            lambda fields: st.tuples(
                st.just(fields), self.settings_of(fields), groups(self.defaults, names)
            )
        )

    def restart(self, data):
        fields, settings, groups = data
        self.begin(Model(groups=groups, fields=fields, **settings))

    @rule(settings=st.runner().flatmap(lambda self: self.settings_of(self.model.fields)))
    def rebuild(self, settings):
        self.begins_again(settings)

    def load_keys(self, state):
        text = state.get("dist_sched")
        self.loading_as(state, lambda model: model.load(state["num_steps"], None, text=text))

    @rule(position=POSITIONS, has_text=st.booleans())
    def load_other_kind(self, position, has_text):
        """Load a state of `OptimizerParamScheduler`: only its position is used."""
        state = state_at(position)
        text = state["dist_sched"] if has_text else state.pop("dist_sched") and None
        unit = "steps" if has_text else None
        self.loading_as(state, lambda model: model.load(position, None, unit=unit, text=text))

    @rule(position=POSITIONS)
    def load_foreign(self, position):
        state = {"last_batch_iteration": position - 1}
        self.loading_as(state, lambda model: model.load(position, None))

    def is_read(self, key, group):
        own = self.model.effective.own_of(key, group)
        return key in self.model.fields and not isinstance(own, Curve)

    def is_same(self, group, value, found, key):
        if self.model.effective.is_exact(key, group):
            return value == found
        return found == pytest.approx(value, rel=1e-12, abs=1e-15)

    def check_metrics(self, mine, theirs):
        model = self.model
        is_exact = all(model.effective.is_exact(key, one) for key in model.fields for one in model.groups)
        assert mine == (theirs if is_exact else pytest.approx(theirs, rel=1e-12, abs=1e-15))

    def changing(self, operation, arguments, *, allow_jump=False, **more):
        keywords = {} if operation == "scale" else {"allow_jump": allow_jump}
        self.perform(
            lambda: getattr(self.scheduler, operation)(**arguments, **keywords),
            lambda model: model.change(operation, arguments, allow_jump=allow_jump),
        )

    @rule(
        steps=st.sampled_from([1, 8, 16]),
        end=st.sampled_from([None, None, 0.0, 0.25, 2.0]),
        key=st.sampled_from(["lr", "lr", "weight_decay", "momentum"]),
    )
    def cooldown(self, steps, end, key):
        self.changing("cooldown", {"steps": steps, "shape": "linear", "end": end, "field": key})

    @rule(
        horizon=st.sampled_from([72, 104, 128, 300]),
        keep=st.sampled_from([{}, {"keep": "value"}]),
        key=st.sampled_from(["lr", "lr", "weight_decay"]),
        allow_jump=st.booleans(),
    )
    def extend(self, horizon, keep, key, allow_jump):
        arguments = {"horizon": horizon, "field": key, **keep}
        self.changing("extend", arguments, allow_jump=allow_jump)

    @rule(
        steps=st.sampled_from([1, 8, 16]),
        peak=st.sampled_from([None, 0.5]),
        key=st.sampled_from(["lr", "lr", "weight_decay"]),
    )
    def rewarm(self, steps, peak, key):
        self.changing("rewarm", {"steps": steps, "peak": peak, "field": key})

    @rule(
        factor=st.sampled_from([0.5, 0.25, 2.0]),
        key=st.sampled_from(["lr", "lr", "weight_decay", "momentum"]),
    )
    def scale(self, factor, key):
        self.changing("scale", {"factor": factor, "field": key})


@pytest.mark.timeout(120 if not RUNS else 0)
def test_random_sequences_of_param_scheduler_have_the_values_of_the_rules():
    run(ParamMachine, ordinary=80)
