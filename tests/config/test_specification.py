"""Specifications: written and read, compared, merged and changed, without an optimizer."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_sched import ConfigError, Phase, Schedule, schedules
from dist_sched._config.config import ABSENT, Misfit, Sides
from dist_sched._config.history import Change
from dist_sched._config.path import Path
from dist_sched._config.plan import Inventory
from dist_sched._config.specification import Specification, constant
from dist_sched._curves.proportional import ProportionalTo
from dist_sched._state.reconciliation import choose
from helpers import UP, by_name, by_path

HILL = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("cosine", 32, end=0.5)])
SQUARE = Schedule([Phase("polynomial", 8, end=0.0, start=1.0, power=2.0)])
FALL = Schedule([Phase("linear", 80, end=0.0, start=1.0)])


def rise(steps):
    return Schedule([Phase("linear", steps, end=0.75, start=0.25)])


def spec(fields=None, groups=None, extras=None):
    return Specification.of(fields or {"lr": HILL}, groups, extras)


FULL = spec(
    {"lr": HILL, "weight_decay": ProportionalTo(at_max=0.5), "betas[0]": UP, "eps": 1e-8},
    {
        "head*": {"lr": SQUARE, "betas[0]": 0.5},
        "a.b": {"weight_decay": ProportionalTo(at_max=0.25)},
    },
)


# What is given


def test_a_number_for_a_field_is_a_constant_schedule_and_for_a_group_a_multiplier():
    built = spec({"lr": 0.5}, {"a": {"lr": 0.25}})
    assert (constant(0.5), 0.25) == (built.fields["lr"], built.groups["a"]["lr"])
    assert [0.5, 0.5] == [built.fields["lr"](position) for position in (0, 10**9)]


@pytest.mark.parametrize(
    "fields, groups, message",
    [
        ({}, None, "fields={}: pass at least one field"),
        ([("lr", HILL)], None, "fields=.*must be a mapping"),
        ({"": HILL}, None, "field='': must be a non-empty string"),
        ({3: HILL}, None, "field=3: must be a non-empty string"),
        ({"l\nr": HILL}, None, "must have printable characters"),
        ({"lr": "high"}, None, "lr='high': must be a schedule"),
        ({"lr": True}, None, "lr=True"),
        ({"lr": -1}, None, "lr=-1"),
        ({"lr": [HILL]}, None, "lr="),
        ({"lr": HILL}, [], r"groups=\[\]: must be a mapping"),
        ({"lr": HILL}, {"a": HILL}, r"groups\[a\]="),
        ({"lr": HILL}, {"a": {"lrr": 1}}, r"groups\[a\]\.lrr: .*did you mean 'lr'"),
        ({"lr": HILL}, {"a": {"lr": None}}, r"groups\[a\]\.lr=None"),
        ({"lr": HILL}, {"a": {3: 1.0}}, "field=3: must be a non-empty string"),
        ({"lr": HILL}, {"a\t": {"lr": 1}}, "pattern=.*printable"),
        ({"lr": HILL, "wd": ProportionalTo("wd", at_max=1.0)}, None, r"wd\.to='wd'"),
    ],
)
def test_an_illegal_specification_is_refused_by_name(fields, groups, message):
    with pytest.raises(ConfigError, match=message):
        Specification(fields=fields, groups={} if groups is None else groups)


def test_a_groups_own_coupling_follows_the_fields_schedule():
    built = spec({"lr": UP}, {"a": {"lr": ProportionalTo(at_max=1.5)}})
    assert 1.0 == by_name(built.plan.values(4))["groups[a].lr"]


@pytest.mark.parametrize("peak", [-1.0, float("nan"), "high", None, True])
def test_a_coupling_needs_a_peak(peak):
    with pytest.raises(ConfigError, match="at_max="):
        ProportionalTo(at_max=peak)


# Written and read


def test_a_specification_as_json_is_read_back_equal():
    data = json.loads(json.dumps(FULL.to_dict()))
    assert {"fields", "groups"} == data.keys()
    assert FULL == Specification.from_parts(Specification.read(data))
    assert FULL == Specification.from_parts(FULL.parts())
    assert FULL == pickle.loads(pickle.dumps(FULL))  # noqa: S301 - our own bytes


def test_a_specification_is_written_as_plain_data():
    built = spec({"lr": UP, "weight_decay": ProportionalTo(at_max=0.5)}, {"a": {"lr": 0.5}})
    phase = {"shape": "linear", "steps": 8, "end": 0.75, "start": 0.25}
    fields = {"lr": {"phases": [phase]}, "weight_decay": {"peak": 0.5, "to": "lr"}}
    assert {"fields": fields, "groups": {"a": {"lr": 0.5}}} == built.to_dict()


def test_extras_and_powers_are_written_only_where_there_are_any():
    follows = ProportionalTo("batch_size", at_max=0.5, power=0.5)
    built = spec({"lr": follows}, {"a": {"lr": 0.5}}, {"batch_size": UP})
    assert {
        "fields": {"lr": {"peak": 0.5, "to": "batch_size", "power": 0.5}},
        "groups": {"a": {"lr": 0.5}},
        "extras": {"batch_size": UP.to_dict()},
    } == built.to_dict()
    data = json.loads(json.dumps(built.to_dict()))
    assert built == Specification.from_parts(Specification.read(data))
    assert built == pickle.loads(pickle.dumps(built))  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    "built, version",
    [
        (FULL, 1),
        (spec(extras={"batch_size": 32}), 2),
        (spec({"lr": UP, "eps": ProportionalTo(at_max=0.5, power=-1)}), 2),
        (spec({"lr": UP}, {"a": {"lr": ProportionalTo(at_max=0.5, power=2)}}), 2),
    ],
    ids=["plain", "extra", "power", "power of a group"],
)
def test_the_version_is_the_lowest_that_can_say_it(built, version):
    assert version == built.version


def with_parts(**changes):
    return {**spec({"lr": UP, "weight_decay": ProportionalTo(at_max=0.5)}).to_dict(), **changes}


WITHOUT_END = {"phases": [{"shape": "linear", "steps": 8, "start": 0.0}]}


@pytest.mark.parametrize(
    "data, part",
    [
        ({"groups": {}}, "fields"),
        ({"fields": {"lr": UP.to_dict()}}, "groups"),
        (with_parts(color=1), "color"),
        (with_parts(fields=[]), "fields"),
        (with_parts(fields={"lr": 0.5}), "fields.lr"),
        (with_parts(fields={"lr": WITHOUT_END}), "fields.lr"),
        (with_parts(fields={"lr": {"phases": []}}), "fields.lr"),
        (with_parts(fields={"lr": {**UP.to_dict(), "color": 1}}), "fields.lr"),
        (with_parts(fields={"lr": {"peak": -1.0, "to": "lr"}}), "fields.lr"),
        (with_parts(fields={"lr": {"peak": 1.0}}), "fields.lr"),
        (with_parts(fields={"lr": {"peak": 1.0, "to": "lr", "color": 1}}), "fields.lr"),
        (with_parts(fields={"lr": {"peak": 1.0, "to": "lr", "power": "x"}}), "fields.lr"),
        (with_parts(extras=[]), "extras"),
        (with_parts(extras={"batch_size": 32}), "extras.batch_size"),
        (with_parts(groups=[]), "groups"),
        (with_parts(groups={"a": []}), "groups[a]"),
        (with_parts(groups={"a": {"lr": "x"}}), "groups[a].lr"),
        (with_parts(groups={"a": {"lr": WITHOUT_END}}), "groups[a].lr"),
    ],
)
def test_a_misfit_names_the_part(data, part):
    with pytest.raises(Misfit) as error:
        Specification.read(data)
    assert part == error.value.part
    assert str(error.value).startswith(f"{part}: ")


def test_no_entry_stands_in_a_state_under_its_own_name():
    with pytest.raises(ConfigError, match="max_lr: is not known"):
        Specification.check_entry("max_lr", 1.0)
    assert () == Specification.STATE_KEYS


# Sides


def test_entries_are_paths():
    built = spec(
        {"lr": SQUARE, "weight_decay": ProportionalTo(at_max=0.5)},
        {"head.*": {"lr": 0.5, "weight_decay": UP}},
        {"batch_size": ProportionalTo(at_max=0.5, power=2.0)},
    )
    expected = {
        "lr.phases[0].shape": "polynomial",
        "lr.phases[0].steps": 8,
        "lr.phases[0].end": 0.0,
        "lr.phases[0].start": 1.0,
        "lr.phases[0].power": 2.0,
        "weight_decay.peak": 0.5,
        "weight_decay.to": "lr",
        "batch_size.peak": 0.5,
        "batch_size.to": "lr",
        "batch_size.power": 2.0,
        "groups[head.*].lr": 0.5,
        "groups[head.*].weight_decay.phases[0].shape": "linear",
        "groups[head.*].weight_decay.phases[0].steps": 8,
        "groups[head.*].weight_decay.phases[0].end": 0.75,
        "groups[head.*].weight_decay.phases[0].start": 0.25,
    }
    assert expected == by_name(built.entries())


def differing(mine, theirs):
    sides = by_name(mine.compare(theirs.parts()))
    return {name: both for name, both in sides.items() if both.config != both.checkpoint}


def test_schedules_of_as_many_phases_are_compared_phase_by_phase():
    expected = {
        "lr.phases[0].shape": Sides("linear", "polynomial (power=2.0)"),
        "lr.phases[0].end": Sides(0.75, 0.0),
        "lr.phases[0].start": Sides(0.25, 1.0),
    }
    assert expected == differing(spec({"lr": UP}), spec({"lr": SQUARE}))


@pytest.mark.parametrize(
    "mine, theirs",
    [(UP, HILL), (ProportionalTo("b", at_max=0.5), UP), (UP, ProportionalTo("b", at_max=0.5))],
)
def test_schedules_of_other_phase_counts_or_kinds_are_one_entry(mine, theirs):
    given = [spec({"lr": schedule, "b": UP}) for schedule in (mine, theirs)]
    assert {"lr": Sides(mine, theirs, "lr")} == differing(*given)


def test_a_power_is_compared_with_the_1_of_a_proportion_without_one():
    mine, theirs = (
        spec({"lr": UP, "eps": ProportionalTo(at_max=0.5, power=power)}) for power in (1.0, 2.0)
    )
    assert {"eps.power": Sides(1.0, 2.0, "eps")} == differing(mine, theirs)
    assert {"eps.power": Sides(2.0, 1.0, "eps")} == differing(theirs, mine)
    assert theirs == resolved(mine, theirs, "checkpoint")
    assert mine == resolved(theirs, mine, "checkpoint")


def test_a_policy_may_name_the_power_of_a_proportion_and_an_extra_that_only_a_checkpoint_has():
    built = spec({"lr": UP, "eps": ProportionalTo(at_max=0.5)}, extras={"batch_size": 32})
    for name in ("eps.power", "sequence_length", "batch_size.phases[0].start"):
        assert "config" == built.parse_policy({name: "config", "*": "checkpoint"}).words[name]
    for name in ("eps.powr", "batch_sise"):
        with pytest.raises(ConfigError, match="which is not an entry"):
            built.parse_policy({name: "config", "*": "checkpoint"})


def test_what_one_side_lacks_is_absent_there():
    mine = spec({"lr": UP, "eps": 0.5}, {"a": {"lr": 0.5}})
    theirs = spec({"lr": UP, "alpha": 0.25}, {"b": {"lr": 0.5}})
    assert {
        "eps": Sides(constant(0.5), ABSENT, "eps"),
        "alpha": Sides(ABSENT, constant(0.25), "alpha"),
        "groups[a].lr": Sides(0.5, ABSENT, ""),
        "groups[b].lr": Sides(ABSENT, 0.5, ""),
    } == differing(mine, theirs)


def test_each_side_says_whose_curve_it_is_part_of():
    fields = {name: both.field for name, both in by_name(FULL.compare(FULL.parts())).items()}
    assert "lr" == fields["groups[head*].lr.phases[0].steps"]
    assert "" == fields["groups[head*].betas[0]"]  # a multiplier is no part of a curve
    assert "weight_decay" == fields["weight_decay.to"]
    assert "weight_decay" == fields["groups[a.b].weight_decay.peak"]


def test_a_checkpoint_without_a_specification_has_nothing():
    assert {"lr": Sides(HILL, ABSENT, "lr")} == by_name(spec().compare({}))
    assert spec() == spec().merge({}, by_path({"lr": HILL}))


def test_every_entry_matters():
    assert frozenset() == FULL.unused()


# Merged


RATES = st.floats(0.0, 1e6)
PHASES = st.one_of(
    st.builds(Phase, st.sampled_from(["linear", "cosine"]), st.integers(0, 99), RATES, RATES),
    st.builds(
        lambda end, start, power: Phase("polynomial", 7.5, end, start, power=power),
        RATES,
        RATES,
        st.floats(0.5, 3.0),
    ),
)
CURVES = st.one_of(RATES.map(constant), st.lists(PHASES, min_size=1, max_size=3).map(Schedule))
COUPLED = st.builds(ProportionalTo, at_max=RATES, power=st.sampled_from([1.0, 0.5, 2.0]))
HIGH = st.lists(PHASES, min_size=1, max_size=3).map(Schedule).filter(lambda one: one.max_value > 0)


@st.composite
def specifications(draw, keys=("lr", "weight_decay", "eps")):
    fields = {key: draw(CURVES) for key in keys[1:]}
    fields = {keys[0]: draw(HIGH), **fields}
    if draw(st.booleans()):
        fields["weight_decay"] = draw(COUPLED)
    own = st.dictionaries(st.sampled_from(list(keys[1:])), st.one_of(CURVES, RATES))
    groups = draw(st.dictionaries(st.sampled_from(["a", "b.*", "c[0]"]), own, max_size=2))
    extras = draw(st.dictionaries(st.sampled_from(["batch_size", "length"]), CURVES, max_size=2))
    return Specification.of(fields, {name: own for name, own in groups.items() if own}, extras)


def resolved(mine, theirs, word):
    """Return the outcome of a policy of one word."""
    sides = by_name(mine.compare(theirs.parts()))
    used = {
        name: both.config
        if both.checkpoint is ABSENT
        else choose(both.config, both.checkpoint, word)[0]
        for name, both in sides.items()
    }
    return mine.merge(theirs.parts(), by_path(used))


@given(specifications())
@settings(deadline=None)
def test_any_specification_is_read_back_equal(built):
    assert built == Specification.from_parts(
        Specification.read(json.loads(json.dumps(built.to_dict())))
    )


@given(specifications(), specifications())
@settings(deadline=None)
def test_merged_with_all_of_the_configs_is_the_config(mine, theirs):
    assert mine == resolved(mine, theirs, "config")


@given(specifications(), specifications())
@settings(deadline=None)
def test_merged_with_all_of_the_checkpoints_is_the_checkpoint(mine, theirs):
    merged = resolved(mine, theirs, "checkpoint")
    assert theirs.fields == merged.fields
    assert {**mine.extras, **theirs.extras} == merged.extras
    kept = {pattern: own for pattern, own in mine.groups.items() if pattern not in theirs.groups}
    for pattern, own in {**theirs.groups, **kept}.items():
        assert own == {key: merged.groups[pattern][key] for key in own}


@given(specifications())
@settings(deadline=None)
def test_a_specification_has_no_difference_to_itself(built):
    assert {} == differing(built, built)
    assert built == resolved(built, built, "strict")


def merged(mine, theirs, **used):
    sides = by_name(mine.compare(theirs.parts()))
    defaults = {name: both.config for name, both in sides.items()}
    return mine.merge(theirs.parts(), by_path({**defaults, **used}))


def test_entries_of_both_sides_make_one_schedule():
    mine, theirs = spec({"lr": UP}), spec({"lr": SQUARE})
    outcome = merged(mine, theirs, **{"lr.phases[0].end": 0.0})
    assert spec({"lr": Schedule([Phase("linear", 8, end=0.0, start=0.25)])}) == outcome


def test_entries_that_make_no_schedule_name_the_field():
    mine, theirs = spec({"lr": UP}), spec({"lr": SQUARE})
    with pytest.raises(ConfigError, match=r"lr: .*steps"):
        merged(mine, theirs, **{"lr.phases[0].steps": -1})


def test_a_shape_brings_its_own_parameters_along():
    mine, theirs = spec({"lr": SQUARE}), spec({"lr": UP})
    shape = by_name(mine.compare(theirs.parts()))["lr.phases[0].shape"]
    used = merged(mine, theirs, **{"lr.phases[0].shape": shape.config}).fields["lr"].phases[0]
    assert ("polynomial", 2.0) == (used.shape, used.parameters["power"])
    used = merged(mine, theirs, **{"lr.phases[0].shape": shape.checkpoint}).fields["lr"].phases[0]
    assert ("linear", {}) == (used.shape, dict(used.parameters))


def test_a_field_of_the_checkpoint_alone_cannot_be_merged_but_dropped():
    mine, theirs = spec({"lr": UP}), spec({"lr": UP, "eps": 0.5}, {"a": {"eps": 0.5}})
    dropped = {"eps": ABSENT, "groups[a].eps": ABSENT}
    assert mine == merged(mine, theirs, **dropped)
    with pytest.raises(ConfigError, match="eps has a schedule in the checkpoint"):
        merged(mine, theirs, **{**dropped, "eps": constant(0.5)})


def test_a_group_of_a_field_that_is_dropped_cannot_stay():
    mine, theirs = spec({"lr": UP}), spec({"lr": UP, "eps": 0.5}, {"a": {"eps": 0.5}})
    with pytest.raises(ConfigError, match=r"groups\[a\]\.eps: 'eps' is not a"):
        merged(mine, theirs, **{"eps": ABSENT, "groups[a].eps": 0.5})


# Late changes and lint


def test_a_change_is_of_every_schedule_of_its_field_and_of_no_multiplier():
    built = spec({"lr": UP, "eps": 0.5}, {"a": {"lr": HILL, "eps": UP}, "b": {"lr": 0.5}})
    arguments = {"steps": 4, "shape": "linear", "end": 0.0, "field": "lr"}
    outcome = built.apply(Change(8, "cooldown", arguments))
    found = [outcome.fields["lr"](10), outcome.groups["a"]["lr"](10), outcome.groups["b"]["lr"]]
    assert [0.375, 0.5, 0.5] == found
    assert (built.fields["eps"], UP) == (outcome.fields["eps"], outcome.groups["a"]["eps"])
    assert UP == built.fields["lr"]


def test_lint_names_whose_schedule_it_means():
    jump = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("linear", 8, 0.0, 0.5)])
    built = spec({"lr": jump, "eps": jump}, {"head.*": {"lr": jump, "eps": 0.0}})
    idle = "the first update has lr 0 and changes nothing [first-lr-zero]"
    assert [
        f"position 0: lr: {idle}",
        f"position 0: groups[head.*].lr: {idle}",
        "position 8: lr: jumps from 1 to 0.5 at a join [jump]",
        "position 8: eps: jumps from 1 to 0.5 at a join [jump]",
        "position 8: groups[head.*].lr: jumps from 1 to 0.5 at a join [jump]",
    ] == [str(finding) for finding in built.lint()]


def test_lint_compares_each_horizon_with_the_run():
    found = spec({"lr": FALL, "eps": 0.5}).lint(updates=50, increment=2)
    assert ["position 80: lr: the horizon is 10 updates before the end of the run"] == [
        str(finding).partition(" (")[0] for finding in found
    ]
    assert () == spec({"lr": FALL}).lint(updates=40, increment=2)
    assert () == spec({"eps": UP}).lint(updates=5, increment=2)


@pytest.mark.parametrize(
    "momentum, expected",
    [
        (constant(0.5), []),
        (ProportionalTo(at_max=0.5), []),
        (rise(80), []),
        (
            rise(30),
            ["position 30: momentum: ends at 30, and lr ends at 80; its last value is 0.75"],
        ),
        (
            rise(100),
            [
                (
                    "position 80: momentum: ends at 100, after lr's horizon 80: its value there is "
                    "0.65, not 0.75"
                )
            ],
        ),
        (
            Schedule([*rise(80).phases, Phase("constant", 9, 0.75)]),
            ["position 80: momentum: ends at 89, and lr ends at 80; its last value is 0.75"],
        ),
    ],
    ids=["constant", "follows", "equal", "before", "after", "stays"],
)
def test_lint_compares_where_another_field_ends_with_lr(momentum, expected):
    found = spec({"lr": FALL, "momentum": momentum}).lint()
    assert expected == [re.split(r" \[| instead", str(finding))[0] for finding in found]


def test_a_field_that_moves_after_lr_has_ended_is_a_warning_and_one_that_ends_before_a_note():
    found = [spec({"lr": FALL, "eps": rise(end)}).lint() for end in (90, 70)]
    assert [("field-outlasts-lr", "warning"), ("field-ends-elsewhere", "note")] == [
        (one.code, one.level) for (one,) in found
    ]


def test_lint_compares_a_groups_field_with_the_groups_lr():
    short = Schedule([Phase("cosine", 20, end=0.0, start=1.0)])
    for overrides, expected in (
        ({"lr": short, "eps": rise(20)}, []),
        (
            {"lr": 0.5, "eps": rise(20)},
            ["position 20: groups[a].eps: ends at 20, and lr ends at 80"],
        ),
    ):
        found = spec({"lr": FALL, "eps": 0.5}, {"a": overrides}).lint()
        assert expected == [str(finding).partition(";")[0] for finding in found]


@pytest.mark.parametrize("lr", [constant(1.0), UP], ids=["constant", "warmup"])
def test_no_field_is_compared_with_an_lr_that_has_no_end(lr):
    assert [] == [one for one in spec({"lr": lr, "eps": rise(20)}).lint() if "eps" in one.message]


@pytest.mark.parametrize("increment", [2, 0.5])
def test_lint_refuses_an_increment_in_steps(increment):
    assert () == spec({"lr": FALL}).lint(increment=1.0, unit="steps")
    for unit in ("samples", "tokens", None):
        assert () == spec({"lr": FALL}).lint(increment=increment, unit=unit)
    with pytest.raises(ConfigError, match=rf"increment={increment}: must be 1 for unit"):
        spec({"lr": FALL}).lint(increment=increment, unit="steps")


def test_lint_of_what_is_well_says_nothing():
    assert (
        ()
        == spec({"lr": FALL, "weight_decay": ProportionalTo(at_max=0.5)}, {"a": {"lr": 0.0}}).lint()
    )


def test_lint_names_a_lone_rise_that_does_not_begin_at_0_as_a_floor_above_the_peak():
    (found,) = spec({"lr": UP}).lint()
    assert "is the floor above the peak?" in str(found)


def test_an_extra_is_no_weight_of_a_running_mean():
    assert 1.0 == spec({"lr": UP}, extras={"momentum": 1.0}).extras["momentum"].max_value


def test_a_weight_of_a_running_mean_is_refused_without_an_optimizer():
    for fields, groups in (({"betas[1]": 1.0}, {}), ({"momentum": 0.5}, {"a": {"momentum": HILL}})):
        with pytest.raises(ConfigError, match=r"would reach 1\.0.*: must be below 1"):
            spec(fields, groups)


def test_another_ranks_specification_adds_what_the_own_groups_do_not_have():
    mine = spec({"lr": UP}, {"a": {"lr": 0.5}}, {"batch_size": 32})
    other = {"lr": HILL, "eps": 0.5, "alpha": 0.25}
    groups = {"a": {"lr": 0.25}, "b": {"lr": 0.125}, "c*": {"lr": 0.125}}
    others = spec(other, groups, {"batch_size": 64, "length": 128})
    inventory = Inventory(names=frozenset({"a", "cc"}), fields=frozenset({"lr", "alpha"}))
    both = mine.unite(others, inventory)
    assert {"lr": UP, "eps": constant(0.5)} == both.fields
    assert {"a": {"lr": 0.5}, "b": {"lr": 0.125}} == both.groups
    assert mine.extras == both.extras  # which no group could lack


def test_an_end_is_in_proportion_for_per_group_schedules():
    body, embed = Schedule([Phase("constant", 100, 1.0, 1.0)]), schedules.constant(0.125, 100)
    specification = spec({"lr": body}, {"embed": {"lr": embed}})
    arguments = {"field": "lr", "steps": 10, "shape": "linear", "end": 0.5}
    changed = specification.apply(Change(50, "cooldown", arguments))
    assert (0.5, 0.0625) == (
        changed.fields["lr"].end_value,
        changed.groups["embed"]["lr"].end_value,
    )


def test_a_peak_is_in_proportion_for_per_group_schedules():
    body, embed = schedules.constant(1.0, 100), schedules.constant(0.125, 100)
    specification = spec({"lr": body}, {"embed": {"lr": embed}})
    changed = specification.apply(Change(50, "rewarm", {"field": "lr", "steps": 10, "peak": 2.0}))
    assert (2.0, 0.25) == (changed.fields["lr"](60), changed.groups["embed"]["lr"](60))


@pytest.mark.parametrize("horizon", [200, 300])
def test_an_extension_leaves_alone_what_ends_no_earlier(horizon):
    body, embed = schedules.wsd(1.0, 100, decay=10), schedules.wsd(1.0, horizon, decay=10)
    specification = spec({"lr": body}, {"embed": {"lr": embed}})
    changed = specification.apply(Change(50, "extend", {"field": "lr", "horizon": 200}))
    assert (200, embed) == (changed.fields["lr"].horizon, changed.groups["embed"]["lr"])


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("lr.phases[0].start", True),
        ("lr.phases[1].since", True),
        ("lr.phases[1].until", True),
        ("lr.phases[0].power", True),
        ("lr.phases[2].start", False),
        ("lr.phases[0].steps", False),
        ("lr.phases[0].other", False),
        ("lr.phases", False),
        ("lr.multiple_of", True),
        ("weight_decay.power", True),
        ("weight_decay.to", False),
        ("groups[any].lr", True),
        ("momentum", True),
        ("weight_deacy", False),
        ("momentum.phases", False),
    ],
)
def test_entries_that_only_a_checkpoint_has_are_those_that_a_config_can_have(entry, expected):
    power = Phase("polynomial", 8, end=0.0, start=1.0, power=2.0)
    config = Specification.of(
        {
            "lr": Schedule([power, Phase("linear", 8, end=1.0)]),
            "weight_decay": ProportionalTo(at_max=0.5),
        }
    )
    assert expected is config.may_name(Path.parse(entry))


@pytest.mark.parametrize(
    "operation, arguments, lr, weight_decay",
    [
        ("cooldown", {"steps": 10, "shape": "linear", "end": 0.5}, 2.0, 1.0),
        ("rewarm", {"steps": 10, "peak": 2.0}, 8.0, 16.0),
        ("scale", {"factor": 0.5}, 2.0, 1.0),
    ],
)
def test_in_a_group_with_bounds_a_late_change_is_in_proportion_to_its_peak(
    operation, arguments, lr, weight_decay
):
    fields = {"lr": constant(1.0, 100), "weight_decay": ProportionalTo(at_max=0.1, power=2)}
    change = Change(50, operation, {"field": "lr", **arguments})
    built = spec(fields).apply(change).plan.bounded
    assert [lr, weight_decay] == [pytest.approx(bounds().at(60)(4.0, 4.0)) for bounds in built]


def test_in_a_group_with_bounds_a_schedule_that_was_always_0_has_the_peak_itself():
    change = Change(50, "rewarm", {"field": "lr", "steps": 10, "peak": 2.0})
    (bounds,) = spec({"lr": constant(0.0, 100)}).apply(change).plan.bounded
    assert [2.0, 2.0] == [bounds().at(60)(high, 1.0) for high in (4.0, 8.0)]


@pytest.mark.parametrize("word", ["checkpoint", "config"])
def test_a_schedule_of_which_one_side_wins_everywhere_is_that_sides(word):
    mine, theirs = (spec({"lr": schedules.wsd(1.0, length, decay=20)}) for length in (100, 200))
    saved = theirs.parts()
    used = {path: getattr(sides, word) for path, sides in mine.compare(saved).items()}
    winner = theirs if word == "checkpoint" else mine
    merged = mine.merge(saved, used)
    assert winner == merged
    assert winner.fields["lr"] is merged.fields["lr"]


@pytest.mark.parametrize("position, at_max", [(10, 0.05), (40, 0.1)])
def test_after_a_scale_what_follows_keeps_its_proportion(position, at_max):
    lr = schedules.linear(1.0, 100, warmup=20)
    built = spec({"lr": lr, "weight_decay": ProportionalTo(at_max=0.1), "eps": lr})
    after = built.apply(Change(position, "scale", {"field": "lr", "factor": 0.5}))
    follower = after.fields["weight_decay"]
    assert at_max == pytest.approx(follower.at_max)
    values = by_name(after.plan.values(60))
    assert pytest.approx(0.1) == values["weight_decay"] / values["lr"]


@pytest.mark.parametrize("mine, theirs", [(4, None), (None, 4), (4, 8)])
def test_what_values_are_rounded_to_is_compared_if_a_side_has_it(mine, theirs):
    def rounded(to):
        lr = schedules.linear(100.0, 50)
        return spec({"lr": lr if to is None else schedules.whole(lr, multiple_of=to)})

    found = rounded(mine).compare(rounded(theirs).parts())
    assert Sides(mine, theirs, "lr") == by_name(found)["lr.multiple_of"]
    assert "lr.multiple_of" not in by_name(rounded(None).compare(rounded(None).parts()))
