"""Descriptions: the rows and the table of what groups get, and the table of own values."""

from __future__ import annotations

import pytest

from dist_sched._optim.description import GroupRow, GroupTable, own_values, source
from helpers import HILL, UP, adamw, new_group, param_scheduler, sgd

HEADER = ["group", "name", "optimizer", "parameters", "field", "now", "highest", "from"]


def row(group, name="", value=0.5, **changes):
    made = GroupRow(
        group=group,
        name=name,
        optimizer="SGD",
        parameters=1000,
        field="lr",
        value=value,
        highest=1.0,
        source="the schedule",
    )
    return made._replace(**changes)


def cells(table, most=None):
    """Return the cells of a table's lines, which two spaces or more separate."""
    lines = table.lines(most) if isinstance(table, GroupTable) else table.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_a_row_has_all_columns():
    expected = ["0", "a", "SGD", "1,000", "lr", "0.5", "1", "the schedule"]
    assert [HEADER, expected] == cells(GroupTable([row(0, "a")]))


def test_equal_groups_that_follow_each_other_share_a_row():
    table = GroupTable([row(0, "a"), row(1, "b"), row(2, "c"), row(3, "d", 0.25), row(4, "e")])
    _, first, second, third = cells(table)
    assert ["0-2", "a ... c", "SGD", "3,000"] == first[:4]
    assert ["3", "d", "SGD", "1,000"] == second[:4]
    assert ["4", "e", "SGD", "1,000"] == third[:4]


def test_equal_groups_of_two_optimizers_do_not_share_a_row():
    table = GroupTable([row(0, "a"), row(1, "b", optimizer="AdamW")])
    assert [["0", "a", "SGD"], ["1", "b", "AdamW"]] == [line[:3] for line in cells(table)[1:]]


def test_equal_groups_of_one_name_have_it_once_and_long_names_are_cut():
    assert "a" == cells(GroupTable([row(0, "a"), row(1, "a")]))[1][1]
    assert "x" * 24 == cells(GroupTable([row(0, "x" * 30)]))[1][1]


def test_the_second_field_of_a_group_stands_below_the_first_without_its_name():
    rows = [row(0, "a"), row(0, "a", field="weight_decay", value=1 / 3)]
    assert ["weight_decay", "0.333333", "1", "the schedule"] == cells(GroupTable(rows))[2]


@pytest.mark.parametrize(
    "most, shown, last", [(None, 5, None), (5, 5, None), (4, 3, 2), (2, 1, 4)], ids=str
)
def test_a_long_table_is_cut_and_says_how_many_rows_are_left_out(most, shown, last):
    table = GroupTable([row(index, value=index) for index in range(5)])
    lines = table.lines(most)
    assert shown == len(lines) - 1 - (last is not None)
    assert last is None or f"and {last} more rows" == lines[-1]


@pytest.mark.parametrize("count, last", [(30, None), (31, "and 2 more rows")])
def test_a_brief_table_has_thirty_lines_below_its_header(count, last):
    table = GroupTable([row(index, value=index) for index in range(count)])
    _, *found = table.brief().splitlines()
    assert (30, last is None or last) == (len(found), last is None or found[-1])
    assert count + 1 == len(str(table).splitlines())
    assert str(table) == repr(table)


def sources(optimizer, fields=None, **arguments):
    scheduler = param_scheduler(optimizer, fields, **arguments)
    return [one.source for one in scheduler.describe_groups()]


def test_the_source_of_a_value_names_what_it_is_made_of():
    groups = [
        {"name": "a"},
        {"lr": 0.5},
        {"lr": 0.0},
        {"max_lr": 2.0, "min_lr": 0.5},
        {"min_lr": 0.5, "lr_mult": 3.0},
        {"lr_mult": 2.0},
        {"name": "b"},
        {"name": "c"},
        {"name": "d"},
    ]
    patterns = {"b": {"lr": 0.5}, "c": {"lr": UP}, "d": {"lr": 1.0}}
    assert [
        "the schedule",
        "ratio 0.5 to group 'a'",
        "own value 0, stays 0",
        "own max_lr and min_lr",
        "own min_lr, lr_mult 3",
        "lr_mult 2",
        "the schedule, groups[b] × 0.5",
        "the schedule of groups[c]",
        "the schedule",
    ] == sources(sgd(*groups), groups=patterns)


@pytest.mark.parametrize(
    "groups, reference, expected",
    [
        ([{"lr": 0.5}, {}], None, "ratio 0.5 to group 1"),
        ([{"lr": 0.5}, {}], 2.0, "ratio 0.25 to 2"),
        ([{"lr": 0.5}, {"name": "a"}], "a", "ratio 0.5 to group 'a'"),
    ],
    ids=str,
)
def test_the_reference_of_a_ratio_is_a_group_or_a_number(groups, reference, expected):
    assert expected == sources(sgd(*groups), reference=reference)[0]


def test_a_group_without_an_override_is_preferred_as_the_name_of_the_reference():
    groups = {"name": "a"}, {"name": "b"}, {"lr": 0.5}
    expected = "ratio 0.5 to group 'b'"
    assert expected == sources(sgd(*groups), groups={"a": {"lr": 0.5}})[2]


def test_the_source_of_a_late_groups_value_is_its_value_when_it_was_added():
    optimizer = sgd()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(8)
    optimizer.add_param_group(new_group(lr=0.25))
    scheduler.step()
    found = [one.source for one in scheduler.describe_groups()]
    assert ["the schedule", "ratio 0.25, from its value when it was added"] == found


def test_a_field_of_which_no_group_has_an_own_value_follows_the_schedule():
    optimizer = sgd({}, {}, momentum=0.0)
    assert {"the schedule"} == {*sources(optimizer, {"momentum": UP})}


def test_a_source_has_the_text_of_the_reference_that_is_given():
    scheduler = param_scheduler(sgd({"lr": 0.5}, {}))
    ((first,), _) = scheduler._writer._followed
    assert "ratio 0.5 to something" == source(first, "something")


def test_own_values_are_listed_with_equal_groups_in_one_row():
    optimizers = [sgd({"name": "a"}, {"name": "a"}, {"lr": 0.5}), adamw({"name": "x" * 30})]
    del optimizers[0].param_groups[2]["momentum"]
    tracked = param_scheduler(optimizers, {"lr": HILL})._writer.tracker.tracked
    lines = cells(own_values(tracked, "lr"))
    assert ["group", "name", "optimizer", "own lr"] == lines[0]
    assert ["0-1", "a", "SGD 0", "1"] == lines[1]
    assert ["2", "SGD 0", "0.5"] == lines[2]
    assert ["3", "x" * 24, "AdamW 1", "1"] == lines[3]
    assert [["0-1", "0.5"], ["2", "-"], ["3", "-"]] == [
        [line[0], line[-1]] for line in cells(own_values(tracked, "momentum"))[1:]
    ]


@pytest.mark.parametrize("count, last", [(30, None), (31, "and 1 more"), (33, "and 3 more")])
def test_of_many_own_values_thirty_are_listed(count, last):
    groups = ({"lr": 1.0 + index} for index in range(count))
    tracked = param_scheduler(sgd(*groups))._writer.tracker.tracked
    lines = own_values(tracked, "lr").splitlines()
    assert 31 + (last is not None) == len(lines)
    assert last is None or last == lines[-1]


def test_the_parameters_of_a_group_are_counted_by_their_elements():
    optimizer = sgd({})
    optimizer.param_groups[0]["params"] *= 3
    (found,) = param_scheduler(optimizer).describe_groups()
    assert (0, "", "SGD", 6, "lr", 0.0, 1.0) == found[:7]
