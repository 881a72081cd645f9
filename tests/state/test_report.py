"""The report as text and as data: what each line says, what is left out, and where it is cut."""

from __future__ import annotations

import pytest

from dist_sched import schedules
from dist_sched._state.report import EQUAL, MISSING, NextValue, Reconciliation, Row, aligned, short

STAYS = NextValue("lr", 0.5, 0.5, 0.5)
REFUSED = NextValue("lr", 0.5, 1.0, None)


def row(name="max_lr", config=1.0, checkpoint=2.0, used=2.0, why="why", *, changed=True):
    return Row(name, config, checkpoint, used, why, changed=changed)


def rows(count):
    return tuple(row(f"entry{index}") for index in range(count))


def report(*rows, values=(STAYS,), **arguments):
    return Reconciliation(rows=rows, position=7, next_update=tuple(values), **arguments)


def lines(*rows, **arguments):
    return str(report(*rows, **arguments)).splitlines()


@pytest.mark.parametrize(
    "checkpoint, used, moves",
    [
        (1.0, 1.0 + 5e-7, False),
        (1.0, 1.0 + 5e-6, True),
        (1.0, 1.0 - 5e-6, True),
        (0.0, 5e-16, False),
        (0.0, 5e-15, True),
        (None, 1.0, False),
        (1.0, None, False),
    ],
)
def test_a_value_moves_where_it_differs_by_more_than_rounding(checkpoint, used, moves):
    assert moves is NextValue("lr", 1.0, checkpoint, used).moves


@pytest.mark.parametrize(
    "found, expected",
    [
        (report(row(why=EQUAL, changed=False)), True),
        (report(row()), False),
        (report(row(why=MISSING, changed=False)), False),
        (report(warnings=("odd",)), False),
        (report(values=[NextValue("lr", 0.5, 1.0, 0.5)]), False),
        (report(row(why=EQUAL, changed=False), values=[STAYS, REFUSED]), True),
        (report(row(why=EQUAL, changed=False), row(why=MISSING, changed=False)), False),
        (report(values=[STAYS, NextValue("eps", 0.5, 1.0, 0.5)]), False),
    ],
    ids=["equal", "changed", "missing", "warning", "moves", "unused", "one missing", "one moves"],
)
def test_only_a_report_with_nothing_to_tell_is_equal(found, expected):
    assert expected is found.is_equal
    assert expected is (str(found) == "position 7; config and checkpoint are equal")


def test_the_used_values_are_those_of_entries():
    found = report(row(), row("unit", "steps", "steps", "steps"), row("history", None, "x", "x"))
    assert {"max_lr": 2.0} == found.used


def test_as_data_a_schedule_is_what_a_config_has():
    schedule = schedules.constant(0.5)
    (data,) = report(row("lr", None, schedule, schedule)).to_dict()["rows"]
    assert (None, schedule.to_dict()) == (data["config"], data["checkpoint"])


def test_as_data_the_rest_of_a_report_is_as_it_is():
    data = report(values=[REFUSED], warnings=("odd",), alternative={"lr": "config"}).to_dict()
    value = {"field": "lr", "config": 0.5, "checkpoint": 1.0, "used": None}
    assert {
        "rows": [],
        "position": 7,
        "next_update": [value],
        "warnings": ["odd"],
        "alternative": {"lr": "config"},
    } == data


def test_the_table_marks_what_differs_and_has_a_dash_for_what_is_not_there():
    found = report(
        row("a", 1.0, 0.1 + 0.2, None),
        row("b", None, 3, 3, "x", changed=False),
        values=[NextValue("lr", 0.1 + 0.2, None, 0.5)],
    )
    assert [
        "   entry  config  checkpoint           used  why",
        "*  a      1.0     0.30000000000000004  -     why",
        "   b      -       3                    3     x",
        "   lr     0.3     -                    0.5   next update",
    ] == found.table().splitlines()


def test_columns_are_as_wide_as_their_widest_text_with_two_blanks_between_them():
    assert ["a    bb", "ccc  d"] == aligned([("a", "bb"), ("ccc", "d")])


@pytest.mark.parametrize(
    "value, text", [(1 / 3, "0.33333333"), (2.0, "2"), (2**60, str(2**60)), (None, "-"), ("x", "x")]
)
def test_a_short_value_has_eight_digits(value, text):
    assert text == short(value)


@pytest.mark.parametrize(
    "count, text",
    [(0, "no entries differ"), (1, "1 entry differs"), (2, "2 entries differ")],
)
def test_the_first_line_has_the_position_and_counts_what_differs(count, text):
    assert f"position 7; {text}" == lines(*rows(count), warnings=("odd",))[0]


@pytest.mark.parametrize(
    "equal, expected",
    [(0, "no entries are equal"), (1, "1 entry is equal"), (2, "2 entries are equal")],
)
def test_the_last_line_counts_what_is_equal(equal, expected):
    same = (row(f"same{index}", why=EQUAL, changed=False) for index in range(equal))
    assert expected == lines(row(), *same)[-1]


def test_nothing_is_counted_as_equal_where_nothing_was_compared():
    found = lines(row(why=MISSING, changed=False))
    assert [
        "position 7; no entries differ",
        "lr for the next update: 0.5, as in the checkpoint's run",
        "not in the checkpoint, so the config's are used: max_lr",
    ] == found


@pytest.mark.parametrize(
    "value, text",
    [
        (NextValue("lr", 1.0, 2.0, 1.0), "2 → 1 (× 0.5)"),
        (NextValue("lr", 1.0, 3.0, 1.0), "3 → 1 (× 0.3333)"),
        (NextValue("lr", 1.0, 0.0, 1.0), "0 → 1"),
        (NextValue("lr", 1.0, None, 1.0), "1; the checkpoint's value is unknown"),
        (NextValue("lr", 1.0, 2.0, 2.0), "2, as in the checkpoint's run (the config has 1)"),
        (NextValue("lr", 2.0, 2.0, 2.0), "2, as in the checkpoint's run"),
        (NextValue("lr", None, 2.0, 2.0), "2, as in the checkpoint's run"),
    ],
)
def test_the_line_of_a_value_says_where_it_is_from(value, text):
    assert f"lr for the next update: {text}" == lines(row(), values=[value])[1]


def test_a_field_that_is_no_longer_scheduled_is_named_beside_one_that_is():
    values = [STAYS, NextValue("momentum", None, 0.9, None)]
    assert "momentum for the next update: 0.9 → not scheduled" == lines(row(), values=values)[2]


@pytest.mark.parametrize(
    "checkpoint, text", [(1.0, "1 in the checkpoint"), (None, "unknown in the checkpoint")]
)
def test_after_a_refusal_both_values_are_given(checkpoint, text):
    value = NextValue("lr", 0.5, checkpoint, None)
    assert f"lr for the next update: {text}, 0.5 in the config" == lines(row(), values=[value])[1]


def test_lr_is_first_and_a_value_that_stays_is_left_out():
    values = [
        NextValue("momentum", 0.9, 0.9, 0.9),
        NextValue("weight_decay", 0.1, 0.2, 0.1),
        NextValue("eps", 0.3, 0.2, 0.2),
        STAYS,
    ]
    named = [line.split()[0] for line in lines(row(), values=values)[1:3]]
    assert ["lr", "weight_decay"] == named
    assert "max_lr" == lines(row(), values=values)[3].split(":")[0]


def test_after_a_refusal_only_values_that_differ_are_beside_lr():
    values = [
        NextValue("lr", 0.5, 0.5, None),
        NextValue("momentum", 0.9, 0.9, None),
        NextValue("eps", 0.3, None, None),
        NextValue("weight_decay", 0.1, 0.2, None),
    ]
    assert ["lr", "weight_decay", "max_lr"] == [
        line.split()[0].strip(":") for line in lines(row(), values=values)[1:4]
    ]


def test_of_many_values_six_are_given():
    values = [NextValue(f"field{index}", 1.0, 2.0, 1.0) for index in range(8)]
    found = lines(row(), values=values)
    assert "field5 for the next update: 2 → 1 (× 0.5)" == found[6]
    assert "and 2 more values" == found[7]


@pytest.mark.parametrize("count, last", [(6, "field5 "), (7, "and 1 more values")])
def test_as_many_values_as_there_is_room_for_are_all_given(count, last):
    values = [NextValue(f"field{index}", 1.0, 2.0, 1.0) for index in range(count)]
    found = lines(row(), values=values)
    assert found[count if count == 6 else 7].startswith(last)


@pytest.mark.parametrize("count, more", [(8, []), (10, ["and 2 more warnings"])])
def test_of_many_warnings_eight_lines_are_given(count, more):
    warnings = tuple(f"warning {index}" for index in range(count))
    expected = [*warnings[:8], *more, "no entries differ"]
    assert expected[:-1] == lines(warnings=warnings)[2:]


@pytest.mark.parametrize("count, more", [(10, []), (13, ["and 3 more entries that differ"])])
def test_of_many_rows_ten_are_given(count, more):
    found = lines(*rows(count))
    assert [*(f"entry{index}" for index in range(10)), *more] == [
        line.split(":")[0] for line in found[2:-1]
    ]


@pytest.mark.parametrize("count, more", [(8, ""), (10, " and 2 more")])
def test_of_many_names_that_are_missing_eight_are_given(count, more):
    missing = (row(f"x{index}", why=MISSING, changed=False) for index in range(count))
    names = ", ".join(f"x{index}" for index in range(8))
    text = "not in the checkpoint, so the config's are used"
    assert f"{text}: {names}{more}" == lines(*missing)[2]


def test_the_line_of_an_entry_has_both_values_and_the_reason():
    found = lines(row("a", 1.0, None, 1.0), row("b", None, "x", "x"))[2:4]
    assert [
        "a: checkpoint none, config 1; why",
        "b: checkpoint x, config none; why",
    ] == found


def test_values_that_differ_in_later_digits_are_given_whole():
    expected = "max_lr: checkpoint 0.30000000000000004, config 0.3; why"
    assert expected == lines(row(config=0.3, checkpoint=0.1 + 0.2))[2]


@pytest.mark.parametrize("length, text", [(40, "x" * 40), (41, "x" * 37 + "...")])
def test_a_long_value_is_cut(length, text):
    assert f"max_lr: checkpoint {text}, config y" in " ".join(
        line.strip() for line in lines(row(config="y", checkpoint="x" * length))
    )


@pytest.mark.parametrize("length, name", [(60, "n" * 60), (61, "n" * 57 + "...")])
@pytest.mark.parametrize(
    "build",
    [
        lambda name: report(row(name)),
        lambda name: report(row(name, why=MISSING, changed=False)),
        lambda name: report(values=[NextValue(name, 1.0, 2.0, 1.0)]),
    ],
    ids=["row", "missing", "value"],
)
def test_a_long_name_is_cut(build, length, name):
    assert name in str(build("n" * length)).replace(",", " ").replace(":", " ").split()


@pytest.mark.parametrize("length, text", [(198, "x" * 198), (199, "x" * 195 + "...")])
def test_late_changes_are_cut_later_and_have_no_config(length, text):
    found = lines(row("history", None, "x" * length, "x", "kept"))[2:-1]
    assert f"history:{text};kept" == "".join(found).replace(" ", "")


def test_a_long_line_is_folded_and_cut_after_three():
    found = lines(warnings=(" ".join(["word"] * 100),))[2:]
    assert [True, False, False] == [line.startswith("word") for line in found]
    assert [True, True] == [line.startswith("  word") for line in found[1:]]
    assert found[2].endswith(" ...")
    assert all(90 < len(line) <= 99 for line in found)


def test_a_hyphen_is_no_place_to_fold():
    text = f"{'word ' * 18}a-long-word"
    assert ["  a-long-word"] == lines(warnings=(text,))[3:]


def test_a_warning_that_does_not_fit_whole_is_counted():
    long, brief = " ".join(["word"] * 30), "brief"
    found = lines(warnings=(*[long] * 4, brief))[2:]
    assert [*[found[0], found[1]] * 4, "and 1 more warnings"] == found


@pytest.mark.parametrize(
    "values, purpose", [([STAYS], "to use the other values"), ([REFUSED], "to load the checkpoint")]
)
def test_the_advice_is_the_last_line(values, purpose):
    found = report(row(), values=values, alternative={"größe": "config", "*": "strict"})
    text = f'{purpose}: policy={{"größe": "config", "*": "strict"}}'
    assert text == str(found).splitlines()[-1]


def test_a_refusal_is_one_of_all_values():
    values = [STAYS, NextValue("momentum", 0.5, 0.9, None)]
    text = str(report(row(), values=values, alternative="config"))
    assert 'to use the other values: policy="config"' in text


def test_without_values_nothing_was_refused():
    text = str(report(row(), values=[], alternative="config"))
    assert 'to use the other values: policy="config"' in text


@pytest.mark.parametrize("count, is_cut", [(3, False), (4, True)])
def test_the_advice_may_have_four_lines(count, is_cut):
    policy = {f"{'n' * 70}{index}": "config" for index in range(count)}
    found = lines(row(), alternative=policy)[4:]
    assert (4, is_cut) == (len(found), found[-1].endswith(" ..."))
