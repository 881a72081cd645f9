"""Whole checkpoints load in upstream's classes and in ours, whichever of them saved."""

from __future__ import annotations

import argparse

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

from dist_sched import OptimizerParamScheduler, checkpoint
from helpers import CONFIG, adamw, held

OTHER = {"max_lr": 0.5, "lr_decay_steps": 500, "end_wd": 0.9, "lr_decay_style": "cosine"}
OLD = {"max_lr": "start_lr", "lr_warmup_steps": "warmup_iter", "lr_decay_steps": "end_iter"}
OLD |= {"lr_decay_style": "decay_style", "num_steps": "num_iters"}


def build(**changes):
    return OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})


def values(scheduler):
    return held(scheduler), held(scheduler, "weight_decay")


def assert_go_on_the_same(first, second):
    for _ in range(80):
        assert values(first) == values(second)
        first.step(1)
        second.step(1)


@pytest.fixture
def theirs(upstream):
    scheduler = upstream(adamw(), **CONFIG)
    scheduler.step(42)
    return scheduler


@pytest.mark.parametrize("key", ["opt_param_scheduler", "lr_scheduler", "sched"])
@pytest.mark.parametrize("save", ["dcp", "torch"])
def test_an_upstream_checkpoint_loads_though_it_has_no_text(tmp_path, theirs, key, save):
    tree = {"iteration": 42, key: theirs.state_dict()}
    path = tmp_path / "a.pt"
    dcp.save(tree, checkpoint_id=path) if save == "dcp" else torch.save(tree, path)
    ours = build(**OTHER)
    location = checkpoint.load(ours, path)
    assert str(location).endswith(f"key {key!r} (OptimizerParamScheduler)")
    unknown = {row.name for row in ours.last_reconciliation.rows if row.checkpoint is None}
    assert {"init_lr", "unit"} <= unknown
    assert_go_on_the_same(theirs, ours)


def test_a_megatron_checkpoint_with_old_names_loads(tmp_path, megatron):
    theirs = megatron(adamw(), **CONFIG)
    theirs.step(42)
    old = {OLD.get(key, key): value for key, value in theirs.state_dict().items()}
    folder = tmp_path / "iter_0000042" / "mp_rank_00"
    folder.mkdir(parents=True)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("42")
    torch.save({"iteration": 42, "lr_scheduler": old}, folder / "model_optim_rng.pt")
    ours = build(**OTHER)
    checkpoint.load(ours, tmp_path)
    assert_go_on_the_same(theirs, ours)


@pytest.mark.usefixtures("_alone")
def test_common_pt_of_megatrons_distributed_checkpoints_loads(tmp_path, megatron):
    from megatron.core.dist_checkpointing.core import CheckpointingConfig, save_config
    from megatron.core.dist_checkpointing.strategies.common import TorchCommonSaveStrategy
    from megatron.core.enums import ModelType
    from megatron.core.transformer.enums import AttnBackend

    theirs = megatron(adamw(), **CONFIG)
    theirs.step(42)
    arguments = argparse.Namespace(
        params_dtype=torch.bfloat16,
        model_type=ModelType.encoder_or_decoder,
        attention_backend=AttnBackend.auto,
        lr=1.0,
    )
    for iteration in (41, 42, 43):
        (tmp_path / f"iter_{iteration:07d}").mkdir()
        TorchCommonSaveStrategy("torch", 1).save_common(
            {
                "args": arguments,
                "checkpoint_version": 3.0,
                "iteration": iteration,
                "opt_param_scheduler": {**theirs.state_dict(), "num_steps": iteration},
            },
            tmp_path / f"iter_{iteration:07d}",
        )
        if iteration < 43:  # the last one was interrupted
            save_config(
                CheckpointingConfig("torch_dist", 1), str(tmp_path / f"iter_{iteration:07d}")
            )
    ours = build(**OTHER)
    location = checkpoint.load(ours, tmp_path)
    assert str(tmp_path / "iter_0000042" / "common.pt") == location.path
    assert_go_on_the_same(theirs, ours)


def test_the_layout_of_nemo_automodel_loads(tmp_path, nemo):
    theirs = nemo(adamw(), **CONFIG)
    theirs.step(42)
    folder = tmp_path / "epoch_0_step_42"
    dcp.save({"model": {"w": torch.zeros(2)}}, checkpoint_id=folder / "model")
    dcp.save({"optim": {"step": 42}, "sched": theirs.state_dict()}, checkpoint_id=folder / "optim")
    ours = build(**OTHER)
    assert "sched" == checkpoint.load(ours, tmp_path).key
    assert_go_on_the_same(theirs, ours)


def step_both(ours, theirs):
    """Take a step, because Megatron's load leaves the script's weight decay until then."""
    ours.step(1)
    theirs.step(1)


@pytest.fixture
def ours():
    scheduler = build()
    scheduler.step(42)
    return scheduler


def test_our_folder_loads_unchanged_upstream(tmp_path, upstream, ours):
    dcp.save({"sched": ours}, checkpoint_id=tmp_path / "a")
    theirs = upstream(adamw(), **{**CONFIG, **OTHER})
    state = {"sched": theirs.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path / "a")
    theirs.load_state_dict(state["sched"])
    step_both(ours, theirs)
    assert_go_on_the_same(ours, theirs)


def test_our_file_loads_unchanged_upstream(tmp_path, upstream, ours):
    torch.save({"opt_param_scheduler": ours.state_dict()}, tmp_path / "a.pt")
    theirs = upstream(adamw(), **{**CONFIG, **OTHER})
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    theirs.load_state_dict(loaded["opt_param_scheduler"])
    step_both(ours, theirs)
    assert_go_on_the_same(ours, theirs)


def test_an_export_is_what_upstream_saves(upstream, ours):
    theirs = upstream(adamw(), **CONFIG)
    theirs.step(42)
    assert theirs.state_dict() == checkpoint.to_megatron_state(ours.state_dict())


def test_an_old_state_is_exported_under_new_names(theirs):
    old = {OLD.get(key, key): value for key, value in theirs.state_dict().items()}
    assert theirs.state_dict() == checkpoint.to_megatron_state(old)


def test_a_partial_dcp_load_of_an_upstream_folder_takes_its_values(tmp_path, theirs, caplog):
    dcp.save({"scheduler": theirs.state_dict()}, checkpoint_id=tmp_path / "a")
    ours = build(**OTHER)
    planner = DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"scheduler": ours}, checkpoint_id=tmp_path / "a", planner=planner)
    assert "has no text" in caplog.text
    assert_go_on_the_same(theirs, ours)


def test_a_partial_dcp_load_of_a_folder_without_a_scheduler_warns(tmp_path, caplog):
    dcp.save({"model": torch.zeros(2)}, checkpoint_id=tmp_path / "a")
    ours = build()
    planner = DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"scheduler": ours}, checkpoint_id=tmp_path / "a", planner=planner)
    assert 0 == ours.num_steps
    assert "perhaps nothing was read" in caplog.text


def test_a_plain_dcp_load_of_an_upstream_folder_is_dcps_own_exception(tmp_path, theirs):
    dcp.save({"scheduler": theirs.state_dict()}, checkpoint_id=tmp_path / "a")
    ours = build()
    with pytest.raises(CheckpointException, match="Missing key"):
        dcp.load({"scheduler": ours}, checkpoint_id=tmp_path / "a")
    assert 0 == ours.num_steps
