"""Cases of `verify` and `synchronize`: ranks that differ are named, then made equal."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import torch
from cases import (
    LOG,
    POSITION,
    adamw,
    attempt,
    build,
    case,
    cases,
    param_groups,
    pipeline_stage,
    timed,
)

from dist_sched import RankMismatchError


def with_changes(**other):
    def make(ranks):
        scheduler = build(ranks, **(other if ranks.is_another else {}))
        scheduler.seek(POSITION)
        return scheduler

    return make


def with_group(**written):
    """Two groups, of which the second has values that were written by hand."""

    def make(ranks):
        scheduler = build(ranks, adamw(ranks, {}, {"lr": 0.5}))
        scheduler.seek(POSITION)
        if ranks.is_another:
            param_groups(scheduler)[1].update(copy.deepcopy(written))
        return scheduler

    return make


def with_other_references(ranks):
    lr = 0.5 if ranks.is_another else 1.0
    scheduler = build(ranks, adamw(ranks, {"lr": lr}, {"lr": 0.25}))
    scheduler.seek(POSITION)
    return scheduler


def with_another_position(ranks):
    scheduler = build(ranks)
    scheduler.seek(5 if ranks.is_another else POSITION)
    return scheduler


def with_another_inner_optimizer(ranks):
    inner = adamw(ranks)
    wrapper = SimpleNamespace(optimizer=inner, param_groups=inner.param_groups)
    scheduler = build(ranks, wrapper)
    scheduler.seek(POSITION)
    if ranks.is_another:
        wrapper.optimizer = torch.optim.SGD(inner.param_groups[0]["params"], lr=0.125)
    return scheduler


@cases(
    "verify_with",
    {
        "another_config": with_changes(max_lr=0.5, lr_decay_style="cosine"),
        "another_position": with_another_position,
        "another_unit": with_changes(unit="tokens"),
        "another_policy": with_changes(policy="strict"),
        "another_rule_for_ratios": with_changes(keep_group_ratios=False),
        "another_first_group": with_other_references,
        "an_lr_written_by_hand": with_group(lr=0.75),
        "an_lr_of_nan": with_group(lr=math.nan),
        "an_lr_of_text": with_group(lr="0.25"),
        "an_lr_tensor_written_by_hand": with_group(lr=torch.tensor(0.75)),
        "a_weight_decay_written_by_hand": with_group(weight_decay=0.75),
        "another_inner_optimizer": with_another_inner_optimizer,
    },
)
def verify_with(ranks, fault):
    scheduler = fault(ranks)
    for action in (scheduler.verify, scheduler.synchronize, scheduler.verify):
        record = timed(action)
        ended = {"ended": agreed(scheduler)} if "error" not in record["ended"] else {}
        yield {**record, **ended, "log": LOG.take()}


def agreed(scheduler):
    """Return what is equal on all ranks after `synchronize`, whatever groups they have."""
    return {"state": scheduler.state_dict(), "config": scheduler.to_config()}


@case
def verify_with_an_illegal_multiplier(ranks):
    scheduler = with_group(lr_mult=-1.0)(ranks)
    yield attempt(scheduler, scheduler.verify)


@case
def verify_reports_what_each_rank_had(ranks):
    scheduler = build(ranks, max_lr=2.0**ranks.rank)
    try:
        scheduler.verify()
    except RankMismatchError as error:
        yield {"ended": {rank: had["max_lr"] for rank, had in error.ranks.items()}}


@case
def pipeline_stages_synchronize(ranks):
    scheduler = build(ranks, pipeline_stage(ranks))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.verify)
    yield attempt(scheduler, scheduler.seek, POSITION)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def another_stage_has_no_decay_groups_alone(ranks):
    wds = [0.0] if ranks.is_another else [0.5, 1.0, 0.0]
    scheduler = build(ranks, adamw(ranks, *({"weight_decay": wd} for wd in wds)))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def the_first_stage_has_no_decay_groups_alone(ranks):
    wds = [0.0] if ranks.is_first else [0.5, 1.0, 0.0]
    scheduler = build(ranks, adamw(ranks, *({"weight_decay": wd} for wd in wds)))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def the_first_stage_has_no_groups(ranks):
    stage = SimpleNamespace(param_groups=[]) if ranks.is_first else pipeline_stage(ranks)
    scheduler = build(ranks, stage)
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.verify)
    yield attempt(scheduler, scheduler.synchronize)
