"""Fillers: the loops that write, each left and built anew as soon as a group has changed."""

from __future__ import annotations

import pytest

from dist_sched import Phase, Schedule
from dist_sched._optim.fillers import joined, never
from helpers import UP, adamw, held, param_scheduler, sgd

RISE = Schedule([Phase("linear", 8, end=1.0, start=0.0)])
FALL = Schedule([Phase("linear", 8, end=0.0, start=1.0)])
BOUND, TIMES = {"max_lr": 2.0}, {"lr_mult": 4.0}
LAYOUTS = {
    "equal": ([{}, {}, {}], [1.0, 1.0, 1.0]),
    "shared": ([{}, {"lr": 0.5}, {}], [1.0, 0.5, 1.0]),
    "distinct": ([{}, {"lr": 0.5}, {"lr": 0.25}], [1.0, 0.5, 0.25]),
    "between": ([BOUND, BOUND, BOUND], [2.0, 2.0, 2.0]),
    "overridden": ([TIMES, TIMES, TIMES], [4.0, 4.0, 4.0]),
    "mixed": ([TIMES, BOUND, {}], [4.0, 2.0, 1.0]),
}
EVERY_LAYOUT = pytest.mark.parametrize("groups, factors", LAYOUTS.values(), ids=LAYOUTS)
EVERY_GROUP = pytest.mark.parametrize("index", [0, 1, 2])


def started(groups, curve=RISE):
    """Return a scheduler that has written into every group, and the groups."""
    scheduler = param_scheduler(sgd(*map(dict, groups)), {"lr": curve})
    for position in (1, 2):
        scheduler.seek(position)
    return scheduler, scheduler.optimizer.param_groups


@EVERY_LAYOUT
def test_every_group_has_its_value_at_every_step(groups, factors):
    scheduler, _ = started(groups)
    for position in (3, 4, 8, 1):
        scheduler.seek(position)
        assert [factor * position / 8 for factor in factors] == held(scheduler)


@EVERY_GROUP
@EVERY_LAYOUT
def test_a_field_that_is_removed_comes_back_at_the_next_step(groups, factors, index):
    scheduler, held_groups = started(groups)
    del held_groups[index]["lr"]
    for position in (3, 4):
        scheduler.seek(position)
        assert [factor * position / 8 for factor in factors] == held(scheduler)


@EVERY_GROUP
@EVERY_LAYOUT
@pytest.mark.parametrize("key", ["lr_mult", "max_lr", "min_lr"])
def test_an_override_of_none_that_comes_changes_nothing(key, groups, factors, index):
    scheduler, held_groups = started(groups)
    held_groups[index].setdefault(key, None)
    for position in (3, 4):
        scheduler.seek(position)
        assert [factor * position / 8 for factor in factors] == held(scheduler)


@EVERY_GROUP
@EVERY_LAYOUT
@pytest.mark.parametrize("key, value", [("lr_mult", 8.0), ("max_lr", 8.0), ("min_lr", 0.5)])
def test_an_override_that_comes_counts_from_the_next_step_on(key, value, groups, factors, index):
    scheduler, held_groups = started(groups, curve=FALL)
    group = held_groups[index]
    before = dict(group)
    group[key] = value
    high, low = group.get("max_lr"), group.get("min_lr", 0.0)
    factor = group.get("lr_mult", 1.0 if high or low else factors[index])
    for position in (3, 4, 8):
        scheduler.seek(position)
        share = 1 - position / 8
        expected = [one * share for one in factors]
        expected[index] = (low + ((high or 1.0) - low) * share) * factor
        assert expected == pytest.approx(held(scheduler))
    group.pop(key)
    group |= {name: one for name, one in before.items() if name == key}
    scheduler.seek(4)
    assert [factor / 2 for factor in factors] == held(scheduler)


@EVERY_GROUP
@EVERY_LAYOUT
def test_what_something_else_wrote_is_named_and_written_over(groups, factors, index, caplog):
    scheduler, held_groups = started(groups)
    held_groups[index]["lr"] = 7.0
    scheduler.seek(4)
    assert [factor / 2 for factor in factors] == held(scheduler)
    (message,) = [one.message for one in caplog.records if "something else" in one.message]
    ours = factors[index] * 2 / 8
    assert f"lr of group {index}: its value was 7.0 instead of the scheduled {ours!r};" in message


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("part", [0, 1])
def test_a_part_of_a_tuple_is_written_and_the_others_are_as_they_are(part, index):
    optimizer = adamw({"betas": (0.75, 0.75)}, {"betas": (0.375, 0.375)})
    scheduler = param_scheduler(optimizer, {f"betas[{part}]": UP})
    scheduler.seek(4)
    optimizer.param_groups[index]["betas"] = (0.1, 0.2)
    scheduler.seek(8)
    expected = [[0.75, 0.75], [0.375, 0.375]]
    expected[index] = [0.1, 0.2]
    for group, own in zip(expected, (0.75, 0.375), strict=True):
        group[part] = own
    assert expected == [[*group["betas"]] for group in optimizer.param_groups]


def test_a_tuple_that_something_else_made_is_named_by_its_part(caplog):
    optimizer = adamw()
    scheduler = param_scheduler(optimizer, {"betas[1]": UP})
    scheduler.seek(4)
    optimizer.param_groups[0]["betas"] = (0.5, 0.125)
    scheduler.seek(8)
    assert "writes betas[1] of group 0: its value was 0.125 instead of the scheduled 0.5;" in (
        caplog.text
    )


def test_one_loop_for_several_ends_at_the_first_that_fails():
    calls = []

    def loop(name, outcome):
        return lambda position: calls.append((name, position)) or outcome

    assert joined([loop("a", True), loop("b", True)])(3)
    assert not joined([loop("c", False), loop("d", True)])(4)
    assert [("a", 3), ("b", 3), ("c", 4)] == calls
    assert joined([never]) is never
    assert not never(1)
    assert joined([])(1)
