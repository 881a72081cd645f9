"""What Megatron-LM's training loop does with its scheduler, done with ours beside it."""

from __future__ import annotations

import argparse
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from dist_sched import ConfigError, OptimizerParamScheduler, adapters, checkpoint
from helpers import CONFIG, adamw, held, param_scheduler

OTHER = {**CONFIG, "max_lr": 0.5, "lr_decay_steps": 500, "end_wd": 0.9}
IDENTITY = {"is_expert_parallel": False, "is_decoupled_lr": False}
BOUNDS = {"max_lr": 1.0, "min_lr": 0.1, "lr_mult": 1.0}


def chained(number):
    """Return Megatron's container of wrapped optimizers, with the groups that its builder makes."""
    from megatron.core.optimizer.optimizer import ChainedOptimizer, FP32Optimizer, MegatronOptimizer
    from megatron.core.optimizer.optimizer_config import OptimizerConfig

    class CpuOptimizer(FP32Optimizer):
        def __init__(self, optimizer, config):
            MegatronOptimizer.__init__(self, optimizer, config, lambda *_: None)
            self.is_stub_optimizer = False  # its constructor would go on to CUDA

    groups = [{**IDENTITY, **BOUNDS, "wd_mult": number} for number in (1.0, 0.0)]
    config = OptimizerConfig(lr=1.0, clip_grad=0.0)
    return ChainedOptimizer([CpuOptimizer(adamw(*groups), config) for _ in range(number)])


def ours_with_keys(*args, **entries):
    return adapters.megatron.ten_keys(OptimizerParamScheduler(*args, **entries))


OURS = pytest.mark.parametrize("ours", [OptimizerParamScheduler, ours_with_keys])


def update(optimizer, scheduler):
    """Do what `train_step` does after the backward pass, and return what the update used."""
    used = held(scheduler), held(scheduler, "weight_decay")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    assert optimizer.step_with_ready_grads()  # without the norm, for which step() needs CUDA
    scheduler.step(increment=8)
    return used


def run(cls, number, updates):
    optimizer = chained(number)
    scheduler = cls(optimizer, **CONFIG)
    return [update(optimizer, scheduler) for _ in range(updates)]


@OURS
@pytest.mark.parametrize("number", [1, 2])
def test_a_chained_optimizer_gets_megatrons_values(megatron, ours, number):
    assert run(megatron, number, 16) == run(ours, number, 16)


@OURS
def test_a_rank_without_parameters_steps_and_loads(ours):
    scheduler = ours(chained(0), **CONFIG)
    scheduler.step(increment=8)
    scheduler.load_state_dict(scheduler.state_dict())
    assert 8 == scheduler.num_steps


@OURS
def test_new_bounds_then_num_steps_then_a_step_of_0_are_as_in_megatron(megatron, ours):
    """Do what `load_checkpoint` does under --override-opt-param-scheduler."""
    found = []
    for cls in (megatron, ours):
        optimizer = chained(2)
        scheduler = cls(optimizer, **CONFIG)
        update(optimizer, scheduler)
        optimizer.load_state_dict(optimizer.state_dict())
        for group in optimizer.param_groups:
            group["max_lr"], group["min_lr"] = 2.0, 0.2
        scheduler.num_steps = 60
        scheduler.step(increment=0)
        found.append((held(scheduler), held(scheduler, "weight_decay")))
    assert found[0] == found[1]


@OURS
def test_rates_can_be_asked_for_as_in_megatron(megatron, ours):
    found = []
    for cls in (megatron, ours):
        optimizer = chained(1)
        scheduler = cls(optimizer, **CONFIG)
        scheduler.step(increment=60)
        found.append(
            [
                [scheduler.get_lr(g) for g in optimizer.param_groups],
                scheduler.get_wd(),
                held(scheduler),
            ]
        )
    assert found[0] == found[1]


def tree(scheduler, optimizer, iteration=1):
    """Return what `generate_state_dict` makes for torch_dcp and fsdp_dtensor."""
    return {
        "args": argparse.Namespace(lr=1.0),
        "checkpoint_version": 3.0,
        "iteration": iteration,
        "model": {"weight": torch.zeros(2)},
        "optimizer": optimizer.state_dict(),
        "opt_param_scheduler": scheduler.state_dict(),
        "num_floating_point_operations_so_far": 0,
    }


def saved(cls, folder):
    optimizer = adamw()
    scheduler = cls(optimizer, **CONFIG)
    scheduler.step(increment=42)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer = dcp.FileSystemWriter(folder)
        dcp.save(tree(scheduler, optimizer, 42), storage_writer=writer)
    return scheduler


def loaded(cls, folder, planner=None):
    optimizer = adamw()
    scheduler = cls(optimizer, **OTHER)
    state = tree(scheduler, optimizer)
    dcp.load(state, storage_reader=dcp.FileSystemReader(folder), planner=planner)
    scheduler.load_state_dict(state["opt_param_scheduler"])
    scheduler.step(increment=1)  # Megatron's load leaves the script's weight decay until then
    return scheduler


def assert_go_on_the_same(first, second):
    for _ in range(80):
        assert held(first) == held(second)
        assert held(first, "weight_decay") == held(second, "weight_decay")
        first.step(1)
        second.step(1)


@pytest.mark.parametrize("partial", [False, True], ids=["torch_dcp", "fsdp_dtensor"])
@pytest.mark.parametrize("direction", ["theirs to ours", "ours to theirs", "ours to ours"])
def test_folders_of_dcp_load_in_either(tmp_path, megatron, partial, direction):
    classes = {"theirs": megatron, "ours": ours_with_keys}
    first, second = (classes[name] for name in direction.split(" to "))
    before = saved(first, tmp_path)
    after = loaded(second, tmp_path, DefaultLoadPlanner(allow_partial_load=partial))
    before.step(increment=1)
    assert_go_on_the_same(before, after)


def test_a_whole_state_of_ours_loads_in_ten_keys(tmp_path):
    before = saved(OptimizerParamScheduler, tmp_path)
    after = loaded(ours_with_keys, tmp_path)
    before.step(increment=1)
    assert_go_on_the_same(before, after)


def test_without_ten_keys_dcp_refuses_a_folder_of_megatron(tmp_path, megatron):
    saved(megatron, tmp_path)
    with pytest.raises(CheckpointException, match=r"Missing key.*opt_param_scheduler.dist_sched"):
        loaded(OptimizerParamScheduler, tmp_path)


def test_it_is_a_stateful_of_dcp(tmp_path, megatron):
    saved(megatron, tmp_path)
    scheduler = ours_with_keys(adamw(), **OTHER)
    dcp.load({"opt_param_scheduler": scheduler}, checkpoint_id=tmp_path)
    assert 42 == scheduler.num_steps


def test_a_partial_load_of_a_folder_without_a_scheduler_warns(tmp_path, caplog):
    dcp.save({"model": torch.zeros(2)}, checkpoint_id=tmp_path)
    scheduler = ours_with_keys(adamw(), **CONFIG)
    planner = DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"opt_param_scheduler": scheduler}, checkpoint_id=tmp_path, planner=planner)
    assert "perhaps nothing was read" in caplog.text


def test_a_run_folder_of_megatron_is_read_without_a_job(tmp_path, megatron):
    saved(megatron, tmp_path / "iter_0000042")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("42")
    state, where = checkpoint.read_state(tmp_path)
    assert (42, "opt_param_scheduler") == (state["num_steps"], where.key)


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("direction", ["theirs to ours", "ours to theirs", "ours to ours"])
@OURS
def test_distributed_checkpoints_of_megatron_load_in_either(
    tmp_path, monkeypatch, megatron, ours, direction
):
    # Its writer waits for CUDA, though does not exist.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.mapping import ShardedTensor

    def sharded(scheduler):
        weight = ShardedTensor.from_rank_offsets("weight", torch.zeros(2))
        return {"model": {"weight": weight}, "opt_param_scheduler": scheduler.state_dict()}

    classes = {"theirs": megatron, "ours": ours}
    first, second = (classes[name] for name in direction.split(" to "))
    before, after = first(adamw(), **CONFIG), second(adamw(), **OTHER)
    before.step(increment=42)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist_checkpointing.save(sharded(before), str(tmp_path))
        state = dist_checkpointing.load(sharded(after), str(tmp_path))
    after.load_state_dict(state["opt_param_scheduler"])
    before.step(increment=1)
    after.step(increment=1)
    assert_go_on_the_same(before, after)


def test_what_the_script_declares_is_not_named_though_ten_keys_lack_it(caplog):
    entries = {"lr_decay_style": "WSD", "wsd_decay_steps": 5, "lr_wsd_decay_style": "linear"}
    ours_with_keys(adamw(), **{**CONFIG, **entries}).state_dict()
    assert "" == caplog.text


def test_what_a_late_change_made_is_named_where_ten_keys_lack_it(caplog):
    entries = {"lr_decay_style": "WSD", "wsd_decay_steps": 5, "lr_wsd_decay_style": "linear"}
    scheduler = ours_with_keys(adamw(), **{**CONFIG, **entries})
    scheduler.step(20)
    scheduler.cooldown(30, shape="cosine")
    scheduler.state_dict()
    lost = "do not include wsd_decay_steps=30, lr_wsd_decay_style='cosine'"
    assert lost in caplog.text


def test_other_schedulers_have_no_ten_keys():
    with pytest.raises(ConfigError, match="cannot express a ParamScheduler"):
        adapters.megatron.ten_keys(param_scheduler())
