"""Fields of groups: which can be scheduled, and how tuples, lists and tensors are written."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

from dist_sched import (
    ConfigError,
    ParamScheduler,
)
from dist_sched._optim import fields as group_fields
from helpers import (
    HILL,
    UP,
    adamw,
    contents,
    held,
    optimizer_of,
    param_scheduler,
    sgd,
)


def muon(**arguments):
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no torch.optim.Muon")
    return torch.optim.Muon([torch.nn.Parameter(torch.ones(2, 2))], **arguments)


rmsprop = functools.partial(optimizer_of, torch.optim.RMSprop)


@pytest.mark.parametrize(
    "build, field",
    [(adamw, key) for key in ("lr", "weight_decay", "betas[0]", "betas[1]", "eps")]
    + [(sgd, key) for key in ("lr", "weight_decay", "momentum", "dampening")]
    + [(muon, key) for key in ("lr", "weight_decay", "momentum", "eps")]
    + [(rmsprop, key) for key in ("lr", "weight_decay", "momentum", "alpha", "eps")],
)
def test_any_field_follows_its_schedule_and_nothing_else_changes(build, field):
    optimizer = build()
    before = contents(optimizer)
    scheduler = ParamScheduler(optimizer, {field: UP})
    found = [*held(optimizer, field)]
    for position in (4, 8, 100):
        scheduler.seek(position)
        found += held(optimizer, field)
    assert [0.25, 0.5, 0.75, 0.75] == found
    name = field.partition("[")[0]
    after = contents(optimizer)
    assert [{**before[0], name: None}] == [{**after[0], name: None}]


def test_several_fields_are_scheduled_at_once_and_a_number_is_a_constant_one():
    optimizer = adamw()
    scheduler = ParamScheduler(
        optimizer, {"lr": HILL, "betas[1]": UP, "betas[0]": 0.5, "weight_decay": 0.125}
    )
    scheduler.seek(4)
    assert [0.5] == held(optimizer)
    assert (0.5, 0.5) == optimizer.param_groups[0]["betas"]
    assert [0.125] == held(optimizer, "weight_decay")


def test_a_field_that_only_one_of_several_optimizers_has_is_scheduled_there_alone():
    first, second = muon(lr=1.0), adamw()
    scheduler = ParamScheduler([first, second], {"lr": HILL, "momentum": UP})
    scheduler.seek(4)
    assert ([0.5], [0.5]) == (held(first), held(first, "momentum"))
    assert [0.5] == held(second)
    assert "momentum" not in second.param_groups[0]


def test_a_list_of_optimizers_has_its_ratios_to_the_group_that_has_the_peak():
    first, second = muon(lr=2.0), adamw(lr=1.0)
    ParamScheduler([first, second], {"lr": HILL}).seek(8)
    assert ([2.0], [1.0]) == (held(first), held(second))


def test_groups_that_lack_a_field_are_passed_over_and_never_given_a_key():
    optimizer = sgd({}, {})
    del optimizer.param_groups[1]["momentum"]
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "momentum": UP})
    scheduler.seek(4)
    scheduler.verify()
    assert [0.5, None] == held(optimizer, "momentum")
    assert [0.5, 0.5] == held(optimizer)


@pytest.mark.parametrize(
    "build, field, near",
    [
        (adamw, "momentum", "betas[0]"),
        (adamw, "beta1", "betas[0]"),
        (adamw, "beta2", "betas[1]"),
        (adamw, "betas", "betas[0]"),
        (adamw, "betas[2]", "betas[0]"),
        (adamw, "weight_decy", "weight_decay"),
        (adamw, "wd", "weight_decay"),
        (sgd, "betas[0]", "momentum"),
        (sgd, "learning_rate", "lr"),
        (rmsprop, "alhpa", "alpha"),
    ],
)
def test_a_field_that_no_group_has_is_refused_and_the_near_miss_named(build, field, near):
    optimizer = build()
    before = contents(optimizer)
    with pytest.raises(ConfigError) as error:
        ParamScheduler(optimizer, {"lr": HILL, field: 0.5})
    assert f"{field}: no group of the optimizer has this field; did you mean" in str(error.value)
    assert f"'{near}'" in str(error.value)
    assert before == contents(optimizer)


@pytest.mark.parametrize("field", ["nesterov", "params", "foreach"])
def test_what_is_no_number_cannot_be_scheduled(field):
    with pytest.raises(ConfigError, match=field):
        ParamScheduler(sgd(), {field: 0.5})


def test_tensors_are_filled_in_place_whether_fields_or_parts_of_a_tuple():
    lr, betas = torch.tensor(1.0), (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(lr=lr, betas=betas, capturable=True)
    scheduler = ParamScheduler(optimizer, {"lr": HILL, "betas[0]": UP, "betas[1]": UP})
    scheduler.seek(4)
    group = optimizer.param_groups[0]
    assert [0.5, 0.5, 0.5] == [lr.item(), betas[0].item(), betas[1].item()]
    assert [*map(id, (lr, *betas))] == [*map(id, (group["lr"], *group["betas"]))]


def test_tensor_betas_shared_by_groups_become_one_for_each():
    betas = (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(
        {"name": "a"}, {"name": "b"}, lr=torch.tensor(1.0), betas=betas, capturable=True
    )
    scheduler = ParamScheduler(optimizer, {"betas[0]": UP}, groups={"b": {"betas[0]": 0.5}})
    scheduler.seek(4)
    assert [0.5, 0.25] == held(optimizer, "betas[0]")
    assert [0.25, 0.25] == held(optimizer, "betas[1]")
    assert optimizer.param_groups[0]["betas"][0] is betas[0]


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_stays_a_tuple_a_list_a_list_and_one_that_groups_share_is_not_corrupted(kind):
    betas = kind((0.5, 0.25))
    optimizer = adamw({"name": "a", "betas": betas}, {"name": "b", "betas": betas})
    scheduler = ParamScheduler(optimizer, {"betas[0]": UP}, groups={"b": {"betas[0]": 0.5}})
    scheduler.seek(4)
    assert [kind((0.5, 0.25)), kind((0.25, 0.25))] == [g["betas"] for g in optimizer.param_groups]
    assert kind((0.5, 0.25)) == betas


def test_after_an_optimizer_load_the_scripts_own_tensors_are_put_back_and_filled():
    betas = (torch.tensor(0.5), torch.tensor(0.25))
    optimizer = adamw(lr=torch.tensor(1.0), betas=betas, capturable=True)
    scheduler = ParamScheduler(optimizer, {"betas[1]": UP})
    state = copy.deepcopy(optimizer.state_dict())
    scheduler.seek(4)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["betas"][1] is betas[1]
    assert [0.5] == held(optimizer, "betas[1]")


def test_a_whole_number_in_a_group_becomes_a_float():
    optimizer = sgd(momentum=0, lr=1)
    ParamScheduler(optimizer, {"momentum": UP}).seek(4)
    assert [0.5] == held(optimizer, "momentum")
    assert float is type(optimizer.param_groups[0]["momentum"])


def test_parts_of_a_tuple_keep_ratios_of_their_own():
    optimizer = adamw({"betas": (0.75, 0.5)}, {"betas": (0.375, 0.5)})
    ParamScheduler(optimizer, {"betas[0]": UP, "betas[1]": UP}).seek(4)
    assert [(0.5, 0.5), (0.25, 0.5)] == [group["betas"] for group in optimizer.param_groups]


def test_an_optimizer_checkpoint_that_lacks_a_scheduled_key_gets_it_back():
    optimizer = sgd()
    scheduler = param_scheduler(optimizer, {"momentum": UP})
    scheduler.seek(4)
    state = optimizer.state_dict()
    del state["param_groups"][0]["momentum"]
    optimizer.load_state_dict(state)
    assert [0.5] == held(optimizer, "momentum")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lr_and_betas_on_a_gpu_are_filled_in_place():
    weights = [torch.nn.Parameter(torch.ones(2, device="cuda"))]
    lr, beta = (torch.tensor(value, device="cuda") for value in (1.0, 0.5))
    optimizer = torch.optim.AdamW(
        weights, lr=lr, betas=(beta, torch.tensor(0.75, device="cuda")), capturable=True
    )
    param_scheduler(optimizer, {"lr": HILL, "betas[0]": UP}).seek(4)
    (group,) = optimizer.param_groups
    assert group["lr"] is lr
    assert group["betas"][0] is beta
    assert [0.5, 0.5] == [lr.item(), beta.item()]


@pytest.mark.parametrize(
    "found, expected",
    [
        (0.1, True),
        (0.1 * (1 + 1e-13), True),
        (0.1 * (1 + 1e-11), False),
        (0.2, False),
        (torch.tensor(0.1), True),
        (torch.tensor([0.1]), True),
        (torch.tensor(0.1, dtype=torch.bfloat16), True),
        (torch.tensor(0.1001), False),
        (torch.tensor([0.1, 0.1]), False),
        (torch.tensor(0), False),
        (torch.empty((), device="meta"), False),
        ("0.1", False),
        (None, False),
    ],
    ids=str,
)
def test_a_group_holds_a_number_up_to_the_rounding_of_its_type(found, expected):
    assert expected == group_fields.holds(found, 0.1)


def test_a_whole_number_is_compared_up_to_a_given_tolerance():
    assert group_fields.holds(2, 2.0)
    assert group_fields.holds(2.001, 2.0, rel_tol=1e-3)
    assert not group_fields.holds(2.001, 2.0, rel_tol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("number", [0.0, 0.001, 0.3, 1 / 3, 123.0])
def test_a_tensors_shortest_decimal_is_the_number_of_the_script(dtype, number):
    tensor = torch.tensor(number, dtype=dtype)
    found = group_fields.shortest_decimal("lr", tensor)
    assert tensor.item() == torch.tensor(found, dtype=dtype).item()
    assert number in (found, 1 / 3)


def test_a_double_of_seventeen_digits_is_as_it_is():
    number = 0.1 + 0.2
    assert number == group_fields.shortest_decimal("lr", torch.tensor(number, dtype=torch.float64))


def test_the_number_in_a_tensor_is_plain_and_all_else_is_as_it_is():
    pair, empty = torch.ones(2), torch.empty((), device="meta")
    assert 2.0 == group_fields.plain(torch.tensor([2.0]))
    assert all(one is group_fields.plain(one) for one in (pair, empty, "text", None, 3))


def test_fields_that_can_be_scheduled_are_those_with_numbers():
    group = {"params": [1.0], "lr": 1, "eps": torch.ones(()), "betas": (0.5, True), "foreach": None}
    group |= {"flag": True, "parts": [1.0, "x"], "nothing": ()}
    assert ["lr", "eps", "betas[0]", "parts[0]"] == [*group_fields.names_in(group)]


@pytest.mark.parametrize(
    "key, expected",
    [("a", 1), ("b[0]", 2), ("b[1]", 3), ("b[2]", None), ("c[1]", 5), ("a[0]", None), ("d", None)],
)
def test_a_field_or_part_is_read_and_none_where_there_is_none(key, expected):
    assert expected == group_fields.get({"a": 1, "b": (2, 3), "c": [4, 5]}, key)


@pytest.mark.parametrize(
    "key, parts",
    [("b", ("b", None)), ("b[1]", ("b", 1)), ("b[12]", ("b", 12)), ("b[x]", ("b[x]", None))],
)
def test_a_key_is_split_into_name_and_index(key, parts):
    assert parts == group_fields.split(key)
