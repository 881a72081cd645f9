"""Plans: the values of every field and of groups with a curve of their own."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._config.path import Path
from dist_sched._config.plan import value_at
from dist_sched._config.specification import Specification
from dist_sched._curves.proportional import ProportionalTo
from helpers import UP, by_name, by_path

HILL = Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("cosine", 32, end=0.5)])
SQUARE = Schedule([Phase("polynomial", 8, end=0.0, start=1.0, power=2.0)])
FULL = Specification.of(
    {"lr": HILL, "weight_decay": ProportionalTo(at_max=0.5), "betas[0]": UP, "eps": 1e-8},
    {
        "head*": {"lr": SQUARE, "betas[0]": 0.5},
        "a.b": {"weight_decay": ProportionalTo(at_max=0.25)},
    },
)


def test_labels_and_values_are_by_field_and_by_group():
    plan = FULL.plan
    labels = ["lr", "weight_decay", "betas[0]", "eps", "groups[head*].lr"]
    own = ["groups[head*].weight_decay", "groups[a.b].weight_decay"]
    multiplied = ["groups[head*].betas[0]"]
    values = by_name(plan.values(4))
    assert {*labels, *own, *multiplied} == set(values)
    assert (0.5, 0.25, 0.5, 1e-8) == tuple(values[label] for label in labels[:4])
    assert (0.25, 0.125, 0.125) == tuple(values[label] for label in [labels[4], *own])


def test_a_groups_own_curve_stands_once_and_not_what_would_follow_from_its_lr():
    fields = {"lr": HILL, "weight_decay": ProportionalTo(at_max=0.5)}
    plan = Specification.of(fields, {"a": {"lr": SQUARE, "weight_decay": UP}}).plan
    assert ["lr", "weight_decay", "groups[a].lr", "groups[a].weight_decay"] == [
        *by_name(plan.values(4))
    ]
    assert 0.5 == by_name(plan.values(4))["groups[a].weight_decay"]


def test_an_override_is_found_by_the_pattern_that_a_name_matches():
    plan = FULL.plan
    lr = plan.fields[0]
    assert plan.override_of("headless", lr).path == Path("lr", pattern="head*")
    assert [None, None, None] == [plan.override_of(name, lr) for name in ("Head", None, 3)]


def test_a_multiplier_is_a_value_of_its_own():
    values = Specification.of({"lr": UP}, {"a": {"lr": 0.5}}).plan.values(8)
    assert {"lr": 0.75, "groups[a].lr": 0.375} == by_name(values)


def test_the_value_of_an_override_that_is_not_there_is_the_fields():
    values = by_path({"lr": 0.5, "groups[a].lr": 0.25})
    paths = (Path("lr", pattern="a"), Path("lr", pattern="b"), Path("eps"))
    assert [0.25, 0.5, None] == [value_at(values, path) for path in paths]


def test_two_patterns_that_set_a_field_of_a_group_are_refused():
    plan = Specification.of({"lr": UP}, {"a*": {"lr": 0.5}, "*b": {"lr": 0.25}}).plan
    with pytest.raises(ConfigError, match=r"the patterns 'a\*', '\*b' all set lr of group 'ab'"):
        plan.override_of("ab", plan.fields[0])


def test_an_override_that_is_given_counts_before_one_that_is_implied():
    fields = {"lr": HILL, "weight_decay": ProportionalTo(at_max=0.5)}
    groups = {"a*": {"lr": SQUARE}, "*b": {"weight_decay": 0.5}}
    plan = Specification.of(fields, groups).plan
    weight_decay = plan.fields[1]
    assert "*b" == plan.override_of("ab", weight_decay).pattern
    assert "a*" == plan.override_of("a", weight_decay).pattern
