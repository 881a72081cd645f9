"""Checkpoints pass between the seeds and us in both directions."""

from __future__ import annotations

import pytest
import torch

from dist_sched import OptimizerParamScheduler, StateError

CONFIG = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "cosine",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}
OTHER = {**CONFIG, "max_lr": 0.5, "lr_decay_steps": 500, "end_wd": 0.9}


def optimizer():
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, weight_decay=0.1)


def values(scheduler):
    return [(g["lr"], g["weight_decay"]) for g in scheduler.optimizer.param_groups]


def test_our_state_loads_in_a_seed_and_goes_on_the_same(seed):
    ours = OptimizerParamScheduler(optimizer(), **CONFIG)
    ours.step(42)
    theirs = seed(optimizer(), **OTHER)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(100):
        theirs.step(1)
        ours.step(1)
        assert values(theirs) == values(ours)


def test_a_seeds_state_loads_in_ours_and_goes_on_the_same(seed):
    theirs = seed(optimizer(), **CONFIG)
    theirs.step(42)
    ours = OptimizerParamScheduler(optimizer(), **OTHER)
    ours.load_state_dict(theirs.state_dict())
    assert values(theirs) == values(ours)
    for _ in range(100):
        theirs.step(1)
        ours.step(1)
        assert values(theirs) == values(ours)


def test_our_first_ten_keys_are_the_seeds_state(seed):
    theirs, ours = (cls(optimizer(), **CONFIG) for cls in (seed, OptimizerParamScheduler))
    theirs.step(7)
    ours.step(7)
    state = ours.state_dict()
    del state["dist_sched"]
    assert theirs.state_dict() == state


OLD = {
    "max_lr": "start_lr",
    "lr_warmup_steps": "warmup_iter",
    "lr_decay_steps": "end_iter",
    "lr_decay_style": "decay_style",
    "num_steps": "num_iters",
}


@pytest.mark.parametrize(
    "also", [{}, {"lr_warmup_steps": "warmup_steps"}, {"lr_decay_steps": "decay_steps"}]
)
def test_a_state_under_old_names_loads_as_in_the_seeds(seed, also):
    theirs = seed(optimizer(), **CONFIG)
    theirs.step(42)
    renamed = {{**OLD, **also}.get(key, key): value for key, value in theirs.state_dict().items()}
    fresh, ours = (cls(optimizer(), **OTHER) for cls in (seed, OptimizerParamScheduler))
    fresh.load_state_dict(renamed)
    ours.load_state_dict(renamed)
    assert 42 == fresh.num_steps == ours.num_steps
    assert (1.0, 10, 110, "cosine") == (
        ours.max_lr,
        ours.lr_warmup_steps,
        ours.lr_decay_steps,
        ours.lr_decay_style,
    )
    assert fresh.get_lr({}) == ours.get_lr({})


def test_an_old_name_beside_a_new_one_that_differs_is_refused(seed):
    theirs = seed(optimizer(), **CONFIG)
    ours = OptimizerParamScheduler(optimizer(), **OTHER)
    with pytest.raises(StateError, match="start_lr"):
        ours.load_state_dict({**theirs.state_dict(), "start_lr": 0.25})


def test_a_seeds_state_without_weight_decay_takes_it_from_the_config(seed):
    state = seed(optimizer(), **CONFIG).state_dict()
    for key in ("start_wd", "end_wd", "wd_incr_steps", "wd_incr_style"):
        del state[key]
    ours = OptimizerParamScheduler(optimizer(), **OTHER)
    ours.load_state_dict(state)
    assert (1.0, 0.9) == (ours.max_lr, ours.end_wd)


@pytest.mark.parametrize("key", ["max_lr", "min_lr", "lr_decay_style", "num_steps", "end_wd"])
def test_a_seeds_state_that_lacks_another_key_is_refused_by_its_name(seed, key):
    state = seed(optimizer(), **CONFIG).state_dict()
    del state[key]
    ours = OptimizerParamScheduler(optimizer(), **OTHER)
    with pytest.raises(StateError, match=key):
        ours.load_state_dict(state)


def test_a_foreign_state_says_so_because_its_unit_is_unknown(seed, caplog):
    ours = OptimizerParamScheduler(optimizer(), **CONFIG)
    ours.load_state_dict(seed(optimizer(), **CONFIG).state_dict())
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    assert "foreign" in record.message
    assert "samples" in record.message
    assert "init_lr" in record.message
