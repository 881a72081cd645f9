"""States load in upstream's classes and in ours, whichever of them saved."""

from __future__ import annotations

import pytest

from dist_sched import OptimizerParamScheduler, StateError
from helpers import CONFIG as LINEAR
from helpers import adamw, held

CONFIG = {**LINEAR, "lr_decay_style": "cosine"}
OTHER = {**CONFIG, "max_lr": 0.5, "lr_decay_steps": 500, "end_wd": 0.9}


def values(scheduler):
    return held(scheduler), held(scheduler, "weight_decay")


def test_our_state_loads_upstream_and_goes_on_the_same(upstream):
    ours = OptimizerParamScheduler(adamw(), **CONFIG)
    ours.step(42)
    theirs = upstream(adamw(), **OTHER)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(100):
        theirs.step(1)
        ours.step(1)
        assert values(theirs) == values(ours)


def test_an_upstream_state_loads_in_ours_and_goes_on_the_same(upstream):
    theirs = upstream(adamw(), **CONFIG)
    theirs.step(42)
    ours = OptimizerParamScheduler(adamw(), **OTHER)
    ours.load_state_dict(theirs.state_dict())
    assert values(theirs) == values(ours)
    for _ in range(100):
        theirs.step(1)
        ours.step(1)
        assert values(theirs) == values(ours)


def test_our_first_ten_keys_are_upstreams_state(upstream):
    theirs, ours = (cls(adamw(), **CONFIG) for cls in (upstream, OptimizerParamScheduler))
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
def test_a_state_under_old_names_loads_as_upstream(upstream, also):
    theirs = upstream(adamw(), **CONFIG)
    theirs.step(42)
    renamed = {{**OLD, **also}.get(key, key): value for key, value in theirs.state_dict().items()}
    fresh, ours = (cls(adamw(), **OTHER) for cls in (upstream, OptimizerParamScheduler))
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


def test_an_old_name_beside_a_new_one_that_differs_is_refused(upstream):
    theirs = upstream(adamw(), **CONFIG)
    ours = OptimizerParamScheduler(adamw(), **OTHER)
    with pytest.raises(StateError, match="start_lr"):
        ours.load_state_dict({**theirs.state_dict(), "start_lr": 0.25})


def test_an_upstream_state_without_weight_decay_takes_it_from_the_config(upstream):
    state = upstream(adamw(), **CONFIG).state_dict()
    for key in ("start_wd", "end_wd", "wd_incr_steps", "wd_incr_style"):
        del state[key]
    ours = OptimizerParamScheduler(adamw(), **OTHER)
    ours.load_state_dict(state)
    assert (1.0, 0.9) == (ours.max_lr, ours.end_wd)


@pytest.mark.parametrize("key", ["max_lr", "min_lr", "lr_decay_style", "num_steps", "end_wd"])
def test_an_upstream_state_that_lacks_another_key_is_refused_by_its_name(upstream, key):
    state = upstream(adamw(), **CONFIG).state_dict()
    del state[key]
    ours = OptimizerParamScheduler(adamw(), **OTHER)
    with pytest.raises(StateError, match=key):
        ours.load_state_dict(state)


def test_a_foreign_state_says_so_because_its_unit_is_unknown(upstream, caplog):
    ours = OptimizerParamScheduler(adamw(), **CONFIG)
    ours.load_state_dict(upstream(adamw(), **CONFIG).state_dict())
    (record,) = caplog.records
    assert "WARNING" == record.levelname
    assert "Megatron-LM or NeMo" in record.message
    assert "samples" in record.message
    assert "init_lr" in record.message
