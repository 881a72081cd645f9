"""Every rule for a config: what is refused names entry, value and rule; legal edges are legal."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from dist_sched import ConfigError
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.history import Change
from helpers import CONFIG

LEGAL = {**CONFIG, "lr_decay_style": "cosine"}
WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 20, "lr_wsd_decay_style": "cosine"}
RATES = ["init_lr", "max_lr", "min_lr", "start_wd", "end_wd"]
LENGTHS = ["lr_warmup_steps", "lr_decay_steps", "wd_incr_steps", "wsd_decay_steps"]
STYLES = ["lr_decay_style", "wd_incr_style", "lr_wsd_decay_style"]
NOT_NUMBERS = [True, False, "1", None, [1], 1j, np.bool_(True), torch.ones(2), torch.tensor(True)]
NOT_NUMBERS += [torch.empty((), device="meta")]


def build(**changes):
    return OptimizerParamConfig(**{**LEGAL, **changes})


def one_name_with_each(values):
    """Return all values for one rate and one length, and the first for the other names."""
    full = [(name, value) for name in ("max_lr", "lr_warmup_steps") for value in values]
    return [
        *full,
        *((name, values[0]) for name in RATES + LENGTHS if (name, values[0]) not in full),
    ]


@pytest.mark.parametrize("name, value", one_name_with_each(NOT_NUMBERS), ids=repr)
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*must be a number"):
        build(**{name: value})


@pytest.mark.parametrize(
    "name, value",
    one_name_with_each([-1, -1e-9, math.nan, math.inf, -math.inf, 10**400]),
    ids=lambda value: str(value)[:20],
)
def test_what_is_not_finite_or_negative_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*must be a"):
        build(**{name: value})


@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_over_2_to_the_53_is_refused(name):
    with pytest.raises(ConfigError, match=rf"{name}=9007199254740993: must be at most 2\*\*53"):
        build(**{name: 2**53 + 1})


def test_a_length_of_2_to_the_53_is_legal():
    assert 2**53 == build(lr_decay_steps=2**53).lr_decay_steps


@pytest.mark.parametrize(
    "name, value",
    [
        *(
            ("lr_decay_style", value)
            for value in ("", "Cosine", "cosin", 3, None, True, ["cosine"])
        ),
        *((name, value) for name in STYLES[1:] for value in ("Cosine", 3)),
    ],
    ids=repr,
)
def test_an_unknown_style_is_refused_by_name_and_lists_the_known(name, value):
    with pytest.raises(ConfigError, match=rf"{name}=.*must be one of .*'linear'"):
        build(**{name: value})


def test_a_misspelt_style_names_the_near_miss():
    with pytest.raises(ConfigError, match="did you mean 'minus_sqrt'"):
        build(**{**WSD, "lr_wsd_decay_style": "minus-sqrt"})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"min_lr": 2.0}, "min_lr=2.0: must be at most max_lr=1.0"),
        ({"init_lr": 2.0}, "init_lr=2.0: must be at most max_lr=1.0"),
        ({"lr_decay_steps": 0, "lr_warmup_steps": 0}, "lr_decay_steps=0: must be greater than 0"),
        ({"lr_warmup_steps": 110}, "lr_warmup_steps=110: must be less than lr_decay_steps=110"),
        ({"start_wd": 0.2}, "start_wd=0.2: must be at most end_wd=0.1"),
        ({"wd_incr_style": "constant"}, "start_wd=0.0: .* end_wd=0.1 .*'constant'"),
        ({**WSD, "wsd_decay_steps": None}, "wsd_decay_steps=None: is required"),
        ({**WSD, "lr_wsd_decay_style": None}, "lr_wsd_decay_style=None: is required"),
        (
            {**WSD, "wsd_decay_steps": 111},
            "wsd_decay_steps=111: must be at most lr_decay_steps=110",
        ),
    ],
)
def test_entries_that_do_not_fit_together_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_every_illegal_entry_is_named_at_once():
    with pytest.raises(ConfigError, match=r"max_lr=nan.*wd_incr_style='up'"):
        build(max_lr=math.nan, wd_incr_style="up")


def test_callers_that_catch_megatrons_assertion_catch_our_error():
    for base in (AssertionError, ValueError):
        with pytest.raises(base):
            build(min_lr=2.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr_warmup_steps": 0},
        {"lr_warmup_steps": 1},
        {"lr_warmup_steps": 37.5},
        {"wd_incr_steps": 0},
        {"min_lr": 1.0},
        {"min_lr": 0.0, "max_lr": 0.0},
        {"start_wd": 0.0, "end_wd": 0.0},
        {"lr_decay_steps": 1, "lr_warmup_steps": 0},
        {**WSD, "wsd_decay_steps": 110},
        {**WSD, "wsd_decay_steps": 105},
        {**WSD, "wsd_decay_steps": 0},
        {"wsd_decay_steps": 10**6},
        {"lr_wsd_decay_style": "exponential"},
        {"wsd_decay_steps": None, "lr_wsd_decay_style": None},
    ],
    ids=str,
)
def test_legal_edges_are_legal(changes):
    entries = build(**changes).parts()
    assert changes == {name: entries[name] for name in changes}


@pytest.mark.parametrize(
    "value",
    [np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2)],
    ids=repr,
)
def test_a_scalar_of_another_library_is_stored_as_a_float(value):
    stored = build(min_lr=value).min_lr
    assert (0.5, float) == (stored, type(stored))


@pytest.mark.parametrize("value", [np.int64(20), torch.tensor(20), np.uint8(20)], ids=repr)
def test_an_integer_length_of_another_library_is_stored_as_an_int(value):
    stored = build(lr_warmup_steps=value).lr_warmup_steps
    assert (20, int) == (stored, type(stored))


def test_from_entries_names_unknown_and_missing_entries():
    entries = {**LEGAL, "lr_warmup": 3}
    del entries["max_lr"]
    with pytest.raises(ConfigError, match=r"'lr_warmup' is not an entry.*max_lr is missing"):
        OptimizerParamConfig.from_parts(entries)


# Lint


def found(**changes):
    """Return code and beginning of each finding of a config that is well but for the changes."""
    asked = {name: changes.pop(name) for name in ("updates", "increment") if name in changes}
    config = build(**{"init_lr": 0.01, "wd_incr_steps": 110, **changes})
    return [(one.code, str(one).split(",")[0].split(" [")[0]) for one in config.lint(**asked)]


def test_lint_finds_nothing_in_a_good_config():
    assert [] == found() == found(updates=55, increment=2) == found(increment=10)


@pytest.mark.parametrize(
    "changes, code, beginning",
    [
        ({"init_lr": 0.0}, "first-lr-zero", "position 0: lr: the first update has lr 0"),
        (
            {**WSD, "wsd_decay_steps": 105},
            "tail-in-warmup",
            "position 10: lr: the WSD decay begins at 5",
        ),
        ({**WSD, "wsd_decay_steps": 0}, "empty-phase", "position 110: lr: the WSD decay has"),
        (
            {"lr_decay_style": "inverse-square-root"},
            "drop-past-horizon",
            "position 110: lr: jumps from 0.301511 to 0.1 after the horizon",
        ),
        ({"updates": 120}, "horizon-before-end", "position 110: lr: the horizon is 10 updates"),
        ({"updates": 90}, "horizon-after-end", "position 90: lr: the run ends after 90 updates"),
        (
            {"lr_warmup_steps": 3, "increment": 4},
            "phase-below-update",
            "position 0: lr: the warmup (lr_warmup_steps) has length 3",
        ),
        (
            {**WSD, "wsd_decay_steps": 3, "increment": 4},
            "phase-below-update",
            "position 107: lr: the WSD decay (wsd_decay_steps) has length 3",
        ),
        (
            {"lr_warmup_steps": 0.5},
            "phase-below-unit",
            "position 0: lr: the warmup (lr_warmup_steps) has length 0.5",
        ),
        (
            {"increment": 12, "lr_warmup_steps": 0},
            "short-horizon",
            "position 110: lr: the horizon 110 is shorter than 10 updates (120 units)",
        ),
        (
            {"wd_incr_steps": 100},
            "field-ends-elsewhere",
            "position 100: weight_decay: ends at 100",
        ),
        (
            {"wd_incr_steps": 120},
            "field-outlasts-lr",
            "position 110: weight_decay: ends at 120",
        ),
    ],
)
def test_lint_names_what_is_probably_a_mistake(changes, code, beginning):
    ((one, text),) = found(**changes)
    assert (code, beginning) == (one, text[: len(beginning)])


def test_lint_finds_a_rise_of_weight_decay_that_is_shorter_than_an_update():
    assert ["phase-below-update", "field-ends-elsewhere"] == [
        code for code, _ in found(wd_incr_steps=3, increment=4)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"start_wd": 0.1, "wd_incr_steps": 1},
        {"start_wd": 0.1, "wd_incr_steps": 1, "wd_incr_style": "constant"},
        {"wd_incr_steps": 0},
    ],
)
def test_lint_passes_over_a_weight_decay_that_does_not_move(changes):
    assert [] == found(**changes, increment=4)


def test_lint_compares_nothing_with_the_horizon_of_a_constant_lr():
    constant = {"lr_decay_style": "constant", "lr_warmup_steps": 0, "wd_incr_steps": 60}
    assert [] == found(**constant, updates=9, increment=12)


STABLE = {**CONFIG, "lr_decay_style": "constant"}
TAIL = {"lr_decay_style": "WSD", "wsd_decay_steps": 20, "lr_wsd_decay_style": "linear"}


def cooled(position=60, shape="linear", end=0.0, **changes):
    arguments = {"field": "lr", "steps": 30, "shape": shape, "end": end}
    config = OptimizerParamConfig(**{**CONFIG, **changes})
    return config.apply(Change(position, "cooldown", arguments))


@pytest.mark.parametrize(
    "shape, style",
    [
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("halving", "exponential"),
        ("minus_sqrt", "minus_sqrt"),
    ],
)
@pytest.mark.parametrize("end, floor", [(0.05, 0.05), (None, 0.1)])
def test_a_cooldown_is_a_wsd_decay(shape, style, end, floor):
    found = cooled(shape=shape, end=end, lr_decay_style="constant")
    expected = {
        **STABLE,
        "lr_decay_style": "WSD",
        "lr_decay_steps": 90,
        "wsd_decay_steps": 30,
        "lr_wsd_decay_style": style,
        "min_lr": floor,
    }
    assert OptimizerParamConfig(**expected) == found


@pytest.mark.parametrize(
    "position, changes, is_stable",
    [
        (10, {"lr_decay_style": "constant"}, True),
        (9, {"lr_decay_style": "constant"}, False),
        (10**6, {"lr_decay_style": "constant"}, True),
        (60, {"lr_decay_style": "linear"}, False),
        (60, {"lr_decay_style": "linear", "wsd_decay_steps": 20}, False),
        (9, TAIL, False),
        (10, TAIL, True),
        (90, TAIL, True),
        (91, TAIL, False),
        (110, {**TAIL, "wsd_decay_steps": 0}, True),
    ],
)
def test_a_cooldown_begins_where_lr_is_at_its_peak(position, changes, is_stable):
    if is_stable:
        assert position + 30 == cooled(position, **changes).lr_decay_steps
    else:
        with pytest.raises(ConfigError, match="its decay can only begin while lr is constant at"):
            cooled(position, **changes)


def test_a_cooldown_of_another_shape_needs_the_other_scheduler():
    shapes = "'linear', 'cosine', 'halving', 'minus_sqrt'"
    with pytest.raises(ConfigError) as caught:
        cooled(shape="rex", lr_decay_style="constant")
    text = "OptimizerParamScheduler cannot do this, because the shape of its decay must be one of "
    assert f"{text}{shapes}; use ParamScheduler" in str(caught.value)
    assert ("cooldown", str) == (caught.value.change.operation, type(caught.value.reason))


@pytest.mark.parametrize(
    "position, changes, is_kept",
    [
        (10, {}, True),
        (11, {}, False),
        (11, {"lr_decay_style": "cosine"}, False),
        (500, {"lr_decay_style": "constant"}, True),
        (110, {"lr_decay_style": "inverse-square-root"}, True),
        (111, {"lr_decay_style": "inverse-square-root"}, False),
        (90, TAIL, True),
        (91, TAIL, False),
        (110, {**TAIL, "wsd_decay_steps": 0}, True),
        (111, {**TAIL, "wsd_decay_steps": 0}, False),
    ],
)
def test_an_extension_keeps_the_value_where_the_longer_curve_has_it(position, changes, is_kept):
    config = OptimizerParamConfig(**{**CONFIG, **changes})
    arguments = {"field": "lr", "horizon": 500}
    longer = config.apply(Change(position, "extend", arguments))
    assert OptimizerParamConfig(**{**CONFIG, **changes, "lr_decay_steps": 500}) == longer
    kept = Change(position, "extend", {**arguments, "keep": "value"})
    if is_kept:
        assert longer == config.apply(kept)
    else:
        with pytest.raises(ConfigError, match="cannot express a decay that was stretched half-way"):
            config.apply(kept)


@pytest.mark.parametrize("horizon", [110, 100])
def test_an_extension_ends_later(horizon):
    change = Change(60, "extend", {"field": "lr", "horizon": horizon})
    with pytest.raises(ConfigError, match=f"horizon={horizon}: .* the present lr_decay_steps=110"):
        OptimizerParamConfig(**CONFIG).apply(change)


@pytest.mark.parametrize(
    "field, scaled",
    [
        ("lr", {"init_lr": 0.25, "max_lr": 0.5, "min_lr": 0.05}),
        ("weight_decay", {"start_wd": 0.0, "end_wd": 0.05}),
    ],
)
def test_a_scale_is_of_all_values_of_a_field(field, scaled):
    start = {**CONFIG, "init_lr": 0.5}
    change = Change(60, "scale", {"field": field, "factor": 0.5})
    changed = OptimizerParamConfig(**start).apply(change)
    assert OptimizerParamConfig(**{**start, **scaled}) == changed


@pytest.mark.parametrize(
    "change",
    [
        Change(60, "scale", {"field": "eps", "factor": 0.5}),
        Change(60, "extend", {"field": "weight_decay", "horizon": 500}),
        Change(60, "rewarm", {"field": "lr", "steps": 5, "peak": 2.0}),
        Change(
            60, "cooldown", {"field": "weight_decay", "steps": 5, "shape": "linear", "end": None}
        ),
    ],
    ids=str,
)
def test_another_late_change_cannot_be_expressed(change):
    with pytest.raises(ConfigError, match="because its entries cannot express this change; use P"):
        OptimizerParamConfig(**STABLE).apply(change)


def test_each_entry_says_whose_curve_it_is_part_of():
    config = OptimizerParamConfig(**CONFIG)
    found = {str(path): sides.field for path, sides in config.compare(config.parts()).items()}
    of_weight_decay = {"start_wd", "end_wd", "wd_incr_steps", "wd_incr_style"}
    expected = {name: "weight_decay" if name in of_weight_decay else "lr" for name in found}
    assert expected == found


def test_the_fields_are_those_of_megatron_with_its_bounds_and_multipliers():
    lr, weight_decay = OptimizerParamConfig(**CONFIG).plan.fields
    assert ("lr", "max_lr", "min_lr", "lr_mult", True) == (
        lr.key,
        lr.upper,
        lr.lower,
        lr.multiplier,
        lr.is_added,
    )
    assert ("weight_decay", "end_wd", "start_wd", "wd_mult", True) == (
        weight_decay.key,
        weight_decay.upper,
        weight_decay.lower,
        weight_decay.multiplier,
        weight_decay.is_added,
    )
