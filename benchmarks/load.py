"""Measure a load by the number of ranks: its collectives, what they carry, and how long it takes.

Processes of this machine join a gloo group, so the times are those of processes that share its
cores. Counts and bytes are the same on any machine. A load is timed in turn with bare collectives:
one broadcast and one gather of objects of the same size.
"""

from __future__ import annotations

import pickle
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_saver import save

from benchmarks import ranks
from benchmarks.table import Result, Row, mark_down, of_dicts
from dist_sched import ParamScheduler, schedules

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.distributed.checkpoint.planner import SavePlan

HORIZON = 100_000
RANKS = (1, 2, 4, 8, 16, 32)
GROUPS = (2, 1_000)
MOST = 1.3
TENSORS = 50
"""Tensors of the model that is saved beside the scheduler."""
SECONDS = 3.0
"""How long the rounds of one number of ranks and groups take at most, but for the first five."""
FEWEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What loads, verifications and saves take on a number of ranks, with medians of ms."""

    ranks: int
    groups: int
    rounds: int
    broadcasts: int
    gathers: int
    broadcast_bytes: int
    answer_bytes: int
    """Of each rank."""
    load: float
    """Until the last rank has finished."""
    bare: float
    """The same, of one broadcast and one gather of the same size."""
    cpu: float
    """CPU time of the first rank in a load."""
    verify: float
    verify_bytes: int
    """What each rank puts into the gather of a verification."""
    save: float = 0.0
    """A save by DCP of a small model and the scheduler."""
    save_alone: float = 0.0
    """The same without the scheduler."""
    items: int
    """Items of the scheduler in each rank's plan for a save."""
    all_items: int
    """Items of each rank's plan, with those of the model."""
    plan_bytes: int
    """What the scheduler adds to each rank's plan, which the first rank gathers."""


def build(num_groups: int) -> ParamScheduler:
    """Return a scheduler of lr and weight decay over named groups, half of them without decay."""
    groups = [
        {
            "params": [torch.nn.Parameter(torch.ones(1))],
            "name": f"layer.{index}",
            "weight_decay": 0.0 if index % 2 else 0.1,
        }
        for index in range(num_groups)
    ]
    optimizer = torch.optim.AdamW(groups[:1], lr=3e-4)
    # One by one, torch compares each new group with all before it.
    optimizer.param_groups += [{**optimizer.param_groups[0], **group} for group in groups[1:]]
    lr = schedules.wsd(3e-4, HORIZON, warmup=2_000, decay=20_000)
    return ParamScheduler(optimizer, {"lr": lr, "weight_decay": 0.1})


class Collectives:
    """Counts object collectives, and the bytes that this rank puts into each."""

    def __init__(self) -> None:
        """Start at none."""
        self.calls: dict[str, int] = {}
        self.payload: dict[str, int] = {}

    def of(self, name: str, position: int) -> Callable[..., None]:
        """Return a function of torch's that is counted.

        Args:
            name: The function.
            position: Of the argument that is sent.
        """
        real = getattr(dist, name)

        def call(*args: Any, **options: Any) -> None:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.payload[name] = len(pickle.dumps(args[position]))
            real(*args, **options)

        return call


def count(action: Callable[[], None]) -> Collectives:
    """Run an action once, and return what it sent."""
    found = Collectives()
    counted = {"broadcast_object_list": 0, "all_gather_object": 1}
    patches: dict[str, Any] = {name: found.of(name, position) for name, position in counted.items()}
    with mock.patch.multiple(dist, **patches):
        action()
    return found


def timed(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return ms until the last rank has finished, and under `cpu` those of this rank's CPU time.

    All ranks make the same rounds, in which the actions take turns.
    """
    walls: dict[str, list[float]] = {name: [] for name in actions}
    walls["cpu"] = []
    names = list(actions)
    begin_all = time.perf_counter()
    for done in range(rounds):
        # The first rank alone decides when time is up.
        is_late = torch.tensor(int(time.perf_counter() - begin_all > SECONDS))
        dist.broadcast(is_late, src=0)
        if done >= FEWEST and is_late:
            break
        for name in names:
            dist.barrier()
            begin, used = time.perf_counter(), time.process_time()
            actions[name]()
            if name == "load":
                walls["cpu"].append(1e3 * (time.process_time() - used))
            slowest = torch.tensor(time.perf_counter() - begin)
            dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
            walls[name].append(1e3 * slowest.item())
        names.append(names.pop(0))
    return walls


class Counting(DefaultSavePlanner):
    """A planner of DCP's that keeps this rank's plan."""

    plan_of_rank: SavePlan

    def create_local_plan(self) -> SavePlan:
        """Return DCP's plan."""
        self.plan_of_rank = super().create_local_plan()
        return self.plan_of_rank


def work(folder: str, jobs: list[tuple[int, int]], times_saves: bool = False) -> list[Load]:
    """Measure as one rank, for pairs of groups and rounds."""
    return [_measured(folder, *job, times_saves=times_saves) for job in jobs]


def _measured(folder: str, num_groups: int, rounds: int, *, times_saves: bool) -> Load:
    rank, size = dist.get_rank(), dist.get_world_size()
    scheduler = build(num_groups)
    scheduler.seek(50_000)
    state = scheduler.state_dict()
    model = {f"layer.{index}": torch.zeros(8) for index in range(TENSORS)}

    def load() -> None:
        scheduler.load_state_dict(state if rank == 0 else {})

    load()  # what only a first load does is no part of it
    sent, checked = count(load), count(scheduler.verify)
    payload = [b"x" * sent.payload["broadcast_object_list"]]
    vote = b"x" * sent.payload["all_gather_object"]

    def bare() -> None:
        dist.broadcast_object_list(list(payload), src=0)
        dist.all_gather_object([None] * size, vote)

    def saved(what: dict[str, Any]) -> list[Any]:
        planner = Counting()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what it will change
            save(what, checkpoint_id=f"{folder}/saved", planner=planner)
        return list(planner.plan_of_rank.items)

    both = {"model": model, "scheduler": scheduler}
    alone, items = saved({"model": model}), saved(both)
    walls = timed({"load": load, "bare": bare, "verify": scheduler.verify}, rounds)
    saves: dict[str, Callable[[], object]] = {
        "save": lambda: saved(both),
        "save_alone": lambda: saved({"model": model}),
    }
    if times_saves:
        walls |= {name: taken for name, taken in timed(saves, rounds).items() if name in saves}
    return Load(
        ranks=size,
        groups=num_groups,
        rounds=len(walls["load"]),
        broadcasts=sent.calls["broadcast_object_list"],
        gathers=sent.calls["all_gather_object"],
        broadcast_bytes=sent.payload["broadcast_object_list"],
        answer_bytes=sent.payload["all_gather_object"],
        verify_bytes=checked.payload["all_gather_object"],
        items=len(items) - len(alone),
        all_items=len(items),
        plan_bytes=len(pickle.dumps(items)) - len(pickle.dumps(alone)),
        **{name: statistics.median(taken) for name, taken in walls.items()},
    )


def loads(*, is_quick: bool, times_saves: bool = False) -> list[Load]:
    """Measure every number of ranks and groups."""
    jobs, sizes = ([(2, 5)], (1, 2)) if is_quick else ([(groups, 200) for groups in GROUPS], RANKS)
    return [one for size in sizes for one in ranks.run(size, work, jobs, times_saves)]


def result(*, is_quick: bool) -> Result:
    """Return the rows of loads."""
    return as_result(loads(is_quick=is_quick))


def as_result(found: list[Load]) -> Result:
    """Return the rows of loads that were measured."""
    rows = [
        Row(
            what=f"load, {one.groups:,} groups, ranks: {one.ranks}",
            ours=one.load,
            unit="ms",
            against="bare collectives",
            theirs=one.bare,
            most=MOST,
        )
        for one in sorted(found, key=lambda one: (one.groups, one.ranks))
    ]
    most = max(found, key=lambda one: one.ranks)
    same = [one for one in found if one.groups == most.groups]
    rows += [
        Row(
            what=f"collectives of a load, at most, on up to {most.ranks} ranks",
            ours=max(one.broadcasts + one.gathers for one in found),
            unit="",
            most=2,
        ),
        Row(
            what=f"bytes broadcast, {most.ranks} ranks",
            ours=most.broadcast_bytes,
            unit="B",
            against="one rank",
            theirs=min(same, key=lambda one: one.ranks).broadcast_bytes,
            most=1.0,
        ),
    ]
    heads = {
        "ranks": "ranks",
        "groups": "groups",
        "rounds": "rounds",
        "broadcast_bytes": "broadcast, B",
        "answer_bytes": "answer of each rank, B",
        "load": "load, ms",
        "bare": "bare collectives, ms",
        "cpu": "CPU of the first rank, ms",
    }
    cells = [{head: asdict(one)[name] for name, head in heads.items()} for one in found]
    lines = ["### Loads on a number of ranks", "", *mark_down(of_dicts(cells)), ""]
    return Result(title="Load", rows=rows, details="\n".join(lines))
