"""Buffers: many tensors of one field that one copy writes."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from dist_sched import ConfigError, ParamScheduler
from dist_sched._optim import buffers
from helpers import HILL, UP, adamw, adamw_of_tensors, held, new_group, param_scheduler, sgd

COUNT = 20
"""More groups than are filled one by one."""


@pytest.fixture(params=["values", "versions"])
def compared(request, monkeypatch):
    """Find what others write by comparing values, as on a CPU, or versions, as on a GPU."""
    if request.param == "versions":
        monkeypatch.setattr(buffers, "_COMPARED", frozenset())


def of_tensors(count=COUNT, dtype=torch.float32):
    """Return an SGD whose groups have the lrs 1.0, 0.5, 1.0, … as tensors."""
    optimizer = sgd(*({"lr": 1.0 if index % 2 == 0 else 0.5} for index in range(count)))
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=dtype)
    return optimizer


def tensors(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def expected(value, count=COUNT):
    return [value, value / 2] * (count // 2)


def is_buffered(*held):
    """Return whether tensors share one memory."""
    return len({one.untyped_storage().data_ptr() for one in held}) == 1


def test_the_tensors_of_many_groups_get_one_memory_and_stay_the_same_objects():
    optimizer = of_tensors()
    before = tensors(optimizer)
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    assert all(now is one for now, one in zip(tensors(optimizer), before, strict=True))
    assert is_buffered(*before)
    assert expected(0.5) == [one.item() for one in before]


def test_few_tensors_keep_their_own_memory():
    optimizer = of_tensors(buffers.MIN_TENSORS - 1)
    addresses = [one.data_ptr() for one in tensors(optimizer)]
    param_scheduler(optimizer).seek(4)
    assert addresses == [one.data_ptr() for one in tensors(optimizer)]


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_every_dtype_holds_the_bits_that_filling_gives(dtype):
    optimizer = of_tensors(dtype=dtype)
    scheduler = param_scheduler(optimizer)
    for position in range(1, 45):
        scheduler.seek(position)
        value = scheduler.get_last_lr()[0]
        filled = [torch.empty((), dtype=dtype).fill_(one).item() for one in expected(value)]
        assert filled == held(optimizer)


def test_tensors_of_two_dtypes_get_one_memory_each():
    optimizer = of_tensors(2 * COUNT)
    for group in optimizer.param_groups[COUNT:]:
        group["lr"] = group["lr"].double()
    param_scheduler(optimizer).seek(4)
    held_tensors = tensors(optimizer)
    assert is_buffered(*held_tensors[:COUNT])
    assert is_buffered(*held_tensors[COUNT:])
    assert expected(0.5, 2 * COUNT) == held(optimizer)


@pytest.mark.parametrize("shape", [(), (1,)], ids=str)
def test_a_tensor_keeps_its_shape(shape):
    optimizer = of_tensors()
    for group in optimizer.param_groups:
        group["lr"] = group["lr"].reshape(shape).clone()
    param_scheduler(optimizer).seek(4)
    assert {torch.Size(shape)} == {one.shape for one in tensors(optimizer)}
    assert is_buffered(*tensors(optimizer))


def test_a_view_that_a_script_holds_still_shows_every_value():
    optimizer = of_tensors()
    view = tensors(optimizer)[3].view(1)
    array = tensors(optimizer)[4].numpy()
    scheduler = param_scheduler(optimizer)
    later = tensors(optimizer)[5].view(1)
    scheduler.seek(4)
    assert [0.25, 0.5, 0.25] == [view.item(), array.item(), later.item()]
    assert not is_buffered(*tensors(optimizer))
    assert expected(0.5) == held(optimizer)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.requires_grad_(),
        lambda one: one.share_memory_(),
        torch.nn.Parameter,
        lambda one: torch.stack([one, one])[0],
    ],
    ids=["requires grad", "shared between processes", "subclass", "part of another tensor"],
)
def test_a_tensor_that_more_depends_on_than_its_value_keeps_its_memory(change):
    optimizer = of_tensors()
    for group in optimizer.param_groups:
        group["lr"] = change(group["lr"])
    addresses = [one.data_ptr() for one in tensors(optimizer)]
    param_scheduler(optimizer).seek(4)
    assert addresses == [one.data_ptr() for one in tensors(optimizer)]
    assert expected(0.5) == held(optimizer)


def test_without_a_count_of_users_no_tensor_is_moved(monkeypatch):
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    optimizer = of_tensors()
    param_scheduler(optimizer).seek(4)
    assert not is_buffered(*tensors(optimizer))
    assert expected(0.5) == held(optimizer)


def test_loads_put_the_same_objects_back_into_the_same_memory():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    before = tensors(optimizer)
    addresses = [one.data_ptr() for one in before]
    scheduler.seek(8)
    saved, state = copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()
    scheduler.seek(40)
    optimizer.load_state_dict(saved)
    scheduler.load_state_dict(state)
    scheduler.seek(4)
    assert all(now is one for now, one in zip(tensors(optimizer), before, strict=True))
    assert addresses == [one.data_ptr() for one in before]
    assert expected(0.5) == held(optimizer)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],  # noqa: S301 - our own
    ids=["deepcopy", "pickle"],
)
def test_a_copy_of_optimizer_and_scheduler_is_independent(copied):
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    other, others = copied((optimizer, scheduler))
    others.seek(4)
    assert expected(0.0) == held(optimizer)
    scheduler.seek(8)
    assert (expected(1.0), expected(0.5)) == (held(optimizer), held(other))


def test_a_tensor_that_is_saved_alone_takes_the_buffer_along_and_loads_alike():
    optimizer = of_tensors()
    param_scheduler(optimizer).seek(4)
    file = io.BytesIO()
    torch.save(tensors(optimizer)[1], file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert (0.25, COUNT * 16) == (loaded.item(), loaded.untyped_storage().nbytes())


@pytest.mark.parametrize("other", [torch.tensor(7.0), 7.0], ids=["tensor", "float"])
def test_another_object_in_a_group_is_named_and_written_and_the_former_tensor_no_more(
    other, caplog
):
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(8)
    former, optimizer.param_groups[3]["lr"] = tensors(optimizer)[3], copy.copy(other)
    scheduler.seek(4)
    former.fill_(9.0)
    scheduler.seek(24)
    assert expected(0.75) == held(optimizer)
    assert 9.0 == former.item()
    assert "something else writes lr of group 3: its value was 7.0" in caplog.text


def test_a_tensor_that_a_script_moves_elsewhere_is_written_there():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    moved = tensors(optimizer)[3]
    kept = moved.detach()  # so that as many tensors use the memory as before
    moved.data = torch.tensor(9.0)
    scheduler.seek(4)
    assert expected(0.5) == held(optimizer)
    assert tensors(optimizer)[3] is moved
    assert 1 == kept.numel()


def test_the_tensor_of_a_removed_group_is_written_no_more():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    removed = optimizer.param_groups.pop(3)["lr"]
    scheduler.seek(4)
    removed.fill_(9.0)
    scheduler.seek(8)
    assert 9.0 == removed.item()


def test_a_group_that_is_added_is_written():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    optimizer.add_param_group(new_group(lr=torch.tensor(0.5)))
    scheduler.seek(4)
    assert [*expected(0.5), 0.25] == held(optimizer)


def test_overrides_count_from_the_next_step_on_until_they_are_removed():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    optimizer.param_groups[2] |= {"lr_mult": 3.0}
    optimizer.param_groups[4] |= {"max_lr": 8.0}
    scheduler.seek(8)
    assert [1.0, 0.5, 3.0, 0.5, 8.0, 0.5] == held(optimizer)[:6]
    scheduler.seek(24)
    assert [0.75, 0.375, 2.25] == held(optimizer)[:3]
    del optimizer.param_groups[2]["lr_mult"], optimizer.param_groups[4]["max_lr"]
    scheduler.seek(8)
    assert expected(1.0) == held(optimizer)


def test_every_second_group_with_an_override_is_written_beside_the_others():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    for group in optimizer.param_groups[1::2]:
        group["lr_mult"] = 2.0
    for position, value in [(4, 0.5), (8, 1.0), (24, 0.75)]:
        scheduler.seek(position)
        assert [value, 2 * value] * (COUNT // 2) == held(optimizer)


def test_a_step_that_fails_leaves_every_tensor_as_it_was():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    optimizer.param_groups[3]["lr_mult"] = "x"
    with pytest.raises(ConfigError, match="group 3: lr_mult='x'"):
        scheduler.seek(8)
    assert (expected(0.5), 4) == (held(optimizer), scheduler.num_steps)
    del optimizer.param_groups[3]["lr_mult"]
    scheduler.step(4)
    assert expected(1.0) == held(optimizer)


@pytest.mark.usefixtures("compared")
def test_a_value_that_something_else_wrote_is_named_once_and_written_again(caplog):
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    for position in (4, 8, 24):
        scheduler.seek(position)
        tensors(optimizer)[3].fill_(7.0)
    scheduler.seek(40)
    (record,) = caplog.records
    assert "something else writes lr of group 3: its value was 7.0" in record.message
    assert expected(0.5) == held(optimizer)


@pytest.mark.usefixtures("compared")
def test_neither_loads_nor_copies_count_as_writes_of_something_else(caplog):
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    saved, state = copy.deepcopy(optimizer.state_dict()), scheduler.state_dict()
    scheduler.step()
    for one in (optimizer.load_state_dict, lambda _: scheduler.load_state_dict(state)):
        one(saved)
        scheduler.step()
    copy.deepcopy((optimizer, scheduler))[1].step()
    assert [] == [one.message for one in caplog.records if "something else" in one.message]


@pytest.mark.usefixtures("compared")
def test_what_a_load_writes_in_place_is_not_named_later(caplog):
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    state = scheduler.state_dict()
    for tensor in tensors(optimizer):
        tensor.fill_(7.0)
    scheduler.load_state_dict(state)
    scheduler.step()
    scheduler.step()
    assert [] == [one.message for one in caplog.records if "something else" in one.message]


def test_tensors_in_tuples_are_filled_where_they_are():
    optimizer = adamw(*({"betas": (torch.tensor(0.5), 0.9)} for _ in range(COUNT)))
    before = [group["betas"][0] for group in optimizer.param_groups]
    addresses = [one.data_ptr() for one in before]
    param_scheduler(optimizer, {"betas[0]": UP}).seek(4)
    assert ([0.5] * COUNT, addresses) == (
        held(optimizer, "betas[0]"),
        [one.data_ptr() for one in before],
    )
    assert [UP(4)] * COUNT == [one.item() for one in before]


def test_tensors_of_two_fields_have_one_memory_each_and_two_schedulers_may_write_them():
    optimizer = of_tensors()
    for group in optimizer.param_groups:
        group["momentum"] = torch.tensor(0.5)
    lr = param_scheduler(optimizer)
    momentum = ParamScheduler(optimizer, {"momentum": UP})
    lr.seek(8)
    momentum.seek(4)
    lr.seek(4)
    assert (expected(0.5), [0.5] * COUNT) == (held(optimizer), held(optimizer, "momentum"))
    assert is_buffered(*(group["momentum"] for group in optimizer.param_groups))


def test_a_second_scheduler_of_the_same_field_writes_every_tensor():
    optimizer = of_tensors()
    param_scheduler(optimizer).seek(8)
    param_scheduler(optimizer, {"lr": HILL}).seek(4)
    assert expected(0.5) == held(optimizer)


def test_blocks_of_many_groups_are_written_by_one_copy(monkeypatch):
    optimizer = of_tensors(600)
    scheduler = param_scheduler(optimizer)
    scheduler.seek(1)
    copies = []
    monkeypatch.setattr(
        buffers.Buffer, "write", lambda one, write=buffers.Buffer.write: copies.append(write(one))
    )
    scheduler.seek(4)
    assert 1 == len(copies)
    assert expected(0.5, 600) == held(optimizer)


def test_updates_use_the_values_in_the_buffer():
    optimizer = of_tensors()
    scheduler = param_scheduler(optimizer)
    scheduler.seek(4)
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones_like(group["params"][0])
    before = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    optimizer.step()
    moved = [
        (one - group["params"][0]).max().item()
        for one, group in zip(before, optimizer.param_groups, strict=True)
    ]
    assert expected(0.5) == pytest.approx(moved)


def test_adamw_of_tensors_is_written_for_lr_and_weight_decay_alike():
    optimizer = adamw_of_tensors(*({} for _ in range(COUNT)))
    scheduler = param_scheduler(optimizer, {"lr": HILL, "weight_decay": UP})
    scheduler.seek(4)
    assert ([0.5] * COUNT, [0.5] * COUNT) == (held(optimizer), held(optimizer, "weight_decay"))
