"""Plotting: what is in the figures, and in the files that they are written to."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib.image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    Schedule,
    layers,
    pages,
    placement,
    plotting,
)
from dist_sched import schedules as named
from dist_sched._config.views import brief, sampled, short
from dist_sched.layers import of, shortened
from dist_sched.placement import Box, Label, place
from dist_sched.plotting import plot

WSD = named.wsd(3e-4, 100_000, warmup=2000, decay=20_000)
SEEDS = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 100,
    "lr_decay_steps": 5000,
    "lr_decay_style": "inverse-square-root",
    "start_wd": 0.1,
    "end_wd": 0.1,
    "wd_incr_steps": 0,
    "wd_incr_style": "constant",
}


def optimizer():
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "name": name} for name in ("embed", "body")
    ]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.1)


def param_scheduler():
    fields = {"lr": WSD, "weight_decay": named.proportional_to(at_max=0.1), "momentum": 0.9}
    return ParamScheduler(optimizer(), fields, groups={"embed": {"lr": 0.1}}, unit="tokens")


def curves(axes):
    return [line for line in axes.lines if line.get_label().startswith(" ")]


def dots(axes):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_label() == "_position"
    ]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def drawn(line):
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def write(path, given):
    content, notes = pages.rendered(path, given)
    path.write_bytes(content)
    return notes


def labels(axes):
    """Give the values in boxes, with the colours of the boxes."""
    found = [text for text in axes.texts if text.get_bbox_patch() and " at " in text.get_text()]
    return {text.get_text(): text.get_bbox_patch().get_edgecolor() for text in found}


def boxes(figure):
    renderer = figure.canvas.get_renderer()
    every = [text for axes in figure.axes for text in axes.texts] + figure.texts
    return [text.get_window_extent(renderer) for text in every if text.get_text()]


def test_each_field_has_a_panel_with_its_name_and_the_last_has_the_unit():
    axes = plot(param_scheduler()).axes
    assert ["lr", "weight_decay", "momentum"] == [one.get_ylabel() for one in axes]
    assert "position (tokens); horizon 100k" == axes[-1].get_xlabel()


def test_the_panels_share_the_axis_of_positions_which_ends_past_the_horizon():
    limits = {axes.get_xlim() for axes in plot(param_scheduler()).axes}
    assert {(0, 105_000)} == limits


def test_a_curve_has_the_very_values_that_train_at_its_joins_and_beside_them():
    scheduler = param_scheduler()
    (line,) = curves(plot(scheduler).axes[0])
    values = drawn(line)
    for position in (0, 1, 1999, 2000, 2001, 79_999, 80_000, 80_001, 99_999, 100_000, 100_001):
        scheduler.seek(position)
        assert scheduler.optimizer.param_groups[1]["lr"] == values[position]


def test_the_seeds_curve_is_drawn_as_they_step_it_with_its_cliff_upright():
    (line,) = curves(plot(SEEDS).axes[0])
    xs, ys = list(line.get_xdata()), list(line.get_ydata())
    after = xs.index(5001)
    assert [5000, 5001, 5001] == xs[after - 1 : after + 2]
    assert [ys[after - 1], 0.1] == ys[after : after + 2]


def test_the_position_of_a_scheduler_is_marked_with_its_value():
    scheduler = OptimizerParamScheduler(optimizer(), **SEEDS)
    scheduler.seek(50)
    axes = plot(scheduler).axes[0]
    assert [(50, 0.5)] == dots(axes)
    assert "0.5 at 50" in texts(axes)


def test_positions_that_are_asked_for_are_marked_in_every_curve():
    axes = plot([WSD, named.linear(1e-4, 50_000)], at=[1000, 60_000]).axes[0]
    assert [(1000, 9.8e-5), (1000, 1.5e-4), (60_000, 0), (60_000, 3e-4)] == sorted(dots(axes))


def test_late_changes_of_a_scheduler_are_in_its_picture():
    scheduler = param_scheduler()
    scheduler.seek(50_000)
    scheduler.cooldown(1000)
    (line,) = curves(plot(scheduler).axes[0])
    assert 0 == drawn(line)[51_000]


def test_phases_are_named_and_shaded():
    axes = plot(WSD).axes[0]
    assert ["constant", "minus_sqrt", "◂ linear"] == texts(axes)
    shaded = [(patch.get_x(), patch.get_width()) for patch in axes.patches]
    assert [(0, 2000), (80_000, 20_000)] == shaded[:2]


def test_groups_are_drawn_where_they_are_asked_for():
    without, with_groups = (plot(param_scheduler(), groups=asked) for asked in (False, True))
    assert [1, 1, 1] == [len(curves(axes)) for axes in without.axes]
    assert [2, 1, 1] == [len(curves(axes)) for axes in with_groups.axes]
    names = ["all other groups", "groups[embed]", "scheduler at 0"]
    assert names == [text.get_text() for text in with_groups.texts]


def test_several_are_laid_over_each_other_in_looks_of_their_own():
    figure = plot({"a": SEEDS, "b": {**SEEDS, "max_lr": 2.0}, "c": named.linear(1.0, 100)})
    lines = curves(figure.axes[0])
    assert 3 == len({(line.get_color(), line._unscaled_dash_pattern[1]) for line in lines})
    assert ["a", "b", "c"] == [text.get_text() for text in figure.texts]


def test_names_can_be_given_for_several():
    figure = plot([WSD, WSD], names=["one", "two"])
    assert ["one", "two"] == [text.get_text() for text in figure.texts]


def test_what_looks_like_a_formula_is_a_name():
    figure = plot([WSD, WSD], names=["$x^2$", "_hidden"])
    figure.canvas.draw()
    assert ["$x^2$", "_hidden"] == [text.get_text() for text in figure.texts]


def test_a_path_is_drawn(tmp_path):
    (tmp_path / "a.json").write_text('{"fields": {"lr": 0.5}, "unit": "samples"}')
    (axes,) = plot(tmp_path / "a.json").axes
    assert ("lr", "position (samples)") == (axes.get_ylabel(), axes.get_xlabel())
    assert {0.5} == set(curves(axes)[0].get_ydata())


def test_a_logarithmic_axis_leaves_zeros_off():
    axes = plot(WSD, log=True).axes[0]
    assert ("log", "value\n(log, 0 off axis)") == (axes.get_yscale(), axes.get_ylabel())
    assert 3e-9 <= 3 * axes.get_ylim()[0]


def test_what_is_0_throughout_has_no_logarithmic_axis():
    (axes,) = plot({"fields": {"weight_decay": 0.0}}, log=True).axes
    assert "linear" == axes.get_yscale()


@pytest.mark.parametrize("horizon", [1, 2, 10, 1_500_000_000, 2**53])
def test_every_horizon_is_inside_the_picture(horizon):
    figure = plot(named.linear(1.0, horizon))
    (line,) = curves(figure.axes[0])
    assert 0 == drawn(line)[horizon]
    assert horizon < figure.axes[0].get_xlim()[1]
    figure.canvas.draw()


CROWDED = {
    "cycles": lambda: plot(named.wsd_s(1, 120, decay=2, decay_ends=range(10, 120, 10)), at=33),
    "cosine": lambda: plot(SEEDS, at=[0, 4999, 5000, 5001]),
    "forks": lambda: plot([WSD.cooldown(at, 5000) for at in (10_000, 40_000, 80_000)], at=15_000),
    "groups": lambda: plot(param_scheduler(), groups=True, at=[1, 2000, 50_000], log=True),
    "many": lambda: plot([named.cosine(i + 1, 100, warmup=3) for i in range(12)], at=[50, 52]),
}


@pytest.mark.parametrize("name", CROWDED)
def test_no_text_covers_another_or_leaves_the_page(name):
    figure = CROWDED[name]()
    found = boxes(figure)
    pairs = ((a, b) for i, a in enumerate(found) for b in found[:i])
    assert [] == [(a, b) for a, b in pairs if a.overlaps(b)]
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in found)


def test_phases_that_are_too_many_to_see_are_counted():
    figure = plot(named.cyclic(1.0, 20_000, up=2, down=2))
    assert "10,000 phases: linear, linear, " == texts(figure.axes[0])[0][:31]


def test_a_picture_changes_no_global_state_of_matplotlib():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plot(WSD)
    assert before == dict(mpl.rcParams)


REFUSED = {
    "what=3 is illegal|what": (3, {}),
    "at least one": ([], {}),
    "at": (WSD, {"at": -1}),
    "2\\*\\*53": (WSD, {"at": 2**53 + 1}),
    "list of 1": (WSD, {"names": ["a", "b"]}),
    "counts steps; .* counts tokens": ([SEEDS, {**SEEDS, "unit": "tokens"}], {}),
    "must end in one of": ("no.txt", {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused(message):
    what, keywords = REFUSED[message]
    with pytest.raises(ConfigError, match=message):
        plot(what, **keywords)


def test_a_png_is_a_picture_at_200_dots_an_inch(tmp_path):
    write(tmp_path / "a.png", of(WSD))
    assert (1400, 4) == matplotlib.image.imread(tmp_path / "a.png").shape[1:]


def test_an_svg_is_xml_that_refers_to_nothing_outside(tmp_path):
    write(tmp_path / "a.svg", of(WSD))
    text = (tmp_path / "a.svg").read_text()
    assert "{http://www.w3.org/2000/svg}svg" == ET.fromstring(text).tag  # noqa: S314 - our own
    assert [] == re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)|<!DOCTYPE|@import', text)


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tables, self.found = [], 0, []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the parser's
        assert tag not in {"script", "link", "img", "iframe"}
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in {"td", "title"}:
            self.found.append(data)


def test_an_html_page_has_a_title_the_picture_and_a_table_of_phases(tmp_path):
    write(tmp_path / "a.html", of({"<b>": WSD}))
    text = (tmp_path / "a.html").read_text()
    parser = Cells()
    parser.feed(text)
    row = ["value", "linear", "0", "2,000", "0", "3e-4"]
    assert ["<b>", *row] == [cell for cell in parser.found if cell.strip()][:7]
    assert "<svg" in text
    assert [] == re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)|@import', text)


def test_the_same_picture_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        write(tmp_path / name, of(WSD))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@settings(max_examples=100, deadline=None, database=None)
@given(st.integers(1, 2**53), st.lists(st.floats(0, 2**53), max_size=20), st.integers(3, 2000))
def test_positions_are_whole_in_order_few_and_at_every_join(end, joins, most):
    found = sampled(end, joins, most)
    assert (0, end) == (found[0], found[-1])
    assert all(before < after for before, after in pairwise(found))
    assert len(found) <= max(most, most // 3 + 5 * len(joins) + 2)
    wanted = {int(join) + more for join in joins for more in (-1, 0, 1)}
    assert {one for one in wanted if 0 <= one <= end} <= set(found)


def test_positions_and_values_are_written_short():
    assert ["0", "999", "1k", "12.5k", "1.5B"] == [*map(short, (0, 999, 1000, 12_500, 1.5e9))]
    assert ["0", "0.05", "1e-3", "2.5e-4"] == [*map(brief, (0, 0.05, 0.001, 0.00025))]


def test_a_schedule_of_phases_that_jump_holds_its_value_until_the_jump():
    steps = Schedule([Phase("constant", 5, 1.0, 1.0), Phase("constant", 5, 0.5, 0.5)])
    line = curves(plot(steps).axes[0])[0]
    at = [y for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if x == 5]
    assert [1.0, 0.5] == at


def checkpoints(*positions, **keywords):
    found = of({f"step_{at}": {**SEEDS, "max_lr": 1 + at / 1000} for at in positions}, **keywords)
    return [replace(layer, position=at) for layer, at in zip(found, positions, strict=True)]


def markers(axes):
    found = [line for line in axes.lines if line.get_label() == "_position"]
    return {(int(line.get_xdata()[0]), line.get_marker(), line.get_color()) for line in found}


def test_a_checkpoints_own_mark_is_a_diamond_on_its_curve_and_named():
    figure = plotting.drawn(checkpoints(1000, 3000, at=2000))
    blue, orange = plotting._COLOURS[:2]
    own = {(1000, "D", blue), (3000, "D", orange)}
    others = {(1000, "o", orange), (3000, "o", blue), (2000, "o", blue), (2000, "o", orange)}
    assert own | others == markers(figure.axes[0])
    told = [text.get_text() for text in figure.texts][2:]
    assert ["checkpoint step_1000 at 1,000", "checkpoint step_3000 at 3,000"] == told
    lines = [line for line in figure.axes[0].lines if len({*line.get_xdata()}) == 1]
    styles = {
        line.get_xdata()[0]: line._unscaled_dash_pattern
        for line in lines
        if line.get_marker() == "None"
    }
    assert styles[1000] == styles[3000] != styles[2000]


def test_a_label_has_the_colour_of_its_dot():
    figure = plotting.drawn([replace(one, position=None) for one in checkpoints(1000, 3000, at=50)])
    for axes in figure.axes:
        colours = {line.get_color() for line in axes.lines if line.get_label() == "_position"}
        assert {to_rgba(one) for one in colours} == {*labels(axes).values()}


def test_a_value_without_room_is_below_the_panel():
    axes = CROWDED["many"]().axes[0]
    noted = " ".join(text for text in texts(axes) if text not in labels(axes))
    for position in (50, 52):
        for index in range(12):
            value = brief(named.cosine(index + 1, 100, warmup=3)(position))
            is_below = f"{value} (Schedule {index + 1})" in noted
            assert is_below or f"{value} at {position}" in labels(axes)
    assert "at 50: " in noted


def test_long_names_of_fields_stay_beside_their_panels():
    fields = [f"a_very_{'long_' * 20}name_{index}_of_a_field" for index in range(3)]
    figure = plot(
        {"fields": {**dict.fromkeys(fields, 0.5), "a.rather_long.name_that_is_folded": 1.0}}
    )
    renderer = figure.canvas.get_renderer()
    found = [axes.yaxis.label.get_window_extent(renderer) for axes in figure.axes]
    assert all(box.y0 > next_one.y1 for box, next_one in pairwise(found))
    assert 4 == len({axes.get_ylabel() for axes in figure.axes})
    assert "a.rather_long.\nname_that_is_folded" == figure.axes[3].get_ylabel()


LONG = "x" * 90
ALIKE = {
    "middle": [f"{LONG}{index}{LONG}" for index in range(12)],
    "end": [f"{LONG}{index}" for index in range(3)],
    "prefix": [LONG, LONG + "x", LONG + "xx"],
    "wide": ["実験" * 40 + "一" + "実験" * 40, "実験" * 40 + "二" + "実験" * 40],
}


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.parametrize("room", [12, 60])
def test_names_that_are_shortened_still_differ(kind, room):
    found = shortened(ALIKE[kind], room)
    assert len(ALIKE[kind]) == len({*found.values()})
    assert room >= max(map(len, found.values()))


def test_the_legend_stays_on_the_page_and_its_names_differ():
    for kind in ("middle", "wide"):
        figure = plot([WSD, WSD], names=ALIKE[kind][:2])
        assert 2 == len({text.get_text() for text in figure.texts})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert all(box.x1 <= figure.bbox.x1 for box in boxes(figure))


def test_many_curves_have_looks_that_all_differ():
    looks = [plotting._style(index, 80) for index in range(80)]
    assert 80 == len({(one["color"], one["dashes"]) for one in looks})


def test_phases_of_too_many_schedules_are_told_in_words():
    axes = plot([named.cosine(1.0, 100 + i, warmup=3) for i in range(9)]).axes[0]
    assert ["phases of all: linear, cosine"] == texts(axes)


def test_bars_that_are_too_narrow_are_told_with_their_owner_and_its_colour():
    cycles = named.cyclic(1.0, 20_000, up=2, down=2)
    axes = plot(
        {"fast": cycles, "short": named.wsd_s(1, 120, decay=2, decay_ends=range(10, 120, 10))}
    ).axes[0]
    told = [text[:20] for text in texts(axes) if "phases: " in text]
    assert ["short: 24 phases: co", "fast: 10,000 phases:"] == told
    solid = [patch.get_facecolor() for patch in axes.patches if patch.get_alpha() == 1]
    assert [to_rgba(colour) for colour in plotting._COLOURS[1::-1]] == solid


def test_the_dots_of_a_short_run_are_not_cut():
    axes = plot(named.linear(1.0, 1), at=[0, 1]).axes[0]
    dotted = [line for line in axes.lines if line.get_label() in {"_point", "_position"}]
    assert {0, 1, 2, 3} == {int(x) for line in dotted for x in line.get_xdata()}
    assert not any(line.get_clip_on() for line in dotted)


@pytest.mark.parametrize("ending", pages.ENDINGS)
def test_letters_that_no_font_has_are_told_of_once(tmp_path, ending):
    given = of({"\U0010fffd実験": WSD})
    notes = write(tmp_path / f"a{ending}", given)
    assert (ending == ".png") == (len(notes) == 1)
    assert ending == ".png" or "\U0010fffd実験" in (tmp_path / f"a{ending}").read_text()
    assert ending != ".png" or "no installed font has the letters" in notes[0]


def test_a_font_that_has_the_letters_is_used(monkeypatch):
    monkeypatch.setattr(plotting, "_having", lambda _: ("DejaVu Serif",))
    (text,) = plot([WSD], names=["実"]).texts
    assert "DejaVu Serif" == text.get_fontfamily()[-1]


PAGE = Box(0, 0, 6, 2)


def crowd(number):
    return [Label(f"{i}", (3.0 + 0.01 * i, 2 * i / number), 1.0, 0.16) for i in range(number)]


@pytest.mark.parametrize("number", [1, 5, 12, 40])
def test_texts_that_are_placed_cover_no_other_no_leader_and_no_point(number):
    placed, dropped = place(crowd(number), [[(0, 0), (6, 2)]], PAGE)
    assert {*crowd(number)} == {*dropped, *(one.label for one in placed)}
    assert all(PAGE.holds(one.box) for one in placed)
    for index, one in enumerate(placed):
        assert all(one.clears(other) for other in placed[:index])
    points = [label.point for label in crowd(number)]
    inside = [
        (x, y)
        for one in placed
        for x, y in points
        if one.box.left < x < one.box.right and one.box.bottom < y < one.box.top
    ]
    assert [] == inside


def test_a_text_goes_where_no_line_is():
    label = Label("a", (1.2, 1.0), 1.0, 0.16)
    ((one,), _) = place([label], [[(1.3, 0), (1.3, 2)], [(1.6, 0), (1.6, 2)]], PAGE)
    assert one.box.right < 1.3


def test_a_text_that_is_larger_than_the_page_is_dropped():
    assert ([], [Label("a", (1, 1), 7, 1)]) == place([Label("a", (1, 1), 7, 1)], [], PAGE)


def test_names_are_inside_their_bar_or_beside_it_or_cut():
    bounds = [(0, 1), (1, 9), (9, 20), (20, 24.5), (24.5, 25)]
    names = ["warm", "constant", "tail", "cosines", "x"]
    found = placement.along(names, bounds, 25, len)
    texts = [found[index].text for index in sorted(found)]
    assert ["constant", "tail", "cos…"] == texts


def test_the_axis_of_values_has_round_ticks():
    scale = layers.Scale(-0.05, 1.05)
    assert [0, 0.25, 0.5, 0.75, 1] == scale.ticks()
    assert [0.5] == scale.parts([0.5])
    assert "(log)" == layers.scale_of([([0, 1], [1.0, 10.0])], log=True).note
