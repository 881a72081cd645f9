"""The cases: each brings one fault into a group of ranks, and tells how it ended on this rank.

A case is a generator of records, one for each thing that it attempts. Its name is the fault; the
fault is the last rank's where it says "another rank", and the first's where it says "the first".
"""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import threading
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from faults_bench import (
    LOG,
    POSITION,
    attempt,
    build,
    groups_of,
    load,
    optimizer,
    saved,
    timed,
)
from torch.utils._python_dispatch import TorchDispatchMode

from dist_sched import RankMismatchError, ReconcileError
from dist_sched._optim.process_groups import decide as decide_once

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def cases(prefix, faults):
    """Make one case of each fault: what the decorated function does with it."""

    def make(function):
        for name, fault in faults.items():
            CASES[f"{prefix}_{name}"] = functools.partial(function, fault=fault)
        return function

    return make


# Ranks that differ before a load


@case
def another_rank_has_another_config(place):
    scheduler = build(place, policy="config", max_lr=0.5 if place.is_another else 1.0)
    yield load(scheduler, saved(place, max_lr=0.25))


@case
def another_rank_has_another_position(place):
    scheduler = build(place)
    scheduler.seek(5 if place.is_another else 3)
    yield load(scheduler, saved(place))


@case
def another_rank_has_another_policy_and_unit(place):
    theirs = {"policy": "strict", "unit": "tokens"}
    scheduler = build(place, **(theirs if place.is_another else {"policy": "config"}))
    yield load(scheduler, saved(place, max_lr=0.25))


@case
def another_rank_has_a_tensor_lr(place):
    lr = torch.tensor(1.0, device=place.device) if place.is_another else 1.0
    yield load(build(place, optimizer(place, lr=lr)), saved(place))


@case
def ranks_have_different_numbers_of_groups_and_optimizers(place):
    stage = [{}] * (place.rank + 1)
    optimizers = [optimizer(place, *stage) for _ in range(place.rank + 1)]
    yield load(build(place, optimizers), saved(place))


def pipeline_stage(place):
    """Make two groups: lr 1 and 1/2 on the first stage, 1/2 and 1/4 on the next, and so on."""
    return optimizer(place, {"lr": 2.0**-place.rank}, {"lr": 2.0 ** -(place.rank + 1)})


@case
def pipeline_stages_load(place):
    scheduler = build(place, pipeline_stage(place))
    yield load(scheduler, saved(place))
    yield attempt(scheduler, scheduler.verify)


@case
def pipeline_stages_synchronize(place):
    scheduler = build(place, pipeline_stage(place))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.verify)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def another_stage_has_no_decay_groups_alone(place):
    wds = [0.0] if place.is_another else [0.5, 1.0, 0.0]
    scheduler = build(place, optimizer(place, *({"weight_decay": wd} for wd in wds)))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def the_first_stage_has_no_decay_groups_alone(place):
    wds = [0.0] if place.is_first else [0.5, 1.0, 0.0]
    scheduler = build(place, optimizer(place, *({"weight_decay": wd} for wd in wds)))
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.verify)


@case
def the_first_stage_has_no_groups(place):
    stage = SimpleNamespace(param_groups=[]) if place.is_first else pipeline_stage(place)
    scheduler = build(place, stage)
    scheduler.seek(POSITION)
    yield attempt(scheduler, scheduler.verify)
    yield attempt(scheduler, scheduler.synchronize)


# States that not every rank has


class Unreadable(dict):
    """A state that cannot even be looked at."""

    def __bool__(self):
        class UnreadableError(Exception):
            """One that cannot be sent."""

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
def the_state_of_another_rank(place, fault):
    yield load(build(place), fault if place.is_another else saved(place))


@case
def only_the_first_rank_has_read_the_state(place):
    file = io.BytesIO()
    torch.save(saved(place), file)
    file.seek(0)
    state = torch.load(file, weights_only=True) if place.is_first else {}
    yield load(build(place), state)


# States of the first rank that are refused, or mended


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
    "the_first_state",
    {
        "is_empty": lambda _: {},
        "is_none": lambda _: None,
        "is_a_list": list,
        "is_unreadable": Unreadable,
        "lacks_a_key": without("max_lr"),
        "lacks_its_position": without("num_steps"),
        "lacks_all_but_its_text": lambda state: {"dist_sched": state["dist_sched"]},
        "has_a_text_for_a_number": changed(max_lr="1.0"),
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
        "has_an_illegal_late_change_in_its_text": in_text(history=[{"cooldown": 8}]),
        "is_of_a_newer_version": in_text(version=2),
        "is_of_no_version": in_text(version=0),
    },
)
def the_first_state(place, fault):
    scheduler = build(place)
    yield load(scheduler, fault(saved(place)) if place.is_first else saved(place))


@case
def a_good_load_follows_a_refused_one(place):
    scheduler = build(place)
    yield load(scheduler, {} if place.is_first else saved(place))
    yield load(scheduler, saved(place))
    yield load(scheduler, saved(place, 0, max_lr=0.5), expected_position=1)


@case
def a_torn_state(place):
    yield load(build(place), {**saved(place), "max_lr": 0.25, "num_steps": 71})


@case
def a_state_beside_a_thousand_tensors(place):
    model = {f"layer {index}": torch.ones(1) for index in range(1000)} if place.is_first else {}
    yield load(build(place), {**saved(place), **model})


@case
def a_state_of_scalars_of_another_library(place):
    scalars = {"num_steps": torch.tensor(POSITION), "max_lr": torch.tensor(1.0)}
    yield load(build(place), {**saved(place), **scalars})


@case
def ranks_that_disagreed_saved(place):
    scheduler = build(place, max_lr=2.0**-place.rank)
    scheduler.seek(POSITION + place.rank)
    where = {
        "checkpoint_id": place.folder / str(place.ranks[0]),
        "process_group": place.group,
    }
    dcp.save({"scheduler": scheduler}, **where)
    fresh = build(place)
    yield attempt(fresh, dcp.load, {"scheduler": fresh}, **where)


# What the first rank refuses


@case
def strict_and_different(place):
    theirs = {"max_lr": 0.5, "lr_decay_steps": 200, "end_wd": 0.25}
    yield load(build(place, policy="strict"), saved(place, **theirs))


@case
def strict_on_the_first_rank_alone(place):
    scheduler = build(place, policy="strict" if place.is_first else "checkpoint")
    yield load(scheduler, saved(place, max_lr=0.5) if place.is_first else {})


@case
def the_outcome_is_no_legal_config(place):
    policy = {"lr_decay_steps": "config", "*": "checkpoint"}
    yield load(build(place, policy=policy, lr_decay_steps=32), saved(place, lr_warmup_steps=64))


@case
def the_units_differ(place):
    yield load(build(place, unit="samples"), saved(place))


@case
def the_position_is_not_the_trainers(place):
    expected = 71 if place.is_first else POSITION
    yield load(build(place), saved(place), expected_position=expected)


@case
def the_trainers_position_is_no_number(place):
    expected = "seventy-two" if place.is_first else POSITION
    yield load(build(place), saved(place), expected_position=expected)


@case
def the_first_rank_has_an_illegal_group(place):
    scheduler = build(place)
    if place.is_first:
        groups_of(scheduler)[0]["lr_mult"] = -1.0
    yield load(scheduler, saved(place))


@case
def another_rank_has_an_illegal_group(place):
    scheduler = build(place)
    if place.is_another:
        groups_of(scheduler)[0]["wd_mult"] = -1.0
    yield load(scheduler, saved(place))


# What a load says


@case
def the_checkpoint_differs(place):
    yield load(build(place, max_lr=0.5), saved(place))


@case
def the_checkpoint_is_equal(place):
    yield load(build(place), saved(place))


@case
def every_rank_keeps_the_reconciliation(place):
    scheduler = build(place, max_lr=0.5)
    yield load(scheduler, saved(place) if place.is_first else {})
    yield {"ended": scheduler.last_reconciliation.to_dict()}
    strict = build(place, max_lr=0.5, policy="strict")
    try:
        strict.load_state_dict(saved(place) if place.is_first else {})
    except ReconcileError as error:
        yield {"ended": error.reconciliation.to_dict()}


# Checks, and what mends what they find


def with_changes(**theirs):
    def make(place):
        scheduler = build(place, **(theirs if place.is_another else {}))
        scheduler.seek(POSITION)
        return scheduler

    return make


def with_group(**written):
    """Make two groups, and write into the second by hand."""

    def make(place):
        scheduler = build(place, optimizer(place, {}, {"lr": 0.5}))
        scheduler.seek(POSITION)
        if place.is_another:
            groups_of(scheduler)[1].update(copy.deepcopy(written))
        return scheduler

    return make


def with_other_references(place):
    lr = 0.5 if place.is_another else 1.0
    scheduler = build(place, optimizer(place, {"lr": lr}, {"lr": 0.25}))
    scheduler.seek(POSITION)
    return scheduler


def with_another_position(place):
    scheduler = build(place)
    scheduler.seek(5 if place.is_another else POSITION)
    return scheduler


def with_another_inner_optimizer(place):
    inner = optimizer(place)
    wrapper = SimpleNamespace(optimizer=inner, param_groups=inner.param_groups)
    scheduler = build(place, wrapper)
    scheduler.seek(POSITION)
    if place.is_another:
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
def verify_with(place, fault):
    scheduler = fault(place)
    for action in (scheduler.verify, scheduler.synchronize, scheduler.verify):
        record = timed(action)
        ended = {"ended": agreed(scheduler)} if "error" not in record["ended"] else {}
        yield {**record, **ended, "log": LOG.take()}


def agreed(scheduler):
    """Give what all ranks have alike after `synchronize`, whatever their groups are."""
    return {
        "state": scheduler.state_dict(),
        "policy": dict(scheduler._policy.words),
        "unit": scheduler.unit,
        "keep_group_ratios": scheduler.keep_group_ratios,
        "references": scheduler._writer.references,
    }


@case
def verify_with_an_illegal_multiplier(place):
    scheduler = with_group(lr_mult=-1.0)(place)
    yield attempt(scheduler, scheduler.verify)


@case
def verify_tells_what_each_rank_had(place):
    scheduler = build(place, max_lr=2.0**place.rank)
    try:
        scheduler.verify()
    except RankMismatchError as error:
        yield {"ended": {rank: had["max_lr"] for rank, had in error.ranks.items()}}


# decide by itself


class WordyError(Exception):
    """One that comes back from pickle with another message."""

    def __init__(self, name):
        super().__init__(f"cannot use {name}")


class Unloadable:
    """What can be pickled, but not unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


class TwoPartError(Exception):
    """One that can be pickled, but not unpickled."""

    def __init__(self, name, value):
        super().__init__(f"{name} is {value}")


def raising(error):
    def decision():
        raise error

    return decision


@cases(
    "decide",
    {
        "returns": lambda: {"a": [1.0, None, "b"]},
        "raises": raising(KeyError("lr")),
        "returns_what_cannot_be_pickled": threading.Lock,
        "returns_what_cannot_be_unpickled": Unloadable,
        "raises_what_cannot_be_unpickled": raising(TwoPartError("lr", 1.0)),
        "raises_what_pickle_changes": raising(WordyError("lr")),
    },
)
def decide(place, fault):
    decision = fault if place.is_first else raising(TypeError("not this rank's to decide"))
    yield timed(lambda: repr(decide_once(decision, place.group)))


# Collectives


@case
def one_rank_loads_locally(place):
    scheduler = build(place)
    if place.rank == place.size - 1:
        yield load(scheduler, saved(place), local=True)
    found = torch.full((1,), float(place.rank + 7), device=place.device)
    dist.broadcast(found, src=place.ranks[0], group=place.group)
    yield {"ended": {"received": found.item()}, "seconds": 0.0}


class Operations(TorchDispatchMode):
    """Names every operation on a process group, whoever calls it."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self.names.append(function._schema.name)
        return function(*args, **(kwargs or {}))


COLLECTIVES = ["all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce"]
COLLECTIVES += ["all_to_all", "all_to_all_single", "barrier", "broadcast", "broadcast_object_list"]
COLLECTIVES += ["gather", "gather_object", "irecv", "isend", "monitored_barrier", "recv", "reduce"]
COLLECTIVES += ["reduce_scatter", "reduce_scatter_tensor", "scatter", "scatter_object_list", "send"]
COLLECTIVES += ["recv_object_list", "send_object_list", "batch_isend_irecv", "new_group"]


def counted(action):
    """Count the calls of torch's collectives, and the operations that they make."""
    calls = Counter()

    def counting(name):
        real = getattr(dist, name)

        def call(*args, **options):
            calls[name] += 1
            return real(*args, **options)

        return call

    with (
        mock.patch.multiple(dist, **{name: counting(name) for name in COLLECTIVES}),
        Operations() as operations,
    ):
        action()
    return {"calls": calls, "operations": len(operations.names)}


@case
def collectives(place):
    scheduler = build(place)
    state = saved(place)
    actions = {
        "construction": lambda: build(place),
        "step": scheduler.step,
        "seek": lambda: scheduler.seek(3),
        "num_steps": lambda: setattr(scheduler, "num_steps", 3),
        "state_dict": scheduler.state_dict,
        "get_last_lr": scheduler.get_last_lr,
        "repr": lambda: repr(scheduler),
        "check_position": lambda: scheduler.check_position(3),
        "a local load": lambda: scheduler.load_state_dict(state, local=True),
        "an optimizer's load": lambda: scheduler.optimizer.load_state_dict(
            scheduler.optimizer.state_dict()
        ),
        "load": lambda: scheduler.load_state_dict(state),
        "synchronize": scheduler.synchronize,
        "verify": scheduler.verify,
    }
    yield {"ended": {name: counted(act) for name, act in actions.items()}, "seconds": 0.0}


@case
def two_schedulers(place):
    """Load two schedulers one after the other, beside a collective of the caller's own."""
    halved = build(place, max_lr=0.5)
    scheduler = build(place)
    yield load(halved, saved(place, max_lr=0.5))
    dist.barrier(group=place.group)
    yield load(scheduler, saved(place))
