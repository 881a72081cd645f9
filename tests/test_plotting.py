"""Plotting: what is in the figures."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import matplotlib as mpl
import matplotlib.image
import pytest
import torch
from matplotlib.text import Text

from dist_sched import ConfigError, ParamScheduler, Phase, Schedule, plotting, register_shape
from dist_sched import schedules as named
from dist_sched._config.specification import Specification
from dist_sched._config.views import tracks
from dist_sched._drawing import Drawing, Layer, columns, listed, numbered, shortened
from dist_sched.plotting import plot

WSD = named.wsd(3e-4, 100_000, warmup=2000, decay=20_000)
MEGATRON = {
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
STEPS = Schedule([Phase("constant", 5, 1.0, 1.0), Phase("constant", 5, 0.5, 0.5)])
LONG = "x" * 90


@pytest.fixture
def scheduler():
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "name": name} for name in ("embed", "body")
    ]
    fields = {"lr": WSD, "weight_decay": named.proportional_to(at_max=0.1), "momentum": 0.9}
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, weight_decay=0.1)
    return ParamScheduler(optimizer, fields, groups={"embed": {"lr": 0.1}}, unit="tokens")


def drawing(schedules):
    layers = [Layer(name, tracks(Specification.of({"lr": one}))) for name, one in schedules.items()]
    return Drawing(tuple(layers))


def checkpoints(*positions):
    track = tracks(Specification.of({"lr": WSD}))
    return Drawing(tuple(Layer(f"step_{at}", track, "steps", at) for at in positions), (3000,))


def panels(figure):
    return [axes for axes in figure.axes if axes.get_ylabel()]


def curves(axes):
    return [line for line in axes.lines if line.get_label().startswith(" ")]


def points(line):
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def labelled(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def legend(figure):
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def notes(figure):
    return figure.get_supxlabel().split("\n")


def rows(figure):
    (table,) = (table for axes in figure.axes for table in axes.tables)
    cells = table.get_celld()
    last_row, last_column = max(cells)
    return [
        [cells[row, column].get_text().get_text() for column in range(last_column + 1)]
        for row in range(last_row + 1)
    ]


# Panels and curves.


def test_each_field_that_changes_has_a_panel_and_the_last_names_the_unit(scheduler):
    found = panels(plot(scheduler))
    assert ["lr", "weight_decay"] == [axes.get_ylabel() for axes in found]
    assert ["", "position (tokens); horizon 100k"] == [axes.get_xlabel() for axes in found]


def test_a_field_that_never_changes_is_a_line_of_text(scheduler):
    assert ["◆ scheduler at 0", "momentum: 0.9 throughout"] == notes(plot(scheduler))


def test_constants_that_differ_name_whose_they_are():
    configs = {name: {"fields": {"lr": lr}} for name, lr in {"a": 1.0, "b": 0.5, "c": 1.0}.items()}
    figure = plot(configs)
    assert ["lr: 1 (a, c), 0.5 (b) throughout"] == notes(figure)
    assert [] == panels(figure)


def test_the_panels_share_an_axis_that_ends_past_the_horizon(scheduler):
    assert {(-1050, 105_000)} == {axes.get_xlim() for axes in panels(plot(scheduler))}


def test_a_curve_has_the_very_values_that_train_at_its_joins_and_beside_them(scheduler):
    values = dict(points(curves(plot(scheduler).axes[0])[0]))
    for position in (0, 1, 1999, 2000, 2001, 79_999, 80_000, 80_001, 99_999, 100_000, 100_001):
        scheduler.seek(position)
        assert scheduler.optimizer.param_groups[1]["lr"] == values[position]


def test_a_curve_is_drawn_from_about_2000_positions():
    (line,) = curves(plot(WSD).axes[0])
    assert 1990 <= len(points(line)) <= 2020


def test_late_changes_of_a_scheduler_are_in_its_picture(scheduler):
    scheduler.seek(50_000)
    scheduler.cooldown(1000)
    assert 0 == dict(points(curves(plot(scheduler).axes[0])[0]))[51_000]


def test_a_path_is_drawn(tmp_path):
    (tmp_path / "a.json").write_text(
        '{"fields": {"lr": {"schedule": "linear", "peak": 0.5}}, "horizon": 9, "unit": "samples"}'
    )
    axes = plot(tmp_path / "a.json").axes[0]
    assert ("lr", "position (samples); horizon 9") == (axes.get_ylabel(), axes.get_xlabel())


def test_where_a_schedule_jumps_the_value_holds_until_the_jump():
    (line,) = curves(plot(STEPS).axes[0])
    assert [(4, 1.0), (5, 1.0), (5, 0.5), (6, 0.5)] == points(line)[4:8]


def test_the_drop_past_megatrons_horizon_is_upright():
    (line,) = curves(plot(MEGATRON).axes[0])
    before = plot(MEGATRON, at=5000).axes[0].lines[-1].get_ydata()[0]
    assert [(5000, before), (5001, before), (5001, 0.1)] == [
        point for point in points(line) if 5000 <= point[0] <= 5001
    ]


def test_a_jump_has_an_open_circle_before_it_and_a_full_one_after_it():
    axes = plot(STEPS).axes[0]
    (before,), (after,) = labelled(axes, "_before"), labelled(axes, "_after")
    assert ([(5, 1.0)], "white") == (points(before), before.get_markerfacecolor())
    assert ([(5, 0.5)], after.get_color()) == (points(after), after.get_markerfacecolor())


def test_a_steep_beginning_is_no_jump():
    assert [] == labelled(plot(WSD.cooldown(10_000, 5000)).axes[0], "_before")


def test_each_position_of_a_short_run_has_its_dot():
    axes = plot(named.linear(1.0, 3)).axes[0]
    (dots,) = (line for line in axes.lines if line.get_markersize() == 3)
    assert [0, 1, 2, 3, 4] == list(dots.get_xdata())


@pytest.mark.parametrize("horizon", [1, 2, 1_500_000_000, 2**53])
def test_every_horizon_is_inside_the_picture(horizon):
    figure = plot(named.linear(1.0, horizon))
    assert 0 == dict(points(curves(figure.axes[0])[0]))[horizon]
    assert horizon < figure.axes[0].get_xlim()[1]


# Phases.


def test_phases_are_named_and_shaded():
    axes = plot(WSD).axes[0]
    assert [" ◂ linear", "constant", "minus_sqrt"] == [text.get_text() for text in axes.texts]
    shaded = [(bar.get_x(), bar.get_width()) for bar in axes.patches if bar.get_height() == 1]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches if bar.get_height() < 1]
    assert [(0, 2000), (80_000, 20_000)] == shaded
    assert [(0, 2000), (2000, 78_000), (80_000, 20_000)] == bars


def test_different_phases_have_a_row_each_in_the_colour_of_their_curve():
    figure = plot({"a": WSD, "b": named.linear(1e-4, 50_000), "c": WSD})
    bars = figure.axes[0].patches
    heights = [round(bar.get_y(), 2) for bar in bars]
    assert [1.12, 1.12, 1.12, 1.02] == heights
    colours = [mpl.colors.to_hex(bar.get_facecolor()).upper() for bar in bars]
    assert [*plotting._COLOURS[:1] * 3, plotting._COLOURS[1]] == colours


def test_a_constant_beside_others_lasts_throughout():
    axes = plot([WSD, named.constant(1e-4)]).axes[0]
    assert "constant" == axes.texts[-1].get_text()
    assert (0, 105_000) == (axes.patches[-1].get_x(), axes.patches[-1].get_width())


def test_a_phase_that_is_too_narrow_for_its_name_is_written_below():
    told = "value: constant 0-8, minus_sqrt 8-10, constant 10-18, minus_sqrt 18-20"
    cycles = named.wsd_s(1, 120, decay=2, decay_ends=range(10, 120, 10))
    assert [told] == [note[: len(told)] for note in notes(plot(cycles))]


def test_a_name_stands_in_a_neighbour_only_beside_that_ones_own_name():
    lengths = {"linear": (2, 1.0, 0.0), "constant": (20, 1.0), "minus_sqrt": (78, 0.0)}
    figure = plot(Schedule([Phase(shape, *rest) for shape, rest in lengths.items()]))
    assert ["constant", "minus_sqrt"] == [text.get_text() for text in figure.axes[0].texts]
    assert ["value: linear 0-2, constant 2-22, minus_sqrt 22-100"] == notes(figure)


def test_phases_that_are_too_many_to_draw_are_counted():
    figure = plot(named.cyclic(1.0, 20_000, up=2, down=2))
    assert [" and 9,992 more"] == [note[-15:] for note in notes(figure)]
    assert [] == list(figure.axes[0].patches)


def test_phases_of_too_many_schedules_are_written_below():
    figure = plot({f"run {i}": named.cosine(1.0, 100 + i, warmup=3) for i in range(8)})
    assert "value, run 0: linear 0-3, cosine 3-100" == notes(figure)[0]
    assert 8 == len(notes(figure))


# Several schedules.


def test_several_are_laid_over_each_other_in_looks_of_their_own():
    figure = plot([named.cosine(1.0, 100 + i) for i in range(20)])
    looks = {(line.get_color(), line._unscaled_dash_pattern[1]) for line in curves(figure.axes[0])}
    assert 20 == len(looks)
    assert [f"Schedule {i}" for i in range(1, 21)] == legend(figure)


def test_an_extra_has_a_panel_of_its_own_and_is_of_no_group(scheduler):
    beside = ParamScheduler(
        scheduler.optimizer,
        {"lr": WSD},
        groups={"embed": {"lr": 0.1}},
        extras={"batch_size": STEPS},
    )
    figure = plot(beside, groups=True)
    assert ["lr", "batch_size"] == [axes.get_ylabel() for axes in panels(figure)]
    assert ["all other groups", "groups[embed]", "extra"] == legend(figure)


def test_a_mapping_of_extras_alone_is_a_config():
    figure = plot({"extras": {"batch_size": STEPS.to_dict()}}, at=6)
    (panel,) = panels(figure)
    assert "batch_size" == panel.get_ylabel()


def test_groups_are_drawn_only_where_they_are_wanted(scheduler):
    without, with_groups = (plot(scheduler, groups=wanted) for wanted in (False, True))
    assert [1, 1] == [len(curves(axes)) for axes in panels(without)]
    assert [2, 1] == [len(curves(axes)) for axes in panels(with_groups)]
    assert ["all other groups", "groups[embed]"] == legend(with_groups)


def test_a_schedule_beside_a_config_is_its_lr():
    figure = plot({"a": MEGATRON, "b": named.linear(1.0, 100)})
    assert (["lr"], 2) == (
        [axes.get_ylabel() for axes in panels(figure)],
        len(curves(figure.axes[0])),
    )


def test_names_can_be_chosen_and_equal_ones_are_numbered():
    assert ["a (1)", "b", "a (2)"] == legend(plot([WSD, WSD, WSD], names=["a", "b", "a"]))


def test_paths_and_configs_in_a_list_have_names(tmp_path):
    (tmp_path / "a.json").write_text(
        '{"fields": {"lr": {"schedule": "linear", "peak": 1}}, "horizon": 9}'
    )
    figure = plot([tmp_path / "a.json", MEGATRON, WSD])
    assert ["a.json", "config 2", "Schedule 3"] == legend(figure)


# Positions.


def test_a_table_below_has_the_values_at_positions(scheduler):
    scheduler.seek(50_000)
    found = rows(plot(scheduler, groups=True, at=[1000, 90_000]))
    assert ["position", "1,000", "50,000", "90,000"] == found[0]
    assert ["lr  all other groups", "1.5e-4", "3e-4", "8.787e-5"] == found[1]
    assert ["lr  groups[embed]", "1.5e-5", "3e-5", "8.787e-6"] == found[2]
    assert ["weight_decay  all other groups", "0.05", "0.1", "0.02929"] == found[3]


def test_further_positions_come_in_further_rows():
    found = rows(plot(WSD, at=range(0, 7000, 1000)))
    assert ["position", "0", "1,000", "2,000", "3,000", "4,000"] == found[0]
    assert ["position", "5,000", "6,000", "", "", ""] == found[2]
    assert ["value", "3e-4", "3e-4", "", "", ""] == found[3]


def test_rows_that_are_too_many_are_counted():
    found = rows(plot(WSD, at=range(0, 50_000, 100)))
    assert 80 == len(found)
    assert "… and 121 rows more" == found[-1][0]


def test_a_position_is_a_dotted_line_with_a_dot_on_every_curve():
    axes = plot([WSD, named.linear(1e-4, 50_000)], at=1000).axes[0]
    assert [(1000, 1.5e-4), (1000, 9.8e-5)] == [
        point for dot in labelled(axes, "_mark") for point in points(dot)
    ]
    assert {"o"} == {dot.get_marker() for dot in labelled(axes, "_mark")}
    assert [":"] == [line.get_linestyle() for line in axes.lines if [*line.get_ydata()] == [0, 1]]


def test_a_checkpoints_own_position_is_a_dashed_line_with_a_diamond_on_its_curve():
    figure = plotting.draw(checkpoints(1000, 5000))
    axes = figure.axes[0]
    blue, orange = plotting._COLOURS[:2]
    marks = {
        (dot.get_xdata()[0], dot.get_marker(), dot.get_color()) for dot in labelled(axes, "_mark")
    }
    own = {(1000, "D", blue), (5000, "D", orange)}
    others = {(1000, "o", orange), (5000, "o", blue), (3000, "o", blue), (3000, "o", orange)}
    assert own | others == marks
    lines = {line.get_xdata()[0]: line for line in axes.lines if [*line.get_ydata()] == [0, 1]}
    assert {1000: "--", 3000: ":", 5000: "--"} == {
        x: one.get_linestyle() for x, one in lines.items()
    }
    told = ["◆ checkpoint step_1000 at 1,000", "◆ checkpoint step_5000 at 5,000"]
    assert told == notes(figure)


# Axes.


def test_a_logarithmic_axis_says_that_0_lies_off_it():
    axes = plot(WSD, log=True).axes[0]
    assert ("log", "value\n(log, 0 off axis)") == (axes.get_yscale(), axes.get_ylabel())
    assert (5e-9, 4.5e-4) == pytest.approx(axes.get_ylim(), rel=1e-3)


def test_a_logarithmic_axis_says_only_what_lies_off_it():
    assert "value\n(log)" == plot(named.linear(1.0, 9, floor=0.1), log=True).axes[0].get_ylabel()
    low = plot(named.linear(1.0, 9, floor=1e-9), log=True).axes[0].get_ylabel()
    assert "value\n(log, less than 6.667e-6 off axis)" == low


def test_a_linear_axis_begins_at_0_unless_that_is_far_off():
    whole, part = (plot(named.linear(1.0, 9, floor=floor)).axes[0] for floor in (0.1, 0.8))
    assert (-0.05, 1.05) == pytest.approx(whole.get_ylim())
    assert (0.79, 1.01) == pytest.approx(part.get_ylim())


def test_values_and_positions_are_written_short():
    figure = plot(WSD)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [
        [text.get_text() for text in texts]
        for texts in (axes.get_yticklabels(), axes.get_xticklabels())
    ]
    assert {"0", "1e-4", "2e-4", "3e-4"} <= {*labels[0]}
    assert {"0", "20k", "100k"} <= {*labels[1]}


# Names.


def test_what_looks_like_a_formula_or_is_hidden_by_matplotlib_is_a_name():
    figure = plot([WSD, WSD], names=["$x^2$", "_hidden"], at=5)
    figure.draw_without_rendering()
    assert ["$x^2$", "_hidden"] == legend(figure)


def test_letters_that_no_font_has_are_numbers_and_no_warning():
    @register_shape("\U00013000")
    def _shape(progress):
        return 1 - progress

    schedule = Schedule([Phase("\U00013000", 10, 1.0, 0.5)])
    figure = plot({"a\U00013001\n": schedule, "b": WSD})
    figure.savefig(io.BytesIO(), format="png")
    assert ["a\\U00013001\\n", "b"] == legend(figure)
    assert ["value, a\\U00013001\\n: \\U00013000 0-10"] == notes(figure)


def test_a_font_that_is_installed_is_asked_for_letters_that_the_usual_one_lacks(monkeypatch):
    monkeypatch.setattr(plotting, "_FONTS", ("DejaVu Serif", "No Such Font"))
    (text, *_) = plot([WSD, WSD]).legends[0].get_texts()
    assert [*mpl.rcParams["font.family"], "DejaVu Serif"] == text.get_fontfamily()


def test_a_long_name_of_a_field_is_folded_beside_its_panel():
    fields = {f"a_{'long_' * 20}name_{index}": named.linear(1.0, 9) for index in range(3)}
    figure = plot({"fields": fields})
    figure.draw_without_rendering()
    boxes = [axes.yaxis.label.get_window_extent() for axes in figure.axes]
    assert all(above.y0 > below.y1 for above, below in pairwise(boxes))
    assert 3 == len({axes.get_ylabel() for axes in figure.axes})


ALIKE = {
    "middle": [f"{LONG}{index}{LONG}" for index in range(12)],
    "end": [f"{LONG}{index}" for index in range(3)],
    "beginning": [f"{index}{LONG}" for index in range(3)],
    "length": [LONG, LONG + "x", LONG + "xx"],
    "wide": ["実験" * 40 + "一" + "実験" * 40, "実験" * 40 + "二" + "実験" * 40],
}


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.parametrize("room", [12, 60])
def test_names_that_are_shortened_still_differ(kind, room):
    found = shortened(ALIKE[kind], room)
    assert len(ALIKE[kind]) == len({*found})
    assert room >= max(map(columns, found))


def test_names_that_fit_are_not_shortened():
    assert ["run", "実験"] == shortened(["run", "実験"], 4)


def test_a_number_makes_no_name_that_was_there():
    assert 3 == len({*numbered(["a", "a", "a (1)"])})


def test_a_long_list_of_names_is_cut():
    assert "0, 1, 2, 3, 4, 5, 6, 7 and 3 more" == listed([str(index) for index in range(11)])


# The whole figure.

CROWDED = {
    "one": lambda _: plot(WSD, at=[0, 90_000]),
    "cycles": lambda _: plot(named.wsd_s(1, 120, decay=2, decay_ends=range(10, 120, 10)), at=33),
    "megatron": lambda _: plot(MEGATRON, at=[0, 4999, 5000, 5001]),
    "forks": lambda _: plot([WSD.cooldown(at, 5000) for at in (10_000, 40_000, 80_000)], at=5),
    "groups": lambda scheduler: plot(scheduler, groups=True, at=[1, 2000, 50_000], log=True),
    "many": lambda _: plot([named.cosine(i + 1, 100 + i, warmup=3) for i in range(20)], at=[5, 52]),
    "far": lambda _: plot(named.linear(1.0, 2**53), at=[2**53, 0, 10**14, 10**15]),
    "long": lambda _: plot([WSD, named.linear(1e-4, 9)], names=ALIKE["middle"][:2], at=9),
    "constant": lambda _: plot({"fields": {"lr": 0.5, "momentum": 0.9}}, at=5),
}


@pytest.mark.parametrize("name", CROWDED)
def test_no_text_covers_another_or_leaves_the_page(name, scheduler):
    figure = CROWDED[name](scheduler)
    figure.draw_without_rendering()
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    ticks = {
        tick
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_ticklabels(which="both")
    }
    hidden = {text for axes in figure.axes[:-1] for text in axes.get_xticklabels()}
    boxes = {
        text.get_text(): text.get_window_extent() for text in found if text not in ticks | hidden
    }
    assert [] == [(a, b) for (a, x), (b, y) in combinations(boxes.items(), 2) if x.overlaps(y)]
    page = figure.bbox.padded(1)
    assert [] == [
        text
        for text, box in boxes.items()
        if not page.contains(*box.min) or not page.contains(*box.max)
    ]


@pytest.mark.parametrize("name", CROWDED)
def test_no_text_is_inside_a_panel(name, scheduler):
    figure = CROWDED[name](scheduler)
    figure.draw_without_rendering()
    inside = [
        text.get_text()
        for axes in panels(figure)
        for text in figure.findobj(Text)
        if text.get_text()
        and text.get_window_extent().overlaps(axes.get_window_extent().padded(-1))
    ]
    assert [] == inside


def test_a_picture_changes_no_global_state_of_matplotlib():
    before = dict(mpl.rcParams)
    plot(WSD)
    assert before == dict(mpl.rcParams)


REFUSED = {
    "what=3: must be a Schedule, a scheduler": (3, {}),
    "at least one": ([], {}),
    "at=-1": (WSD, {"at": -1}),
    "at='5'": (WSD, {"at": "5"}),
    "2\\*\\*53": (WSD, {"at": [5, 2**53 + 1]}),
    "list of 1": (WSD, {"names": ["a", "b"]}),
    "list of 2": ([WSD, WSD], {"names": "ab"}),
    "counts steps; .* counts tokens": ([MEGATRON, {**MEGATRON, "unit": "tokens"}], {}),
    "must end in one of": ("no.txt", {}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_drawn_is_refused(message):
    what, keywords = REFUSED[message]
    with pytest.raises(ConfigError, match=message):
        plot(what, **keywords)


# Files.


def test_a_png_is_a_picture_at_200_dots_an_inch():
    content, notes = plotting.render(drawing({"a": WSD}), ".png")
    assert (1400, 4) == matplotlib.image.imread(io.BytesIO(content)).shape[1:]
    assert [] == notes


def test_an_svg_is_xml_that_refers_to_nothing_outside():
    text = plotting.render(drawing({"a": WSD}), ".svg")[0].decode()
    assert "{http://www.w3.org/2000/svg}svg" == ET.fromstring(text).tag  # noqa: S314 - our own
    assert [] == re.findall(r'(?:href|src)="(?!#)[^"]*"|url\((?!#)|<!DOCTYPE|@import', text)


def test_the_same_picture_is_the_same_file():
    first, second = (plotting.render(drawing({"a": WSD}), ".svg") for _ in range(2))
    assert first == second


def test_letters_that_no_font_has_are_named_once_for_a_png_and_kept_in_an_svg():
    given = drawing({"\U00013000": WSD, "b": STEPS})
    _, notes = plotting.render(given, ".png")
    assert ["no installed font has the letters \U00013000, so they are"] == [
        note[:48] for note in notes
    ]
    svg, notes = plotting.render(given, ".svg")
    assert [] == notes
    assert "\U00013000" in svg.decode()
