"""Cases of outcomes that some rank cannot apply: then no rank does, and all raise the same."""

from __future__ import annotations

import sys
import types

import torch
from cases import adamw, attempt, build, case, cases, load, param_groups, saved_state, timed

import helpers
from dist_sched import ParamScheduler, Phase, Schedule, register_shape
from dist_sched._curves import shapes

HILL = helpers.HILL


def sgd(ranks, *groups, **arguments):
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1, device=ranks.device))], **group}
        for group in groups or [{}]
    ]
    return torch.optim.SGD(groups, **{"lr": 1.0, "momentum": 0.5, "foreach": False, **arguments})


def scheduled(ranks, fields=None, *, groups=None, optimizer=None, **arguments):
    """Return a ParamScheduler; by default lr of one group follows HILL."""
    optimizer = sgd(ranks) if optimizer is None else optimizer
    return ParamScheduler(
        optimizer,
        {"lr": HILL} if fields is None else fields,
        groups=groups,
        process_group=ranks.group,
        **arguments,
    )


def by_load_and_by_synchronize(scheduler, state):
    yield load(scheduler, state)
    yield attempt(scheduler, scheduler.synchronize)


@case
def another_ranks_mean_would_reach_1(ranks):
    """Its ratio is 1.8 to the first rank's reference, and the schedule is at 0.6."""
    reference, optimizer = {"momentum": 0.5}, sgd(ranks)
    if ranks.is_another:
        reference, optimizer = {"momentum": 0.9}, sgd(ranks, momentum=0.9)
    scheduler = scheduled(
        ranks, {"lr": HILL, "momentum": 0.6}, optimizer=optimizer, reference=reference
    )
    state = scheduled(ranks, {"lr": HILL, "momentum": 0.6}).state_dict()
    yield from by_load_and_by_synchronize(scheduler, state)


@case
def another_ranks_reference_brings_a_mean_to_1(ranks):
    """All but the last rank have ratio 1.8 to a reference that only the last can measure."""
    if ranks.size == 1:
        return
    name, momentum = ("head", 0.5) if ranks.is_another else ("body", 0.9)
    scheduler = scheduled(
        ranks,
        {"lr": HILL, "momentum": 0.6},
        optimizer=sgd(ranks, {"name": name}, momentum=momentum),
        reference={"momentum": "head"},
    )
    yield from by_load_and_by_synchronize(scheduler, scheduler.state_dict())


@case
def another_ranks_scheduler_was_replaced(ranks):
    scheduler = build(ranks)
    newer = build(ranks, scheduler.optimizer) if ranks.is_another else None
    yield from by_load_and_by_synchronize(scheduler, saved_state(ranks))
    del newer


@case
def a_shape_is_registered_on_the_first_rank_alone(ranks):
    """Registered by hand: the same process may be the first rank of several groups."""
    if ranks.is_first:
        register_shape("only_here")(lambda progress: 1 - progress)
    shape = "only_here" if ranks.is_first else "linear"
    scheduler = scheduled(ranks, {"lr": Schedule([Phase(shape, 8, end=0.0, start=1.0)])})
    yield from by_load_and_by_synchronize(scheduler, scheduler.state_dict())
    shapes.SHAPES.pop("only_here", None)


@case
def another_rank_has_the_other_class(ranks):
    scheduler = scheduled(ranks) if ranks.is_another else build(ranks)
    yield from by_load_and_by_synchronize(scheduler, saved_state(ranks))


@case
def two_patterns_match_one_group_once_ranks_are_united(ranks):
    name, pattern = ("ab", "*b") if ranks.is_another else ("a", "a*")
    optimizer = sgd(ranks, {"name": name})
    scheduler = scheduled(ranks, groups={pattern: {"lr": 0.5}}, optimizer=optimizer)
    yield attempt(scheduler, scheduler.synchronize)


@case
def a_group_of_another_rank_has_lost_its_lr(ranks):
    scheduler = build(ranks)
    if ranks.is_another:
        del param_groups(scheduler)[0]["lr"]
    scheduler.load_state_dict(saved_state(ranks))
    yield attempt(scheduler, scheduler.verify)


@cases(
    "another_rank_has_an_illegal",
    {"multiplier": {"wd_mult": -1.0}, "bound": {"max_lr": "high"}, "upper_bound": {"end_wd": -1.0}},
)
def another_rank_has_an_illegal_override(ranks, fault):
    scheduler = build(ranks)
    if ranks.is_another:
        param_groups(scheduler)[0].update(fault)
    yield from by_load_and_by_synchronize(scheduler, saved_state(ranks))


@cases(
    "another_rank_has_lost",
    {"a_part": {"betas": (0.9,)}, "its_tuple": {"betas": 0.9}, "its_value": {"lr": None}},
)
def another_rank_has_lost_what_is_written(ranks, fault):
    scheduler = scheduled(ranks, {"lr": HILL, "betas[1]": 0.5}, optimizer=adamw(ranks))
    state = scheduler.state_dict()
    if ranks.is_another:
        param_groups(scheduler)[0].update(fault)
    before = {key: param_groups(scheduler)[0][key] for key in fault}
    records = [
        timed(action)
        for action in (lambda: scheduler.load_state_dict(state), scheduler.synchronize)
    ]
    assert before == {key: param_groups(scheduler)[0][key] for key in fault} or not ranks.is_another
    yield from ({**record, "changed": [], "log": []} for record in records)


@case
def a_reader_returns_what_only_the_first_rank_can_import(ranks):
    scheduler, state = build(ranks), saved_state(ranks)
    if ranks.is_first:
        module = types.ModuleType("only_on_the_first_rank")
        exec("class Place: pass", module.__dict__)  # noqa: S102
        module.Place.__module__ = module.__name__
        sys.modules[module.__name__] = module

    def reader():
        return state, sys.modules["only_on_the_first_rank"].Place()

    yield attempt(scheduler, scheduler.load_with, reader)
    sys.modules.pop("only_on_the_first_rank", None)


@case
def another_rank_declares_other_extras(ranks):
    extras = {"length": 8.0} if ranks.is_another else {"batch_size": 32.0}
    scheduler = scheduled(ranks, extras=extras)
    yield load(scheduler, scheduled(ranks, extras={"batch_size": 64.0}).state_dict())
    yield {**timed(lambda: scheduler.extras), "changed": [], "log": []}


# Which scheduler it is


def generator_and_discriminator(ranks, names=(None, None), lrs=(1.0, 0.5)):
    return [build(ranks, max_lr=lr, name=name) for lr, name in zip(lrs, names, strict=True)]


@cases(
    "another_rank_loads_in_another_order",
    {
        "with_other_configs": {},
        "with_equal_configs_and_names": {
            "names": ("generator", "discriminator"),
            "lrs": (1.0, 1.0),
        },
    },
)
def another_rank_loads_in_another_order(ranks, fault):
    both = generator_and_discriminator(ranks, **fault)
    states = [scheduler.state_dict() for scheduler in both]
    order = (1, 0) if ranks.is_another else (0, 1)
    for index in order:
        yield load(both[index], states[index])
    for index in order:
        yield attempt(both[index], both[index].synchronize)


@case
def another_rank_synchronizes_in_another_order_what_schedules_other_fields(ranks):
    """The first rank's config alone tells: united with the other's, it is nobody's."""
    generator = scheduled(ranks, optimizer=adamw(ranks))
    discriminator = scheduled(ranks, {"lr": 0.5, "momentum": 0.25})
    first, second = generator, discriminator
    if ranks.is_another:
        first, second = second, first
    yield attempt(first, first.synchronize)
    yield attempt(second, second.synchronize)


@case
def the_first_rank_has_a_scheduler_more(ranks):
    plotted = build(ranks) if ranks.is_first else None
    scheduler = build(ranks)
    yield load(scheduler, saved_state(ranks))
    del plotted


@case
def another_rank_has_a_replaced_scheduler_of_the_first_ranks_config(ranks):
    """It is no scheduler whose turn it could be."""
    optimizer = adamw(ranks)
    older = build(ranks, optimizer)
    scheduler = build(ranks, optimizer, max_lr=0.5 if ranks.is_another else 1.0)
    yield load(scheduler, saved_state(ranks))
    del older


@case
def another_rank_has_another_name(ranks):
    scheduler = build(ranks, name="b" if ranks.is_another else "a")
    yield from by_load_and_by_synchronize(scheduler, saved_state(ranks))


# One table for all stages


def stage(ranks, table=None, **arguments):
    """Return the scheduler of one pipeline stage: lr 1 on the first, 1/2 on the next, and so on.

    A group of one rank is no pipeline: there, construction refuses what no group has.
    """
    optimizer = sgd(ranks, {"name": f"stage{ranks.rank}", "lr": 2.0**-ranks.rank})
    groups = {f"stage{rank}": {"lr": 0.5} for rank in range(ranks.size)} if table is None else table
    return scheduled(ranks, groups=groups, optimizer=optimizer, **arguments)


@case
def stages_share_one_table(ranks):
    scheduler = stage(ranks, reference="stage0")
    yield attempt(scheduler, scheduler.synchronize)
    yield attempt(scheduler, scheduler.seek, 8)
    yield attempt(scheduler, scheduler.verify)


@case
def stages_share_one_table_and_load(ranks):
    scheduler = stage(ranks, reference=f"stage{ranks.size - 1}")
    saved = stage(ranks)
    saved.synchronize()
    saved.seek(8)
    yield load(scheduler, saved.state_dict())
    yield attempt(scheduler, scheduler.step, 0)
    yield attempt(scheduler, scheduler.verify)


@case
def a_pattern_of_the_table_is_misspelt(ranks):
    if ranks.size == 1:
        return
    scheduler = stage(ranks, {"stgae0": {"lr": 0.5}})
    yield from by_load_and_by_synchronize(scheduler, scheduler.state_dict())
    yield attempt(scheduler, scheduler.step)
    for group in param_groups(scheduler):
        group["lr"] = 0.5
        group["params"][0].grad = torch.ones_like(group["params"][0])
    yield attempt(scheduler, lambda: scheduler.optimizer.step() and None)


@case
def no_rank_has_the_reference(ranks):
    if ranks.size == 1:
        return
    scheduler = stage(ranks, reference="haed")
    yield from by_load_and_by_synchronize(scheduler, scheduler.state_dict())
