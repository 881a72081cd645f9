"""Cases of loads: states and ranks with a fault, and what the first rank refuses."""

from __future__ import annotations

import io
import json
import math

import torch
import torch.distributed.checkpoint as dcp
from cases import (
    POSITION,
    adamw,
    attempt,
    build,
    case,
    cases,
    load,
    param_groups,
    pipeline_stage,
    saved_state,
)

from dist_sched import ReconcileError

# Ranks that differ before a load


@case
def another_rank_has_another_config(ranks):
    scheduler = build(ranks, policy="config", max_lr=0.5 if ranks.is_another else 1.0)
    yield load(scheduler, saved_state(ranks, max_lr=0.25))


@case
def another_rank_has_another_position(ranks):
    scheduler = build(ranks)
    scheduler.seek(5 if ranks.is_another else 3)
    yield load(scheduler, saved_state(ranks))


@case
def another_rank_has_another_policy_and_unit(ranks):
    other = {"policy": "strict", "unit": "tokens"}
    scheduler = build(ranks, **(other if ranks.is_another else {"policy": "config"}))
    yield load(scheduler, saved_state(ranks, max_lr=0.25))


@case
def another_rank_has_a_tensor_lr(ranks):
    lr = torch.tensor(1.0, device=ranks.device) if ranks.is_another else 1.0
    yield load(build(ranks, adamw(ranks, lr=lr)), saved_state(ranks))


@case
def ranks_have_different_numbers_of_groups_and_optimizers(ranks):
    stage = [{}] * (ranks.rank + 1)
    optimizers = [adamw(ranks, *stage) for _ in range(ranks.rank + 1)]
    yield load(build(ranks, optimizers), saved_state(ranks))


@case
def pipeline_stages_load(ranks):
    scheduler = build(ranks, pipeline_stage(ranks))
    yield load(scheduler, saved_state(ranks))
    yield attempt(scheduler, scheduler.verify)


# States that not every rank has


class Unreadable(dict):
    """A state that raises when it is read, and an error that cannot be pickled."""

    def __bool__(self):
        class UnreadableError(Exception):
            """Local to a function, which pickle refuses."""

        raise UnreadableError("the disk is gone")


@cases(
    "the_state_of_another_rank_is",
    {
        "empty": {},
        "none": None,
        "garbage": "garbage",
        "foreign": {"num_steps": 1, "max_lr": math.nan},
        "unreadable": Unreadable(),
    },
)
def the_state_of_another_rank(ranks, fault):
    yield load(build(ranks), fault if ranks.is_another else saved_state(ranks))


@case
def only_the_first_rank_has_read_the_state(ranks):
    file = io.BytesIO()
    torch.save(saved_state(ranks), file)
    file.seek(0)
    state = torch.load(file, weights_only=True) if ranks.is_first else {}
    yield load(build(ranks), state)


# States of the first rank


def changed(**keys):
    return lambda state: {**state, **keys}


def without(*names):
    return lambda state: {key: value for key, value in state.items() if key not in names}


def in_text(**parts):
    return lambda state: {
        **state,
        "dist_sched": json.dumps({**json.loads(state["dist_sched"]), **parts}),
    }


def in_text_config(**entries):
    def damage(state):
        config = json.loads(state["dist_sched"])["config"]
        return in_text(config={**config, **entries})(state)

    return damage


@cases(
    "the_first_ranks_state",
    {
        "is_empty": lambda _: {},
        "is_none": lambda _: None,
        "is_a_list": list,
        "is_unreadable": Unreadable,
        "lacks_a_key": without("max_lr"),
        "lacks_its_position": without("num_steps"),
        "lacks_all_but_its_text": lambda state: {"dist_sched": state["dist_sched"]},
        "has_a_string_for_a_number": changed(max_lr="1.0"),
        "has_a_number_for_a_style": changed(lr_decay_style=3),
        "has_a_fraction_for_a_position": changed(num_steps=72.5),
        "has_a_bool_for_a_position": changed(num_steps=True),
        "has_a_tensor_of_two": changed(max_lr=torch.ones(2)),
        "has_a_tensor_without_data": changed(max_lr=torch.ones((), device="meta")),
        "has_nan": changed(max_lr=math.nan),
        "has_infinity": changed(lr_decay_steps=math.inf),
        "has_a_negative_position": changed(num_steps=-1),
        "has_a_negative_rate": changed(min_lr=-0.5),
        "has_a_huge_position": changed(num_steps=2**53 + 1),
        "has_a_huge_length": changed(wd_incr_steps=1e300),
        "has_a_huge_rate": changed(max_lr=10**400),
        "has_a_position_of_5000_digits": changed(num_steps=10**4999),
        "contradicts_itself": changed(start_lr=0.25),
        "has_a_text_that_is_garbage": changed(dist_sched="garbage"),
        "has_a_text_that_is_a_number": changed(dist_sched=1),
        "has_a_text_too_deep": changed(dist_sched="[" * 1_000_000),
        "has_nan_in_its_text": in_text_config(max_lr=math.nan),
        "has_a_wrong_type_in_its_text": in_text_config(max_lr="1.0"),
        "has_a_negative_position_in_its_text": in_text(position=-1),
        "has_an_unknown_entry_in_its_text": in_text_config(cooldown=8),
        "has_an_unknown_unit_in_its_text": in_text(unit="epochs"),
        "has_an_illegal_late_change_in_its_text": in_text(lineage=[{"cooldown": 8}]),
        "is_of_a_newer_version": in_text(version=3),
        "is_of_no_version": in_text(version=0),
    },
)
def the_first_ranks_state(ranks, fault):
    scheduler = build(ranks)
    yield load(scheduler, fault(saved_state(ranks)) if ranks.is_first else saved_state(ranks))


@case
def a_good_load_follows_a_refused_one(ranks):
    scheduler = build(ranks)
    yield load(scheduler, {} if ranks.is_first else saved_state(ranks))
    yield load(scheduler, saved_state(ranks))
    yield load(scheduler, saved_state(ranks, 0, max_lr=0.5), expected_position=1)


@case
def a_torn_state(ranks):
    yield load(build(ranks), {**saved_state(ranks), "max_lr": 0.25, "num_steps": 71})


@case
def a_state_beside_a_thousand_tensors(ranks):
    model = {f"layer {index}": torch.ones(1) for index in range(1000)} if ranks.is_first else {}
    yield load(build(ranks), {**saved_state(ranks), **model})


@case
def a_state_of_scalars_of_another_library(ranks):
    scalars = {"num_steps": torch.tensor(POSITION), "max_lr": torch.tensor(1.0)}
    yield load(build(ranks), {**saved_state(ranks), **scalars})


@case
def ranks_that_disagreed_saved(ranks):
    scheduler = build(ranks, max_lr=2.0**-ranks.rank)
    scheduler.seek(POSITION + ranks.rank)
    options = {
        "checkpoint_id": ranks.folder / str(ranks.ranks[0]),
        "process_group": ranks.group,
    }
    dcp.save({"scheduler": scheduler}, **options)
    fresh = build(ranks)
    yield attempt(fresh, dcp.load, {"scheduler": fresh}, **options)


# Loads that the first rank refuses


@case
def strict_and_different(ranks):
    other = {"max_lr": 0.5, "lr_decay_steps": 200, "end_wd": 0.25}
    yield load(build(ranks, policy="strict"), saved_state(ranks, **other))


@case
def strict_on_the_first_rank_alone(ranks):
    scheduler = build(ranks, policy="strict" if ranks.is_first else "checkpoint")
    yield load(scheduler, saved_state(ranks, max_lr=0.5) if ranks.is_first else {})


@case
def the_outcome_is_no_legal_config(ranks):
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    yield load(
        build(ranks, policy=policy, lr_decay_steps=32), saved_state(ranks, lr_warmup_steps=64)
    )


@case
def the_units_differ(ranks):
    yield load(build(ranks, unit="samples"), saved_state(ranks))


@case
def the_position_is_not_the_trainers(ranks):
    expected = 71 if ranks.is_first else POSITION
    yield load(build(ranks), saved_state(ranks), expected_position=expected)


@case
def the_trainers_position_is_no_number(ranks):
    expected = "seventy-two" if ranks.is_first else POSITION
    yield load(build(ranks), saved_state(ranks), expected_position=expected)


@case
def the_first_rank_has_an_illegal_group(ranks):
    scheduler = build(ranks)
    if ranks.is_first:
        param_groups(scheduler)[0]["lr_mult"] = -1.0
    yield load(scheduler, saved_state(ranks))


# What a load reports


@case
def the_checkpoint_differs(ranks):
    yield load(build(ranks, max_lr=0.5), saved_state(ranks))


@case
def the_checkpoint_is_equal(ranks):
    yield load(build(ranks), saved_state(ranks))


@case
def every_rank_keeps_the_reconciliation(ranks):
    scheduler = build(ranks, max_lr=0.5)
    yield load(scheduler, saved_state(ranks) if ranks.is_first else {})
    yield {"ended": scheduler.last_reconciliation.to_dict()}
    strict = build(ranks, max_lr=0.5, policy="strict")
    try:
        strict.load_state_dict(saved_state(ranks) if ranks.is_first else {})
    except ReconcileError as error:
        yield {"ended": error.reconciliation.to_dict()}
