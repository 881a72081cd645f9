"""Rows: what a step writes into groups whose overrides come, change and go."""

from __future__ import annotations

import itertools

import pytest
import torch

from dist_sched import ConfigError, Phase, Schedule
from dist_sched._optim.rows import version
from helpers import UP, adamw, adamw_of_tensors, held, param_scheduler, sgd

FALL = Schedule([Phase("linear", 40, end=0.0, start=1.0)])


@pytest.mark.parametrize("field", ["lr", "betas[1]", "weight_decay"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_field_that_was_set_to_none_is_refused_by_group_and_nothing_changes(field, index):
    optimizer = adamw({}, {})
    scheduler = param_scheduler(optimizer, {field: UP})
    scheduler.seek(4)
    group, name = optimizer.param_groups[index], field.partition("[")[0]
    kept, group[name] = group[name], None
    rule = rf"group {index}: {name}.* was removed from the group; add it again"
    with pytest.raises(ConfigError, match=rule):
        scheduler.seek(8)
    group[name] = kept
    assert ([0.5, 0.5], 4) == (held(optimizer, field), scheduler.num_steps)
    scheduler.seek(8)
    assert [0.75, 0.75] == held(optimizer, field)


def test_a_field_that_was_set_to_none_is_found_before_a_changed_override_is_written():
    optimizer = sgd({}, {}, {"max_lr": 2.0})
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    optimizer.param_groups[0]["lr_mult"] = 3.0
    optimizer.param_groups[2]["lr"] = None
    optimizer.param_groups[1]["lr"] = 7.0
    with pytest.raises(ConfigError, match="group 2: lr was removed from the group"):
        scheduler._writer.write(8)
    assert [0.5, 7.0, None] == held(optimizer)


@pytest.mark.parametrize("betas", [(), (0.5,), None], ids=str)
def test_a_part_that_was_removed_from_a_tuple_is_refused(betas):
    optimizer = adamw()
    scheduler = param_scheduler(optimizer, {"betas[1]": UP})
    optimizer.param_groups[0]["betas"] = betas
    with pytest.raises(ConfigError, match=r"group 0: betas\[1\] was removed"):
        scheduler.step()


def test_a_tuple_that_was_removed_with_its_key_is_refused():
    optimizer = adamw()
    scheduler = param_scheduler(optimizer, {"betas[1]": UP})
    del optimizer.param_groups[0]["betas"]
    with pytest.raises(ConfigError, match=r"group 0: betas\[1\] was removed"):
        scheduler.step()


def test_a_key_that_was_removed_comes_back_as_the_scripts_tensor():
    optimizer = adamw_of_tensors()
    lr = optimizer.param_groups[0]["lr"]
    scheduler = param_scheduler(optimizer)
    del optimizer.param_groups[0]["lr"]
    scheduler.seek(4)
    assert optimizer.param_groups[0]["lr"] is lr
    assert 0.5 == lr.item()


OVERRIDES = [{}, {"max_lr": 4.0}, {"min_lr": 0.25}, {"max_lr": 4.0, "min_lr": 0.25}, {"lr_mult": 3}]
OVERRIDES += [{"max_lr": 4.0, "lr_mult": 0.5}, {"max_lr": torch.tensor(4.0)}, {"max_lr": None}]


def wanted(override, position):
    """Return the value of a group whose own lr is the peak, with an override."""
    high, low = override.get("max_lr"), override.get("min_lr")
    factor = override.get("lr_mult", 1.0)
    if high is None and low is None:
        return FALL(position) * factor
    high, low = float(1.0 if high is None else high), 0.0 if low is None else low
    return (low + (high - low) * FALL(position)) * factor


@pytest.mark.parametrize("build", [sgd, adamw_of_tensors])
@pytest.mark.parametrize(
    "first, second", [*itertools.pairwise([*OVERRIDES, *OVERRIDES[:5:2]])], ids=str
)
def test_every_change_of_overrides_takes_effect_at_each_step_after_it(build, first, second):
    optimizer = build({}, dict(first))
    scheduler = param_scheduler(optimizer, {"lr": FALL})
    group = optimizer.param_groups[1]
    for override in (first, second, first, second, second):
        for key in {**first, **second}:
            group.pop(key, None)
        group.update(override)
        for position in (10, 20):
            scheduler.seek(position)
            assert [FALL(position), pytest.approx(wanted(override, position))] == held(optimizer)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("override", OVERRIDES, ids=str)
def test_groups_of_several_ratios_and_overrides_are_written_side_by_side(count, override):
    groups = [{}, {"lr": 0.5}, {}, dict(override), {"lr": 0.25}][: 2 * count - 1]
    optimizer = sgd(*groups)
    scheduler = param_scheduler(optimizer, {"lr": FALL})
    for position in (8, 10, 20, 40):
        scheduler.seek(position)
        value = FALL(position)
        mine = pytest.approx(wanted(override, position))
        expected = [value, value / 2, value, mine, value / 4][: len(groups)]
        assert expected == held(optimizer)


def test_what_another_scheduler_of_bounds_writes_is_named(caplog):
    optimizer = sgd({"max_lr": 4.0}, {"lr_mult": 2.0}, {"max_lr": torch.tensor(4.0)})
    for index in range(3):
        scheduler = param_scheduler(optimizer)
        scheduler.seek(4)
        optimizer.param_groups[index]["lr"] = 7.0
        caplog.clear()
        scheduler.seek(8)
        (message,) = [one.message for one in caplog.records]
        assert f"something else writes lr of group {index}: its value was 7.0" in message
        assert [4.0, 2.0, 4.0] == held(optimizer)


def test_a_tensor_of_inference_mode_has_no_version():
    with torch.inference_mode():
        tensor = torch.tensor(1.0)
    assert version(tensor) is None
    counted = torch.tensor(1.0)
    before = version(counted)
    counted.fill_(2.0)
    assert before + 1 == version(counted)


def test_a_curve_on_bounds_is_highest_at_its_highest_bound_times_its_multiplier():
    groups = [{"max_lr": 4.0, "lr_mult": 0.5}, {"min_lr": 0.25}, {"lr": 0.5}, {"lr_mult": 3.0}]
    names = [{"name": name, **group} for name, group in zip("abcd", groups, strict=True)]
    scheduler = param_scheduler(sgd({}, *names), groups={"a": {"lr": 0.5}, "c": {"lr": 0.5}})
    assert [1.0, 1.0, 1.0, 0.25, 3.0] == [row.highest for row in scheduler.describe_groups()]
    scheduler.seek(8)
    assert [1.0, 1.0, 1.0, 0.25, 3.0] == held(scheduler)
