"""Missed loads: whether writes are kept, and what has changed since the last write."""

from __future__ import annotations

import pytest
import torch

from dist_sched import ConfigError
from dist_sched._optim.missed_loads import Snapshot
from helpers import HILL, adamw_of_tensors, held, param_scheduler, sgd


class Through(dict):
    """A new dict whose writes go to another one, too."""

    def __init__(self, group, log):
        super().__init__(group)
        self._group, self._log = group, log

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self._log.append(value)
        self._group[key] = value


class Views:
    """A facade that makes new dicts each time, whose writes are kept."""

    def __init__(self, inner):
        self._inner, self.log = inner, []

    @property
    def param_groups(self):
        return [Through(group, self.log) for group in self._inner.param_groups]


@pytest.mark.parametrize("lr", [1.0, 1], ids=repr)
def test_a_write_that_tells_whether_it_is_kept_is_undone(lr):
    optimizer = Views(sgd({}, {"lr": 2}, lr=lr))
    before = [group["lr"] for group in optimizer.param_groups]
    scheduler = param_scheduler(optimizer, {"lr": HILL})
    assert [2.0, before[0], 3.0, before[1]] == optimizer.log[:4]
    assert [type(one) for one in before] == [type(one) for one in (lr, 2)]
    scheduler.seek(8)


def test_a_tensor_that_tells_whether_writes_are_kept_is_filled_and_keeps_its_value():
    inner = adamw_of_tensors({}, {"lr": 0.5})
    before = [group["lr"] for group in inner.param_groups]
    scheduler = param_scheduler(Views(inner), {"lr": 1.0})
    assert [1.0, 0.5] == held(inner)
    assert all(
        now is one for now, one in zip([g["lr"] for g in inner.param_groups], before, strict=False)
    )
    assert scheduler.num_steps == 0


def test_the_second_group_whose_writes_are_lost_is_named_with_the_field():
    class Half(Views):
        @property
        def param_groups(self):
            first, second = self._inner.param_groups
            return [Through(first, self.log), dict(second)]

    rule = r"group 1 of Half are lost \(lr is 0\.5 again when it is read\)"
    with pytest.raises(ConfigError, match=rule):
        param_scheduler(Half(sgd({}, {"lr": 0.5})), {"lr": 1.0})


def snapshot(group):
    fields = param_scheduler(sgd(weight_decay=0.1), {"lr": HILL, "weight_decay": 0.1})
    return Snapshot.of(group, fields._writer.plan.fields)


LR = torch.tensor(1.0)


@pytest.mark.parametrize(
    "before, change, always, in_a_load",
    [
        ({"lr": 1.0}, {}, False, False),
        ({"lr": 1.0}, {"lr": 0.5}, True, True),
        ({"lr": 1.0}, {"weight_decay": 0.5}, True, True),
        ({"lr": 1.0}, {"lr": torch.tensor(1.0)}, False, True),
        ({"lr": LR}, {"lr": 1.0}, False, True),
        ({"lr": LR}, {"lr": torch.tensor(1.0)}, False, True),
        ({"lr": LR}, {"lr": LR}, False, False),
        ({"lr": 1.0}, {"lr_mult": 2.0}, False, True),
        ({"lr": 1.0, "lr_mult": 2.0}, {"lr_mult": None}, False, True),
        ({"lr": 1.0}, {"other": 2.0}, False, False),
    ],
    ids=str,
)
def test_a_group_was_loaded_where_a_value_differs_or_in_a_load_what_else_it_brings(
    before, change, always, in_a_load
):
    group = dict(before)
    last = snapshot(group)
    group.update(change)
    now = snapshot(group)
    assert always == last.was_loaded(now, is_load=False)
    assert in_a_load == last.was_loaded(now, is_load=True)
    last.is_in_doubt = True
    assert in_a_load == last.was_loaded(now, is_load=False)


def test_a_group_whose_dict_was_replaced_was_loaded_though_it_is_equal():
    group = {"lr": 1.0}
    last = snapshot(group)
    assert last.was_loaded(snapshot({"lr": 1.0}), is_load=False)


def test_the_fields_that_differ_are_listed_with_both_values():
    last = snapshot({"lr": torch.tensor(1.0), "weight_decay": 0.1})
    now = snapshot({"lr": torch.tensor(0.5), "weight_decay": 0.1})
    assert ["lr was 0.5 instead of the written 1.0"] == last.differences(now)
    gone = snapshot({"lr": 1.0})
    assert ["weight_decay was None instead of the written 0.1"] == last.differences(gone)


def test_what_was_written_is_kept_when_the_tensor_is_filled_again():
    tensor = torch.tensor(1.0)
    last = snapshot({"lr": tensor})
    tensor.fill_(0.5)
    assert ({"lr": 1.0}, tensor) == (
        {key: one.item() for key, one in last.values.items()},
        last.tensors["lr"],
    )
    assert last.tensors["lr"] is tensor


def test_only_overrides_that_are_there_are_remembered():
    found = snapshot({"lr": 1.0, "lr_mult": 2.0, "max_lr": None, "other": 3.0})
    assert {"lr_mult": 2.0, "max_lr": None} == found.overrides
