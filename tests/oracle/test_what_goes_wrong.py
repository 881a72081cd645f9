"""The cells of README's table for torch, HF and Megatron: each is measured on the real package.

A warning fails a test, so a peer that passes here gave none. Those of torchtitan are in
tests/frameworks/test_torchtitan_scheduler.py.
"""

from __future__ import annotations

import logging
import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from torch.utils.data import DataLoader, DistributedSampler
from transformers import get_cosine_schedule_with_warmup, get_scheduler

from dist_sched import ConfigError, OptimizerParamScheduler, ParamScheduler, schedules
from helpers import CONFIG, adamw, held
from peers_table import EDITED, HORIZON, SAVED_AT, WARMUP, cell, ours, resumed, update

EDIT = "Resume with a longer horizon"
LEFT_OUT = "Optimizer restored, scheduler not"
TWICE = "Checkpoint loaded twice"
RANKS = "Ranks resume with different configs"
PROCESSES = "Resume on another number of processes"
PAST = "Past the end of a decay"
NO_DECAY = "Weight decay of a no-decay group"
STYLE = "Misspelt decay style"
LOGGED = "Lr logged after an edited resume"


def torchs(optimizer, horizon=HORIZON):
    def factor(step):
        if step < WARMUP:
            return step / WARMUP
        return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (horizon - WARMUP)))

    return LambdaLR(optimizer, factor)


def hfs(optimizer, horizon=HORIZON):
    return get_cosine_schedule_with_warmup(optimizer, WARMUP, horizon)


def build_megatron(cls, optimizer, horizon, **changes):
    entries = {"min_lr": 0.0, "lr_decay_style": "cosine", "lr_decay_steps": horizon}
    scheduler = cls(optimizer, **{**CONFIG, **entries, **changes})
    step = scheduler.step
    scheduler.step = lambda increment=1: step(increment)
    return scheduler


@pytest.fixture
def megatrons(megatron):
    """Return a function that builds Megatron's scheduler with its default policy."""
    return lambda optimizer, horizon=HORIZON: build_megatron(megatron, optimizer, horizon)


@pytest.fixture
def overriding(megatron):
    """Return a function that builds Megatron's scheduler with --override-opt-param-scheduler."""
    words = {
        "use_checkpoint_opt_param_scheduler": False,
        "override_opt_param_scheduler": True,
    }
    return lambda optimizer, horizon: build_megatron(megatron, optimizer, horizon, **words)


@pytest.fixture
def is_silent(caplog, capsys):
    """Return a function that says whether nothing was logged or printed."""
    caplog.set_level(logging.DEBUG)
    return lambda: ("", "", "") == (caplog.text, *capsys.readouterr())


by_torch_and_hf = pytest.mark.parametrize("build", [torchs, hfs], ids=["torch", "HF"])
OLD, NEW = (schedules.cosine(1.0, horizon, warmup=WARMUP) for horizon in (HORIZON, EDITED))


@cell(EDIT, "torch", "lr × 2, nothing logged")
@cell(EDIT, "HF", "lr × 2, nothing logged")
@by_torch_and_hf
def test_an_edited_horizon_moves_lr_one_update_after_the_resume(build, is_silent):
    scheduler = resumed(build)
    used = [update(scheduler) for _ in range(2)]
    assert pytest.approx([OLD(60), NEW(61)]) == used
    assert pytest.approx(2.0, abs=0.1) == used[1] / used[0]
    assert is_silent()


@cell(EDIT, "Megatron", "edit ignored; override: lr × 2, not logged")
def test_megatron_ignores_an_edited_horizon_or_moves_lr(megatrons, overriding, caplog):
    caplog.set_level(logging.DEBUG)
    ignoring, moved = resumed(megatrons), resumed(overriding)
    assert pytest.approx([OLD(60)]) == held(ignoring)
    assert pytest.approx([NEW(60)]) == held(moved)
    assert pytest.approx(2.03, abs=0.01) == NEW(60) / OLD(60)
    assert not {"0.413", "0.838"} & {word[:5] for word in caplog.text.split()}
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


@cell(EDIT, "dist_sched", "lr goes on; edit and policy logged")
def test_our_log_names_an_edited_horizon_and_lr_goes_on(caplog):
    scheduler = resumed(ours)
    assert [OLD(60), OLD(61)] == [update(scheduler) for _ in range(2)]
    assert "lr.phases[1].steps: checkpoint 90, config 190; using checkpoint" in caplog.text
    assert 'policy={"lr.phases[1].steps": "config", "*": "checkpoint"}' in caplog.text


@cell(LEFT_OUT, "torch", "warmup replays silently")
@cell(LEFT_OUT, "HF", "warmup replays silently")
@by_torch_and_hf
def test_warmup_replays_without_the_schedulers_state(build, is_silent):
    scheduler = resumed(build, edited=HORIZON, scheduler_is_loaded=False)
    assert pytest.approx([OLD(60), 0.1, 0.2]) == [update(scheduler) for _ in range(3)]
    assert is_silent()


@cell(LEFT_OUT, "Megatron", "warmup replays silently")
def test_megatrons_warmup_replays_without_the_schedulers_state(megatrons, caplog):
    scheduler = resumed(megatrons, edited=HORIZON, scheduler_is_loaded=False)
    caplog.clear()
    assert pytest.approx([OLD(60), 0.1, 0.2]) == [update(scheduler) for _ in range(3)]
    assert "" == caplog.text


@cell(LEFT_OUT, "dist_sched", "a warning at the first update")
def test_we_warn_at_the_first_update_without_the_schedulers_state(caplog):
    update(resumed(ours, edited=HORIZON, scheduler_is_loaded=False))
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    assert "the optimizer was loaded and the scheduler was not" in record.message


@cell(TWICE, "torch", "fine")
@cell(TWICE, "HF", "fine")
@cell(TWICE, "dist_sched", "fine")
@pytest.mark.parametrize("build", [torchs, hfs, ours], ids=["torch", "HF", "ours"])
def test_a_second_load_changes_nothing(build):
    once, twice = (resumed(build, edited=HORIZON, loads=loads) for loads in (1, 2))
    assert [update(once) for _ in range(3)] == [update(twice) for _ in range(3)]


@cell(TWICE, "Megatron", "position doubles")
def test_a_second_load_doubles_megatrons_position(megatrons):
    assert 2 * SAVED_AT == resumed(megatrons, loads=2).num_steps


@cell(RANKS, "torch", "each rank its own lr, silently")
@cell(RANKS, "HF", "each rank its own lr, silently")
@by_torch_and_hf
def test_ranks_with_different_configs_use_different_lr(build, is_silent):
    """Nothing is communicated, so two schedulers of one process do what two ranks do."""
    first, second = (resumed(build, edited=horizon) for horizon in (HORIZON, EDITED))
    used = [[update(scheduler) for _ in range(2)][1] for scheduler in (first, second)]
    assert pytest.approx([OLD(61), NEW(61)]) == used
    assert is_silent()


@cell(RANKS, "Megatron", "fine; override: each rank its own lr")
def test_megatrons_ranks_follow_the_checkpoint_or_their_own_config(megatrons, overriding):
    assert held(resumed(megatrons, edited=HORIZON)) == held(resumed(megatrons, edited=EDITED))
    used = [held(resumed(overriding, edited=horizon)) for horizon in (HORIZON, EDITED)]
    assert [pytest.approx([OLD(60)]), pytest.approx([NEW(60)])] == used


@pytest.fixture
def accelerate_on(monkeypatch):
    """Return a function that makes `updates` as accelerate does on a number of processes."""

    def run(scheduler, processes, updates):
        monkeypatch.setitem(PartialState._shared_state, "num_processes", processes)
        optimizer, prepared = accelerator.prepare(scheduler.optimizer, scheduler)
        return [update(prepared, optimizer) for _ in range(updates)]

    accelerator = Accelerator(cpu=True)
    yield run
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@cell(PROCESSES, "HF", "accelerate: lr jumps, nothing logged")
def test_accelerates_lr_moves_on_another_number_of_processes(accelerate_on, is_silent):
    """Its schedulers are stepped once for each process, so scripts multiply their horizon."""
    first = get_scheduler("linear", adamw(), 0, 2 * HORIZON)
    before = accelerate_on(first, 2, SAVED_AT)
    second = get_scheduler("linear", adamw(), 0, 3 * HORIZON)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    after = accelerate_on(second, 3, 2)
    assert pytest.approx([1.0, 0.41]) == [before[0], before[-1]]
    assert pytest.approx([0.4, 0.59]) == after
    assert is_silent()


def horizon_of_loader(processes):
    data = torch.zeros(100 * HORIZON)
    sampler = DistributedSampler(data, num_replicas=processes, rank=0)
    return len(DataLoader(data, batch_size=50, sampler=sampler))


@cell(PROCESSES, "torch", "`len(loader)` as horizon: lr jumps")
def test_torchs_lr_moves_where_the_loader_says_the_horizon(is_silent):
    assert (100, 67) == (horizon_of_loader(2), horizon_of_loader(3))
    scheduler = resumed(torchs, edited=horizon_of_loader(3))
    assert pytest.approx([0.41, 0.03], abs=0.01) == [update(scheduler) for _ in range(2)]
    assert is_silent()


@cell(PROCESSES, "dist_sched", "lr goes on")
def test_our_lr_goes_on_where_the_loader_says_the_horizon():
    scheduler = resumed(ours, edited=horizon_of_loader(3))
    assert [OLD(60), OLD(61)] == [update(scheduler) for _ in range(2)]


@cell(PROCESSES, "Megatron", "fine: it counts samples")
def test_megatron_counts_what_it_is_given(megatrons):
    by_samples = []
    for processes in (2, 3):
        scheduler = megatrons(adamw(), 6_000)
        for _ in range(60 // processes):
            scheduler.step(10 * processes)
        by_samples.append(held(scheduler))
    assert by_samples[0] == by_samples[1]


def past_the_end(scheduler):
    return [update(scheduler) for _ in range(151)][-1]


@cell(PAST, "torch", "cosine climbs back")
def test_torchs_cosine_climbs_back():
    assert pytest.approx(0.5) == past_the_end(CosineAnnealingLR(adamw(), T_max=HORIZON))


@cell(PAST, "HF", "cosine climbs back")
def test_hfs_cosine_climbs_back():
    assert pytest.approx(0.5) == past_the_end(get_cosine_schedule_with_warmup(adamw(), 0, 100))


@cell(PAST, "Megatron", "inverse square root drops to `min_lr`")
def test_megatrons_inverse_square_root_drops(megatron):
    style = {"lr_decay_style": "inverse-square-root"}
    scheduler = build_megatron(megatron, adamw(), HORIZON, **style)
    used = [update(scheduler) for _ in range(HORIZON + 2)]
    assert pytest.approx([0.316, 0.0], abs=1e-3) == used[-2:]


@cell(PAST, "dist_sched", "holds its last value")
@pytest.mark.parametrize("schedule", [schedules.cosine, schedules.linear, schedules.inverse_sqrt])
def test_our_schedules_hold_their_last_value(schedule):
    scheduler = ParamScheduler(adamw(), {"lr": schedule(1.0, HORIZON, warmup=WARMUP)})
    used = [update(scheduler) for _ in range(151)]
    assert [used[HORIZON]] * 51 == used[HORIZON:]


def groups():
    return adamw({}, {"weight_decay": 0.0})


@cell(NO_DECAY, "torch", "no schedule for weight decay")
@cell(NO_DECAY, "HF", "no schedule for weight decay")
@by_torch_and_hf
def test_torchs_schedulers_leave_weight_decay_alone(build):
    scheduler = build(groups())
    for _ in range(SAVED_AT):
        scheduler.optimizer.step()
        scheduler.step()
    assert [0.1, 0.0] == held(scheduler, "weight_decay")


@cell(NO_DECAY, "Megatron", "0 becomes 0.05 without `wd_mult`")
def test_megatron_gives_decay_to_a_group_of_0(megatron):
    scheduler = megatron(groups(), **CONFIG)
    scheduler.step(50)
    assert [0.05, 0.05] == held(scheduler, "weight_decay")


@cell(NO_DECAY, "dist_sched", "stays 0")
def test_we_keep_a_group_of_0():
    scheduler = OptimizerParamScheduler(groups(), **CONFIG)
    scheduler.step(50)
    assert [0.05, 0.0] == held(scheduler, "weight_decay")


@cell(STYLE, "HF", "refused at the start")
def test_hf_refuses_an_unknown_style():
    with pytest.raises(ValueError, match="not a valid SchedulerType"):
        get_scheduler("cosinus", adamw(), WARMUP, HORIZON)


@cell(STYLE, "Megatron", "error after the warmup")
def test_megatron_refuses_an_unknown_style_after_the_warmup(megatron):
    scheduler = build_megatron(megatron, adamw(), HORIZON, lr_decay_style="cosinus")
    for _ in range(WARMUP):
        update(scheduler)
    with pytest.raises(Exception, match="cosinus decay style is not supported"):
        update(scheduler)


@cell(STYLE, "dist_sched", "refused at the start, with a hint")
def test_we_refuse_an_unknown_style():
    with pytest.raises(ConfigError, match=r"did you mean 'cosine'"):
        OptimizerParamScheduler(adamw(), **{**CONFIG, "lr_decay_style": "cosinus"})


@cell(LOGGED, "torch", "fine")
@cell(LOGGED, "HF", "fine")
@by_torch_and_hf
def test_get_last_lr_is_what_the_first_update_uses(build):
    scheduler = resumed(build)
    (logged,) = scheduler.get_last_lr()
    assert logged == update(scheduler)


@cell(LOGGED, "Megatron", "fine")
def test_megatron_logs_what_the_group_holds(overriding):
    scheduler = resumed(overriding)
    assert scheduler.get_lr({}) == update(scheduler)


@cell(LOGGED, "dist_sched", "fine")
def test_our_metrics_are_what_the_first_update_used():
    scheduler = resumed(ours)
    used = update(scheduler)
    assert {"lr/0": used} == scheduler.metrics()
