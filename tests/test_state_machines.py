"""Random sequences: whatever is done in whatever order, the groups have what the rules say.

`OptimizerParamScheduler` is compared with Megatron's own class, and `ParamScheduler` with an
evaluator of its own here.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from dist_sched import OptimizerParamScheduler, ParamScheduler
from helpers import state_at
from machine_curves import NAME, PATTERN, Curve, Spec, line
from machine_entries import STYLES, TAILS, Entries, oracle
from machine_helpers import POSITIONS, SAVES, SchedulerMachine
from machine_model import KEYS, RUNS, SEED, Group, Model

ADAMW = {"lr": 1.0, "weight_decay": 0.1}
SGD = {"lr": 1.0, "weight_decay": 0.125, "momentum": 0.5}


def run(machine, ordinary):
    """Run a machine: the same sequences each time, or new ones on demand."""
    if RUNS:
        print(f"STATE_MACHINE_SEED={SEED}")  # noqa: T201 - to draw them again
        machine = seed(SEED)(machine)
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


@st.composite
def entries(draw):
    """Return a legal config, one of few values, so that two drawn ones are often alike."""
    style = draw(st.sampled_from([*STYLES, "constant", "WSD"]))
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

    defaults = ADAMW
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
        groups=groups(ADAMW, [None, None, "head"]),
    )
    def begin_first(self, settings, groups):
        self.begin(Model(groups=groups, fields=tuple(KEYS), **settings))

    @rule(
        settings=st.runner().flatmap(lambda self: self.settings_of()),
        groups=groups(ADAMW, [None, None, "head"]),
        reference=st.sampled_from([None, None, 0.25]),
    )
    def restart(self, settings, groups, reference):
        """Begin with another optimizer, config and policy, as a script that is started again."""
        has = {} if reference is None or not settings["keeps"] else {"lr": reference}
        self.begin(Model(groups=groups, fields=tuple(KEYS), reference=has, **settings))

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

    @rule(
        steps=st.sampled_from([1, 16, 40]),
        shape=st.sampled_from([*TAILS, "exponential"]),
        end=st.sampled_from([None, 0.0, 0.05, 0.9]),
        key=st.sampled_from(["lr", "lr", "lr", "weight_decay"]),
        position=st.sampled_from([None, 40]),
    )
    def cooldown(self, steps, shape, end, key, position):
        if position is not None:
            self.seek(position)  # at its peak, or a cooldown is refused
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
        self.changing("scale", {"factor": factor, "field": key})


@pytest.mark.timeout(600 if not RUNS else 0)
def test_random_sequences_of_optimizer_param_scheduler_have_megatrons_values():
    run(OptimizerParamMachine, ordinary=120)


# The evaluator -----------------------------------------------------------------------------------


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
                **(
                    {"weight_decay": st.sampled_from([0.0, DECAYS[0]])}
                    if "weight_decay" in fields
                    else {}
                ),
            },
        )
        if draw(st.integers(0, 2)) == 0
        else st.just({})
    )
    return Spec(curves, own)


class ParamMachine(SchedulerMachine):
    """`ParamScheduler` beside the evaluator."""

    defaults = SGD
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

    def settings_of(self, fields=None):
        fields = self.model.fields if fields is None else fields
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
        is_exact = all(
            model.effective.is_exact(key, one) for key in model.fields for one in model.groups
        )
        assert mine == (theirs if is_exact else pytest.approx(theirs, rel=1e-12, abs=1e-15))

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


@pytest.mark.timeout(600 if not RUNS else 0)
def test_random_sequences_of_param_scheduler_have_the_values_of_the_rules():
    run(ParamMachine, ordinary=80)
