"""Fit a model to measured loads, verifications and saves, and extrapolate it to many ranks.

    bash scripts/bench.sh scaling     # measures, and writes docs/scaling.md

What a rank computes is measured: in loads on this machine, and in one process with the answers and
plans of many ranks, which it makes up. What the network takes is not: it is assumed, with the
constants below.
"""

from __future__ import annotations

import json
import math
import pickle
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict_saver import save

from benchmarks import table
from benchmarks.load import TENSORS, Load, build, loads
from dist_sched._optim.base import _disagreements
from dist_sched._optim.process_groups import Sent, Vote
from dist_sched._optim.stages import Stage, common_names, common_references, lost_groups

if TYPE_CHECKING:
    from dist_sched import ParamScheduler

GROUPS = (1, 10, 100, 1_000, 10_000)
ANSWERS = (1_000, 10_000, 100_000)
PLANS = (100, 1_000, 4_000)
TARGETS = (1_000, 10_000, 100_000)

LATENCY = 50e-6
"""Seconds that a message takes from a host to another, assumed."""
BANDWIDTH = 1e9
"""Bytes a second that a host receives, assumed: ten gigabits."""


def sizes(num_groups: int) -> dict[str, Any]:
    """Return the size of the state, and of a checkpoint that holds nothing else."""
    scheduler = build(num_groups)
    state = scheduler.state_dict()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it saves in one process
        save({"scheduler": scheduler}, checkpoint_id=folder, no_dist=True)
        files = [path for path in Path(folder).iterdir() if path.is_file()]
        saved = sum(path.stat().st_size for path in files)
    return {
        "groups": num_groups,
        "state, bytes of JSON": len(json.dumps(state)),
        "DCP folder with it alone, bytes": saved,
        "optimizer's `param_groups`, bytes": len(pickle.dumps(scheduler.optimizer.state_dict())),
    }


def answer(scheduler: ParamScheduler) -> bytes:
    """Return what a rank of such groups would tell the others in a load."""
    writer = scheduler._writer  # noqa: SLF001 - what a rank would say
    return pickle.dumps(Vote(None, "", Stage.of(writer, None, writer.plan)))


def answers(size: int) -> dict[str, Any]:
    """Return what one rank does with the answers of many, which this process makes up."""
    scheduler = build(2)
    data = answer(scheduler)
    report = pickle.dumps(Sent.of(scheduler._own_report))  # noqa: SLF001 - what a rank would say
    begin = time.process_time()
    votes = [pickle.loads(data) for _ in range(size)]  # noqa: S301 - our own bytes
    stages = [one.report for one in votes]
    common_names(stages)
    lost_groups(stages, common_references(stages))
    loaded = time.process_time()
    del votes, stages
    between = time.process_time()
    reports = [pickle.loads(report).value() for _ in range(size)]  # noqa: S301 - our own bytes
    for rank in range(size):
        _disagreements(reports, rank)
    return {
        "ranks": size,
        "answers of a load, bytes": size * len(data),
        "read and compare them, CPU ms": 1e3 * (loaded - begin),
        "reports of `verify()`, bytes": size * len(report),
        "read and compare these, CPU ms": 1e3 * (time.process_time() - between),
    }


def plans(size: int) -> dict[str, Any]:
    """Return what DCP's first rank does with the plans of many, with our items and without."""
    model = {f"layer.{index}": torch.zeros(8) for index in range(TENSORS)}
    own = {f"scheduler.{name}": value for name, value in build(2).state_dict().items()}
    found: dict[str, float] = {}
    items: dict[str, int] = {}
    states: dict[str, dict[str, Any]] = {"without": model, "with": {**model, **own}}
    for name, state in states.items():
        planner = DefaultSavePlanner()
        planner.set_up_planner(state, is_coordinator=True)
        local = pickle.dumps(planner.create_local_plan())
        taken = []
        for _ in range(3):
            all_plans = [pickle.loads(local) for _ in range(size)]  # noqa: S301 - our own bytes
            begin = time.process_time()
            planner.create_global_plan(all_plans)
            taken.append(1e3 * (time.process_time() - begin))
        found[name] = min(taken)
        items[name] = len(pickle.loads(local).items)  # noqa: S301 - our own bytes
    return {
        "ranks": size,
        "items of a rank": items["with"],
        "of which ours": items["with"] - items["without"],
        "plans of all, CPU ms": found["with"],
        "of which ours, CPU ms": found["with"] - found["without"],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Seconds that a load, a verification and our part of a save take on n ranks with g groups.

    load = own + group g + answer n + 2 latency log2(n) + n answer_bytes / bandwidth
    """

    own: float
    """Of a load, on any number of ranks and groups."""
    group: float
    """Of a load, for each group."""
    answer: float
    """Of a load, for the answer of each rank."""
    answer_bytes: float
    report: float
    """Of a verification, for the report of each rank."""
    report_bytes: float
    plan: float
    """Of a save on the first rank, for our items in the plan of each rank."""
    plan_bytes: float

    @classmethod
    def of(
        cls, found: list[Load], answered: list[dict[str, Any]], planned: list[dict[str, Any]]
    ) -> Model:
        """Fit it by least squares."""
        first = min(one.ranks for one in found)
        # On several ranks the CPU time of one also has what waiting for the others takes.
        alone = [one for one in found if one.ranks == first]
        own, group = _line([one.groups for one in alone], [one.cpu / 1e3 for one in alone])
        ranks = [one["ranks"] for one in answered]

        def slope(rows: list[dict[str, Any]], name: str) -> float:
            return _line([one["ranks"] for one in rows], [one[name] / 1e3 for one in rows])[1]

        return cls(
            own=own,
            group=group,
            answer=slope(answered, "read and compare them, CPU ms"),
            answer_bytes=answered[-1]["answers of a load, bytes"] / ranks[-1],
            report=slope(answered, "read and compare these, CPU ms"),
            report_bytes=answered[-1]["reports of `verify()`, bytes"] / ranks[-1],
            plan=slope(planned, "of which ours, CPU ms"),
            plan_bytes=found[0].plan_bytes,
        )

    def at(self, ranks: int, groups: int) -> dict[str, float]:
        """Return what it says for a number of ranks."""
        hops = math.log2(ranks)
        received = {
            "load": ranks * self.answer_bytes,
            "verify": ranks * self.report_bytes,
            "save": ranks * self.plan_bytes,
        }
        return {
            "ranks": ranks,
            "load, s": self.own
            + self.group * groups
            + self.answer * ranks
            + 2 * LATENCY * hops
            + received["load"] / BANDWIDTH,
            "each rank receives, MB": received["load"] / 1e6,
            "verify, s": self.report * ranks + LATENCY * hops + received["verify"] / BANDWIDTH,
            "it receives then, MB": received["verify"] / 1e6,
            "our part of a save, s": self.plan * ranks + received["save"] / BANDWIDTH,
            "the first rank receives for it, MB": received["save"] / 1e6,
        }

    def coefficients(self) -> list[list[str]]:
        """Return what was fitted, as a table."""
        return [
            ["coefficient", "figure"],
            ["a load, ms", table.show(1e3 * self.own)],
            ["a load, µs a group", table.show(1e6 * self.group)],
            ["a load, µs an answer", table.show(1e6 * self.answer)],
            ["an answer, bytes", table.show(self.answer_bytes)],
            ["`verify()`, µs a report", table.show(1e6 * self.report)],
            ["a report, bytes", table.show(self.report_bytes)],
            ["a save, µs of the first rank for our items of a rank", table.show(1e6 * self.plan)],
            ["our items in the plan of a rank, bytes", table.show(self.plan_bytes)],
        ]


def _line(places: list[int], values: list[float]) -> tuple[float, float]:
    """Return the start and the slope of a line through points, by least squares, at least 0."""
    if len(set(places)) == 1:
        return values[0], 0.0
    slope, start = np.polyfit(places, values, 1)
    return max(0.0, float(start)), max(0.0, float(slope))


def result(*, is_quick: bool) -> table.Result:
    """Measure, fit and extrapolate."""
    found = loads(is_quick=is_quick, times_saves=True)
    few = 2 if is_quick else None
    answered = [answers(size) for size in ((100, 1_000) if is_quick else ANSWERS)]
    planned = [plans(size) for size in ((10, 100) if is_quick else PLANS)]
    model = Model.of(found, answered, planned)
    measured = [
        {
            "ranks": one.ranks,
            "groups": one.groups,
            "load, ms": one.load,
            "bare collectives, ms": one.bare,
            "CPU of the first rank, ms": one.cpu,
            "broadcast, bytes": one.broadcast_bytes,
            "answer, bytes": one.answer_bytes,
            "verify, ms": one.verify,
            "save, ms": one.save,
            "save without it, ms": one.save_alone,
            "items of a rank's plan": one.all_items,
            "of which ours": one.items,
        }
        for one in sorted(found, key=lambda one: (one.groups, one.ranks))
    ]
    tables = {
        "Loads, verifications and saves": table.of_dicts(measured),
        "The state": table.of_dicts([sizes(groups) for groups in GROUPS[:few]]),
        "Answers of many ranks": table.of_dicts(answered),
        "DCP's plans": table.of_dicts(planned),
        "Fitted": model.coefficients(),
        "Extrapolated, with 1,000 groups": table.of_dicts(
            [model.at(ranks, 1_000) for ranks in TARGETS]
        ),
    }
    parts = [["", f"### {name}", "", *table.mark_down(one)] for name, one in tables.items()]
    rows = [
        table.Row(
            what=f"extrapolated: load, ranks: {ranks:,}",
            unit="s",
            ours=model.at(ranks, 1_000)["load, s"],
        )
        for ranks in TARGETS
    ]
    details = "\n".join([line for part in parts for line in part])
    return table.Result(title="Scaling", rows=rows, details=details)
