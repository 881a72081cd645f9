"""Views: the spans of curves, with the values that train at their ends."""

from __future__ import annotations

import pytest

from dist_sched import Schedule, schedules
from dist_sched._config import files, views
from dist_sched._config.history import Change
from dist_sched._config.specification import Specification
from dist_sched._config.views import Span
from helpers import CONFIG

ENTRIES = {
    **CONFIG,
    "lr_warmup_steps": 100,
    "lr_decay_steps": 400,
    "lr_decay_style": "cosine",
    "start_wd": 0.1,
    "wd_incr_steps": 0,
    "wd_incr_style": "constant",
}


def lr(**changes):
    return views.tracks(files.read({**ENTRIES, **changes}).config)[0]


def test_a_fall_past_the_horizon_is_a_last_span_without_length():
    track = lr(lr_decay_style="inverse-square-root")
    assert Span("inverse-square-root", 100, 400, 1.0, 0.5) == track.spans[1]
    assert Span("floor", 400, 400, 0.1, 0.1) == track.spans[2]
    assert (400, 0.5, 0.1) == (track.horizon, track.value(400), track.value(401))


@pytest.mark.parametrize("style", ["constant", "linear", "cosine"])
def test_without_a_fall_there_is_no_such_span(style):
    assert ["warmup", style] == [span.name for span in lr(lr_decay_style=style).spans]


STYLES = {
    "cosine": {},
    "linear": {"lr_decay_style": "linear"},
    "constant": {"lr_decay_style": "constant"},
    "inverse": {"lr_decay_style": "inverse-square-root"},
    "tail": {"lr_decay_style": "WSD", "wsd_decay_steps": 50, "lr_wsd_decay_style": "linear"},
    "late": {"lr_decay_style": "WSD", "wsd_decay_steps": 350, "lr_wsd_decay_style": "linear"},
}


@pytest.mark.parametrize(
    "style, warmup", [*((style, 100) for style in STYLES), ("cosine", 0), ("cosine", 10.5)]
)
def test_past_the_horizon_a_field_keeps_the_last_value_of_its_last_span(style, warmup):
    track = lr(**STYLES[style], lr_warmup_steps=warmup)
    assert track.spans[-1].last == track.value(401) == track.value(10_000)


def test_a_tail_that_began_in_the_warmup_starts_at_the_value_after_the_warmup():
    track = lr(**STYLES["late"])
    assert ["warmup", "linear tail"] == [span.name for span in track.spans]
    warmup, tail = track.spans
    assert (1.0, 100) == (warmup.last, tail.begin)
    assert track.value(101) == tail.first == pytest.approx(0.1 + 0.9 * (1 - 51 / 350))


def test_a_tail_after_the_warmup_begins_at_the_peak():
    assert [Span("stable", 100, 350, 1.0, 1.0), Span("linear tail", 350, 400, 1.0, 0.1)] == [
        *lr(**STYLES["tail"]).spans[1:]
    ]


def test_the_value_at_a_join_between_whole_positions_is_the_joins_own():
    warmup, decay = lr(lr_warmup_steps=10.5).spans
    assert Span("warmup", 0, 10.5, 0.0, 1.0) == warmup
    assert (10.5, 1.0) == (decay.begin, decay.first)


def test_a_rise_of_weight_decay_ends_at_its_end():
    config = files.read(
        {**ENTRIES, "start_wd": 0.0, "wd_incr_steps": 10.5, "wd_incr_style": "linear"}
    ).config
    assert Span("linear", 0, 10.5, 0.0, 0.1) == views.tracks(config)[1].spans[0]


def test_the_spans_of_a_schedule_are_its_phases():
    (track,) = views.tracks(Specification.of({"lr": schedules.wsd(1.0, 100, warmup=10, decay=20)}))
    found = [(span.name, span.begin, span.end, span.first, span.last) for span in track.spans]
    rise, stable = ("linear", 0, 10, 0.0, 1.0), ("constant", 10, 80, 1.0, 1.0)
    assert [rise, stable, ("minus_sqrt", 80, 100, 1.0, 0.0)] == found


def test_a_position_at_a_join_is_of_the_phase_that_begins_there():
    (track,) = views.tracks(Specification.of({"lr": schedules.wsd(1.0, 100, warmup=10, decay=20)}))
    assert ["linear", "constant", "minus_sqrt", None] == [track.phase(n) for n in (0, 10, 80, 100)]


def test_as_many_positions_as_may_be_drawn_are_spread_evenly():
    assert [0, 1, 2, 3, 4, 5, 7] == views.sampled(7, [], most=7)
    assert [0, 1, 2, 4, 8] == views.sampled(8, [0.5], most=6)


@pytest.mark.parametrize(
    "position, text",
    [(999, "999"), (1000, "1k"), (10**6, "1M"), (10**15, "1000T"), (10**16, "1e+16")],
)
def test_a_position_is_short_on_an_axis(position, text):
    assert text == views.short(position)


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (1, "1"), (0.01, "0.01"), (1e5, "1e5"), (-0.5, "-0.5"), (0.00999, "9.99e-3")],
)
def test_a_value_is_short_on_an_axis(value, text):
    assert text == views.brief(value)


def test_a_group_with_a_multiplier_has_its_part_of_the_value():
    config = Specification.of({"lr": schedules.linear(1.0, 100)}, groups={"head": {"lr": 4.0}})
    base, head = views.tracks(config, groups=True)
    assert (0.5, 2.0) == (base.value(50), head.value(50))


def test_a_constant_weight_decay_is_a_span_without_length():
    assert (Span("constant", 0, 0, 0.1, 0.1),) == views.tracks(files.read(ENTRIES).config)[1].spans


FALL = schedules.linear(1.0, 100)
WSD = schedules.wsd(1.0, 100, warmup=10, decay=20)
CUT = Schedule([FALL.phases[0].replace(until=60)])


def line(change, fields, groups=None):
    before = Specification.of(fields, groups)
    return views.late_change(change, before, before.apply(change))


@pytest.mark.parametrize(
    "schedule, position, arguments, text",
    [
        (
            schedules.constant(1.0, 60),
            100,
            {"horizon": 100},
            "phase 0 (constant) lengthened from 60 to 100 units; horizon 60 → 100",
        ),
        (CUT, 50, {"horizon": 100}, "phase 1 (constant) of 40 units added; horizon 60 → 100"),
        (CUT, 100, {"horizon": 100}, "phase 1 (constant) of 40 units added; horizon 60 → 100"),
        (
            FALL,
            50,
            {"horizon": 200},
            "phase 0 (linear) lengthened from 100 to 200 units; horizon 1",
        ),
        (
            FALL,
            50,
            {"horizon": 200, "keep": "value"},
            "phase 0 (linear): its rest stretched from 50 to 150 units; horizon 100 → 200",
        ),
        (
            FALL,
            100,
            {"horizon": 200, "keep": "value"},
            "phase 1 (constant) of 100 units added; horizon 100 → 200",
        ),
        (
            WSD,
            80,
            {"horizon": 200, "lengthen": "stable"},
            "phase 1 (constant) lengthened from 70 to 170 units; horizon 100 → 200",
        ),
        (
            WSD,
            90,
            {"horizon": 200, "keep": "value"},
            "phase 2 (minus_sqrt): its rest stretched from 10 to 110 units; horizon 100 → 200",
        ),
    ],
    ids=str,
)
def test_the_line_about_an_extension_names_the_phase(schedule, position, arguments, text):
    change = Change(position, "extend", {"field": "lr", **arguments})
    assert line(change, {"lr": schedule}).startswith(f"extend at {position}: lr {text}")


@pytest.mark.parametrize(
    "operation, arguments, text",
    [
        ("scale", {"factor": 0.5}, "lr changes from 0.5 to 0.25, and later values in proportion"),
        (
            "cooldown",
            {"steps": 10.5, "shape": "cosine", "end": 0.25},
            "lr goes from 0.5 to 0.25 over 10.5 units (cosine); horizon 100 → 60.5",
        ),
        (
            "rewarm",
            {"steps": 10.5, "peak": 0.75},
            "lr goes from 0.5 to 0.75 over 10.5 units (linear); horizon 100 → 60.5",
        ),
    ],
)
def test_the_line_about_another_late_change_has_its_values(operation, arguments, text):
    change = Change(50, operation, {"field": "lr", **arguments})
    assert f"{operation} at 50: {text}" == line(change, {"lr": FALL, "momentum": 0.9})


def test_the_line_about_a_late_change_without_effect_says_so():
    change = Change(0, "scale", {"field": "lr", "factor": 1.0})
    assert "scale at 0: changes nothing" == line(change, {"lr": FALL})


@pytest.mark.parametrize("count, more", [(11, []), (12, ["and 1 more"])])
def test_the_line_about_a_late_change_has_twelve_curves_and_counts_the_others(count, more):
    groups = {"half": {"lr": 0.5}} | {f"{index}": {"lr": FALL} for index in range(count)}
    found = line(Change(50, "scale", {"field": "lr", "factor": 0.5}), {"lr": FALL}, groups)
    labels = ["lr", *(f"groups[{index}].lr" for index in range(11))]
    texts = [f"{label} changes from 0.5 to 0.25, and later values in prop" for label in labels]
    assert [*texts, *more] == [
        text.removesuffix("ortion") for text in found.removeprefix("scale at 50: ").split("; ")
    ]
