"""Random sequences: whatever is done in whatever order, the groups have what the rules say.

`OptimizerParamScheduler` is compared with Megatron's own class, and `ParamScheduler` with an
evaluator of its own here.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from dist_sched import ConfigError, OptimizerParamScheduler, ReconcileError
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
