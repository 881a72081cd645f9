"""A run that stops at any update and resumes on another number of ranks goes on exactly.

Four launches serve all of these tests: they train and save on one and on two ranks, and resume
from every save.
"""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

UPDATES = 10
BASE = {
    "init_lr": 1e-6,
    "max_lr": 3e-4,
    "min_lr": 3e-5,
    "lr_warmup_steps": 2,
    "lr_decay_steps": 9,
    "end_wd": 0.1,
    "wd_incr_steps": 8,
}
WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 4}
LR_STYLES = {
    "constant": {"lr_decay_style": "constant"},
    "linear": {"lr_decay_style": "linear"},
    "cosine": {"lr_decay_style": "cosine"},
    "inverse-square-root": {"lr_decay_style": "inverse-square-root"},
    "WSD linear": {**WSD, "lr_wsd_decay_style": "linear"},
    "WSD cosine": {**WSD, "lr_wsd_decay_style": "cosine"},
    "WSD exponential": {**WSD, "lr_wsd_decay_style": "exponential"},
    "WSD minus_sqrt": {**WSD, "lr_wsd_decay_style": "minus_sqrt"},
}
WD_STYLES = {
    "constant": {"wd_incr_style": "constant", "start_wd": 0.1},
    "linear": {"wd_incr_style": "linear", "start_wd": 0.01},
    "cosine": {"wd_incr_style": "cosine", "start_wd": 0.01},
}
CONFIGS = {
    f"lr {lr}, wd {wd}": {**BASE, **LR_STYLES[lr], **WD_STYLES[wd]}
    for lr in LR_STYLES
    for wd in WD_STYLES
}
SHARDED = ["lr linear, wd cosine", "lr WSD minus_sqrt, wd linear"]
TENSOR = ["lr cosine, wd linear"]
RUNS = {
    "plain": CONFIGS,
    "fsdp": {name: CONFIGS[name] for name in SHARDED},
    "tensor": {name: CONFIGS[name] for name in TENSOR},
}
RATIOS = {"decay": (1.0, 1.0), "no_decay": (1.0, 0.0), "second": (0.5, 0.25)}
"""By group: the ratios of its lr and weight decay to those of the decay group."""

EVERY_K = range(UPDATES + 1)

each_config = pytest.mark.parametrize("name", CONFIGS)
each_sharded = pytest.mark.parametrize("name", SHARDED)
each_tensor = pytest.mark.parametrize("name", TENSOR)
each_way_through_dcp = pytest.mark.parametrize("how", ["alone", "optimizers last", "together"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saves")


@pytest.fixture(scope="module")
def run(torchrun, folder):
    """Return a function that launches the program, and returns the result of each rank."""
    runs = folder / "runs.json"
    runs.write_text(json.dumps({"updates": UPDATES, "runs": RUNS}))

    def launch(world_size, device="cpu", **saves):
        options = [f"--{what}={folder / where}" for what, where in saves.items()]
        options += [f"--device={device}"]
        return torchrun("resume_runs.py", world_size, runs, *options, timeout=200)

    return launch


@pytest.fixture(scope="module")
def on_one(run):
    return run(1, train="1")


@pytest.fixture(scope="module")
def on_two(run, on_one):
    assert on_one
    return run(2, train="2", resume="1")


@pytest.fixture(scope="module")
def from_one_to_two(on_two):
    return on_two


@pytest.fixture(scope="module")
def from_two_to_one(run, on_two):
    assert on_two
    return run(1, resume="2")


@pytest.fixture(scope="module")
def from_two_to_three(run, on_two):
    assert on_two
    return run(3, resume="2")


@pytest.fixture(params=["from_one_to_two", "from_two_to_one", "from_two_to_three"])
def resumed(request):
    """Return, by route and rank, what the runs did after they were resumed from every k."""
    ranks = [rank["resumed"] for rank in request.getfixturevalue(request.param)]
    return {route: [rank[route] for rank in ranks] for route in ranks[0]}


@pytest.fixture(scope="module")
def uninterrupted(on_one):
    """Return the values of every update of each run, on one rank."""
    values = on_one[0]["trained"]["values"]
    return {key: [at[key] for at in values] for key in values[0]}


@pytest.fixture(scope="module")
def megatron():
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

    return OptimizerParamScheduler


def megatron_values(megatron, config):
    """Return the values of every update by Megatron's scheduler."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
    scheduler = megatron(optimizer, **config)
    values = []
    for _ in EVERY_K:
        lr, wd = (optimizer.param_groups[0][key] for key in ("lr", "weight_decay"))
        values.append(
            {
                name: [(lr * of_lr).hex(), (wd * of_wd).hex()]
                for name, (of_lr, of_wd) in RATIOS.items()
            }
        )
        scheduler.step(1)
    return values


def every_k(values, rounded=str):
    """Return, for each k, the values of the uninterrupted run from there on."""
    rest = [{group: [rounded(lr), wd] for group, (lr, wd) in groups.items()} for groups in values]
    return [rest[k:] for k in EVERY_K]


def as_float32(lr):
    return torch.tensor(float.fromhex(lr), dtype=torch.float32).item().hex()


def values_of(ranks):
    return [[at_k["values"] for at_k in rank] for rank in ranks]


@each_config
def test_an_uninterrupted_run_has_the_values_of_megatron(name, uninterrupted, megatron):
    assert megatron_values(megatron, CONFIGS[name]) == uninterrupted[f"plain/{name}"]


def test_every_rank_of_every_world_size_has_the_same_values(on_one, on_two):
    expected = on_one[0]["trained"]["values"]
    assert [expected] * 2 == [rank["trained"]["values"] for rank in on_two]


def test_the_state_is_the_same_on_every_rank_of_every_world_size(on_one, on_two):
    expected = on_one[0]["trained"]["states"]
    assert [expected] * 2 == [rank["trained"]["states"] for rank in on_two]


@each_sharded
def test_a_sharded_run_has_the_values_of_a_plain_one(name, uninterrupted):
    assert uninterrupted[f"plain/{name}"] == uninterrupted[f"fsdp/{name}"]


@each_config
def test_a_run_resumed_through_dcp_equals_the_uninterrupted_one(name, resumed, uninterrupted):
    ranks = values_of(resumed[f"plain/{name} from dcp, alone"])
    assert [every_k(uninterrupted[f"plain/{name}"])] * len(ranks) == ranks


@each_config
def test_a_run_resumed_through_torch_save_equals_the_uninterrupted_one(
    name, resumed, uninterrupted
):
    ranks = values_of(resumed[f"plain/{name} from torch, alone"])
    assert [every_k(uninterrupted[f"plain/{name}"])] * len(ranks) == ranks


@each_config
@pytest.mark.parametrize("how", ["optimizers first", "optimizers last"])
def test_optimizers_that_carry_older_values_may_be_loaded_first_or_last(
    name, how, resumed, uninterrupted
):
    ranks = values_of(resumed[f"plain/{name} from torch, {how}"])
    assert [every_k(uninterrupted[f"plain/{name}"])] * len(ranks) == ranks


@each_sharded
@each_way_through_dcp
def test_a_sharded_run_resumed_through_dcp_equals_the_uninterrupted_one(
    name, how, resumed, uninterrupted
):
    ranks = values_of(resumed[f"fsdp/{name} from dcp, {how}"])
    assert [every_k(uninterrupted[f"fsdp/{name}"])] * len(ranks) == ranks


@each_sharded
def test_an_async_save_has_the_state_of_its_call_while_the_run_goes_on(
    name, resumed, uninterrupted
):
    ranks = values_of(resumed[f"fsdp/{name} from async, together"])
    assert [every_k(uninterrupted[f"fsdp/{name}"])] * len(ranks) == ranks


@each_tensor
@each_way_through_dcp
def test_a_tensor_lr_holds_the_uninterrupted_value_rounded_once(name, how, resumed, uninterrupted):
    ranks = values_of(resumed[f"tensor/{name} from dcp, {how}"])
    assert [every_k(uninterrupted[f"plain/{name}"], as_float32)] * len(ranks) == ranks


@each_tensor
@each_way_through_dcp
def test_a_tensor_lr_stays_the_same_object_through_a_load(name, how, resumed):
    ranks = resumed[f"tensor/{name} from dcp, {how}"]
    kept = [[at_k["keeps_lr_objects"] for at_k in rank] for rank in ranks]
    assert [[True for _ in EVERY_K]] * len(ranks) == kept


def test_a_no_decay_group_keeps_zero_first_or_last(resumed):
    decays = {
        groups["no_decay"][1]
        for ranks in resumed.values()
        for rank in values_of(ranks)
        for values in rank
        for groups in values
    }
    assert {(0.0).hex()} == decays


@each_config
def test_a_second_optimizer_is_scheduled_too(name, uninterrupted):
    values = uninterrupted[f"plain/{name}"]
    held = [[float.fromhex(value) for value in groups["second"]] for groups in values]
    first = [[float.fromhex(value) for value in groups["decay"]] for groups in values]
    assert [[lr / 2, wd / 4] for lr, wd in first] == held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_cuda_with_nccl_resumes_exactly(run, uninterrupted):
    ranks = run(torch.cuda.device_count(), device="cuda", train="cuda", resume="cuda")
    for route in ranks[0]["resumed"]:
        kind, name = route.split(" from ")[0].split("/")
        rounded = as_float32 if kind == "tensor" else str
        expected = every_k(uninterrupted[f"plain/{name}"], rounded)
        assert [expected] * len(ranks) == values_of(rank["resumed"][route] for rank in ranks)
