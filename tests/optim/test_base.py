"""The base of the schedulers: what it refuses, what it logs, and how it compares reports."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from dist_sched import ConfigError, StateError
from dist_sched._optim import base, process_groups
from dist_sched._rules import MAX_LENGTH
from dist_sched._state.report import WIDTH
from helpers import HILL, adamw, held, opt_param_scheduler, param_scheduler, sgd

BOTH = pytest.mark.parametrize("build", [param_scheduler, opt_param_scheduler])


@BOTH
@pytest.mark.parametrize(
    "argument, value",
    [("name", 7), ("unit", "epochs"), ("keep_group_ratios", 1), ("process_group", "all")],
)
def test_an_argument_is_refused_with_its_name_and_value(build, argument, value):
    with pytest.raises(ConfigError, match=f"^{argument}={value!r}: "):
        build(**{argument: value})


@BOTH
@pytest.mark.parametrize("increment", [-1, 1.5, "1", None, 2**70])
def test_an_increment_that_is_no_count_is_refused_and_changes_nothing(build, increment):
    scheduler = build()
    scheduler.seek(4)
    before = held(scheduler)
    name = "position" if increment == 2**70 else "increment"
    with pytest.raises(ConfigError, match=f"^{name}="):
        scheduler.step(increment)
    assert (4, before) == (scheduler.num_steps, held(scheduler))


@BOTH
@pytest.mark.parametrize("increments, expected", [([0], 4), ([1], 5), ([], 5), ([2, 3], 9)])
def test_a_step_advances_by_its_increment_or_by_one(build, increments, expected):
    scheduler = build()
    scheduler.seek(4)
    for increment in increments:
        scheduler.step(increment)
    if not increments:
        scheduler.step()
    assert expected == scheduler.num_steps


def test_a_position_is_counted_up_to_the_largest():
    scheduler = param_scheduler()
    scheduler.seek(MAX_LENGTH - 1)
    scheduler.step()
    assert MAX_LENGTH == scheduler.num_steps
    with pytest.raises(ConfigError, match=r"^position="):
        scheduler.step()
    assert MAX_LENGTH == scheduler.num_steps


@pytest.mark.parametrize("position", [-1, 0.5, "4"])
def test_a_position_that_is_no_count_is_refused(position):
    scheduler = param_scheduler()
    for use in (scheduler.seek, scheduler.check_position):
        with pytest.raises(ConfigError, match=f"^position={position!r}: "):
            use(position)
    with pytest.raises(ConfigError, match=f"^expected_position={position!r}: "):
        scheduler.load_state_dict(scheduler.state_dict(), expected_position=position)


def test_the_trainers_count_is_compared_with_the_position():
    scheduler = param_scheduler()
    scheduler.seek(4)
    scheduler.check_position(4)
    text = "position is 4, but the trainer's is 5; check that both are from the same checkpoint"
    with pytest.raises(StateError, match=text):
        scheduler.check_position(5)
    with pytest.raises(StateError, match=text):
        scheduler.load_state_dict(scheduler.state_dict(), expected_position=5)


@pytest.mark.parametrize(
    "change",
    [
        lambda scheduler, **jump: scheduler.cooldown(8, **jump),
        lambda scheduler, **jump: scheduler.extend(80, **jump),
        lambda scheduler, **jump: scheduler.rewarm(8, **jump),
    ],
)
def test_whether_a_jump_is_allowed_is_a_bool(change):
    with pytest.raises(ConfigError, match=r"^allow_jump=1: "):
        change(param_scheduler(), allow_jump=1)


# What is logged


@pytest.mark.parametrize("count, last", [(15, "line 14"), (16, "... and 1 more")])
def test_of_very_many_lines_the_first_fifteen_are_logged(count, last):
    lines = [f"line {i}" for i in range(count)]
    assert "\n".join([*lines[:15], *([last] if count > 15 else [])]) == base._short(lines)


class Report(SimpleNamespace):
    """Stands for the report of a load."""

    def __str__(self):
        return "position 60"

    def table(self):
        return "the table"


@pytest.mark.parametrize("where, origin", [(None, ""), ("run/a", " from run/a")])
def test_a_load_without_differences_is_logged_in_one_line(caplog, where, origin):
    caplog.set_level(logging.DEBUG, "dist_sched")
    base._log(Report(is_equal=True), where)
    expected = ("dist_sched", logging.INFO, f"loaded the scheduler{origin} at position 60")
    assert [expected] == caplog.record_tuples


@pytest.mark.parametrize(
    "where, line, of",
    [(None, "", ""), ("run/a", " from run/a\n", " of run/a")],
)
def test_a_load_with_differences_is_a_warning_and_its_table_is_for_debugging(
    caplog, where, line, of
):
    caplog.set_level(logging.DEBUG, "dist_sched")
    base._log(Report(is_equal=False), where)
    text = f"loaded the scheduler{line or ' '}at position 60"
    assert [
        ("dist_sched", logging.WARNING, text),
        ("dist_sched", logging.DEBUG, f"the whole report{of}:\nthe table"),
    ] == caplog.record_tuples


LONGEST = WIDTH - len("loaded the scheduler from ")


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1, 500])
def test_a_long_path_is_cut_at_its_beginning(caplog, length):
    path = "".join(str(i % 10) for i in range(length))
    base._log(Report(is_equal=False), path)
    shown = path if length == LONGEST else f"...{path[3 - LONGEST :]}"
    assert [f"loaded the scheduler from {shown}\nat position 60"] == caplog.messages
    assert WIDTH == len(caplog.messages[0].partition("\n")[0])


@pytest.mark.parametrize("rank, expected", [(0, True), (1, False)])
def test_the_first_rank_alone_logs_what_all_have(caplog, monkeypatch, rank, expected):
    caplog.set_level(logging.INFO, "dist_sched")
    monkeypatch.setattr(process_groups, "rank", lambda _group=None: rank)
    scheduler = param_scheduler(extras={"batch_size": 16})
    assert expected == ("extras at position 0: batch_size=16" in caplog.messages)
    assert expected == any(m.startswith("each group gets:\n") for m in caplog.messages)
    caplog.clear()
    scheduler.scale(0.5)
    assert expected == any("scale" in message for message in caplog.messages)


@pytest.mark.parametrize("rank, level", [(0, logging.WARNING), (1, logging.INFO)])
def test_what_differs_on_all_ranks_is_a_warning_of_the_first_alone(
    caplog, monkeypatch, rank, level
):
    caplog.set_level(logging.INFO, "dist_sched")
    scheduler = param_scheduler()
    caplog.clear()
    monkeypatch.setattr(process_groups, "rank", lambda _group=None: rank)
    scheduler._log_differences([])
    scheduler._log_differences(["a", "b"])
    assert [("dist_sched", level, "a\nb")] == caplog.record_tuples


def test_a_scheduler_without_fields_has_no_table_of_groups(caplog):
    caplog.set_level(logging.INFO, "dist_sched")
    scheduler = param_scheduler(adamw(), {"lr": HILL}, extras={"batch_size": 16})
    assert "    extras: batch_size=16\n" in repr(scheduler)
    assert repr(scheduler).startswith("ParamScheduler(\n    position: 0 steps\n    lr: ")
    assert repr(scheduler).endswith("\n)")
    assert "extras" not in repr(param_scheduler())


def test_a_group_that_cannot_be_read_is_named_in_the_text_of_a_scheduler():
    scheduler = param_scheduler(sgd())
    scheduler.optimizer.param_groups[0]["max_lr"] = "high"
    assert "\n    groups: group 0: max_lr='high'" in repr(scheduler)


# How reports of ranks are compared


def reports(*entries):
    return [{"groups": [], **one} for one in entries]


@pytest.mark.parametrize(
    "entries, expected",
    [
        ([{"max_lr": 1.0}, {"max_lr": 1.0}], []),
        ([{"max_lr": 1.0}, {"max_lr": 0.5}], ["rank 1: max_lr is 0.5, rank 0 has 1.0"]),
        ([{}, {"a": 1}], ["rank 1: a is 1, rank 0 has nothing"]),
        ([{"a": 1}, {}], ["rank 1: a is nothing, rank 0 has 1"]),
        ([{"groups": ["group 0: lr is 1"]}], ["rank 0: group 0: lr is 1"]),
        ([{"groups": ["x"]}, {"groups": ["y"]}], ["rank 0: x", "rank 1: y"]),
        ([{"reference lr": 1.0}, {}], []),
        ([{}, {"reference lr": 1.0}], []),
        ([{}, {"reference lr": 1.0}, {"reference lr": 1.0}], []),
        (
            [{"reference lr": 1.0}, {"reference lr": 2.0}],
            ["rank 1: reference lr is 2.0, rank 0 has 1.0"],
        ),
        (
            [{}, {"reference lr": 1.0}, {"reference lr": 2.0}],
            ["rank 2: reference lr is 2.0, rank 0 has 1.0"],
        ),
    ],
)
def test_a_rank_is_named_with_its_value_and_the_first_ones(entries, expected):
    found = reports(*entries)
    assert expected == [
        line for rank in range(len(found)) for line in base._disagreements(found, rank)
    ]


@pytest.mark.parametrize(
    "mine, theirs, expected",
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a 2 instead of 1"]),
        ({}, {"a": 2}, ["a 2 instead of nothing"]),
        ({"a": "x"}, {}, ["a nothing instead of 'x'"]),
        ({"b": 1, "a": 1}, {"a": 2, "b": 2}, ["a 2 instead of 1", "b 2 instead of 1"]),
    ],
)
def test_what_is_adopted_is_named_with_both_values(mine, theirs, expected):
    assert expected == base._differences(mine, theirs)


def test_a_report_has_the_references_of_groups_that_keep_ratios():
    assert 2.0 == param_scheduler(sgd(lr=2.0))._own_report()["reference lr"]
    without = param_scheduler(sgd(lr=2.0), keep_group_ratios=False)
    assert "reference lr" not in without._own_report()
    optimizer = sgd(lr=2.0)
    scheduler = param_scheduler(optimizer)
    optimizer.param_groups.clear()
    scheduler._writer.inventory()
    assert "reference lr" not in scheduler._own_report()


def test_a_report_names_groups_that_cannot_be_read_at_all():
    scheduler = param_scheduler(sgd())
    scheduler.optimizer.param_groups[0] = 7
    [problem] = scheduler._own_report()["groups"]
    assert problem.startswith("its groups cannot be read: ")
