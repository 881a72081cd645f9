"""Update a Plateau on several ranks, and write how each attempt ended on this rank.

    plateau.py FOLDER [--resume]

The folder is shared by all launches: the first one saves half a run there, another one goes on.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cases
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import worker
from dist_sched import ParamScheduler, Plateau
from helpers import held, sgd

METRICS = [1.0, 0.9, 0.9, 0.9, 0.8, float("nan"), 0.9, 0.9, 0.9, 0.7, 0.7, 0.7]
HALF = 6


def build(lr=1.0, name=None, **arguments):
    scheduler = ParamScheduler(sgd(), {"lr": lr}, name=name)
    return Plateau(scheduler, **{"factor": 0.5, "patience": 1, **arguments})


def steps(plateau, metrics):
    """Step and update, and return the values."""
    found = []
    for metric in metrics:
        plateau.scheduler.step()
        plateau.update(metric)
        found += held(plateau.scheduler)
    return found


def attempt(plateau, metric):
    """Record how an update ends, and whether it changes anything."""
    before = contents(plateau)
    cases.LOG.take()
    record = cases.timed(lambda: plateau.update(metric))["ended"]
    return {**record, "is_same": before == contents(plateau), "log": cases.LOG.take()}


def contents(plateau):
    scheduler = plateau.scheduler
    return plateau.state_dict(), scheduler.state_dict(), held(scheduler)


def the_first_rank_decides(rank):
    return steps(build(), [metric if rank == 0 else None for metric in METRICS])


def the_mean_decides(rank):
    # Alone, no rank would cut: each gets better in turn.
    metrics = [[1.0, 1.0], [0.5, 1.5], [1.5, 0.5], [1.0, 1.0]]
    return steps(build(reduce="mean"), [metric[rank % 2] for metric in metrics])


def a_bad_metric_on_another_rank(rank):
    return attempt(build(reduce="mean"), "x" if rank == 1 else 1.0)


def a_bad_metric_on_the_first_rank(rank):
    return attempt(build(), None if rank == 0 else 1.0)


def another_rank_has_another_factor(rank):
    return attempt(build(factor=0.25 if rank == 1 else 0.5), 1.0)


def another_rank_is_elsewhere(rank):
    plateau = build()
    plateau.scheduler.step(rank)
    return attempt(plateau, 1.0)


def another_rank_updates_another_scheduler(rank):
    return attempt(build(name=f"rank {rank}"), 1.0)


def another_rank_cannot_be_cut(rank):
    plateau = build(patience=0)
    plateau.update(1.0)
    if rank == 1:
        plateau.scheduler.optimizer.param_groups[0]["lr_mult"] = -1.0
    return attempt(plateau, 1.0)


def another_rank_has_other_counts(rank):
    plateau = build(patience=0)
    plateau.update(1.0)
    if rank == 1:
        plateau.load_state_dict(build().state_dict())
    return attempt(plateau, 1.0), contents(plateau)


CASES = [
    the_first_rank_decides,
    the_mean_decides,
    a_bad_metric_on_another_rank,
    a_bad_metric_on_the_first_rank,
    another_rank_has_another_factor,
    another_rank_is_elsewhere,
    another_rank_updates_another_scheduler,
    another_rank_cannot_be_cut,
    another_rank_has_other_counts,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on with what is saved there")
    arguments = parser.parse_args()
    logger = logging.getLogger("dist_sched")
    logger.addHandler(cases.LOG)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    with worker.joined():
        rank = dist.get_rank()
        plateau = build()
        tree = {"scheduler": plateau.scheduler, "plateau": plateau}
        if arguments.resume:
            dcp.load(tree, checkpoint_id=arguments.folder)
            worker.write({"values": steps(plateau, METRICS[HALF:])})
            return
        first = steps(plateau, METRICS[:HALF])
        dcp.save(tree, checkpoint_id=arguments.folder)
        values = first + steps(plateau, METRICS[HALF:])
        worker.write({"values": values, **{case.__name__: case(rank) for case in CASES}})


if __name__ == "__main__":
    main()
