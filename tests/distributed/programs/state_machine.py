"""Draw ranks that differ and sequences of calls, and report where ranks did not end alike."""

from __future__ import annotations

import argparse
import copy
import itertools
import random
from collections import Counter

import torch
import torch.distributed as dist

import helpers
import worker
from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, register_shape
from dist_sched._curves import shapes

SCHEDULES = [
    helpers.HILL,
    helpers.OTHER_HILL,
    Schedule([Phase("cosine", 40, end=0.1, start=1.0)]),
    Schedule([Phase("linear", 8, end=1.0, start=0.0), Phase("constant", 40, end=1.0)]),
]
NAMES = ["a", "ab", "b", "head", None]
PATTERNS = ["a*", "*b", "head", "haed", "?"]
POSITIONS = [0, 3, 8, 20, 60, 200]
OVERRIDES = ["lr_mult", "max_lr", "wd_mult"]
NUM_CALLS = 8


def drawn_groups(draw):
    """Return the param groups of one rank, few of them, some with overrides or no lr ratio."""
    groups = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        group = {"params": [torch.nn.Parameter(torch.ones(1))], "lr": draw.choice([1.0, 1.0, 0.5])}
        if (name := draw.choice(NAMES)) is not None:
            group["name"] = name
        if draw.random() < 0.2:
            group[draw.choice(OVERRIDES)] = draw.choice([0.5, 2.0, 1])
        if draw.random() < 0.2:
            group["momentum"] = draw.choice([0.0, 0.25, 0.9])
        groups.append(group)
    return groups


def drawn_scheduler(draw, groups):
    """Return what builds a scheduler of either class, which may refuse what was drawn."""
    settings = {
        "policy": draw.choice(["checkpoint", "checkpoint", "config", "strict"]),
        "reference": draw.choice([None, None, 1.0, "head"]),
        "name": draw.choice([None, None, "first", "second"]),
        "unit": draw.choice(["steps", "steps", "steps", "samples"]),
    }
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5, weight_decay=0.1, foreach=False)
    if draw.random() < 0.3:
        config = {**helpers.CONFIG, "max_lr": draw.choice([1.0, 0.5])}
        return lambda: OptimizerParamScheduler(optimizer, **config, **settings)
    fields = {"lr": draw.choice(SCHEDULES)}
    if draw.random() < 0.4:
        fields["momentum"] = draw.choice([0.25, 0.6, helpers.UP])
    if draw.random() < 0.1:
        fields["lr"] = Schedule([Phase(draw.choice(["mine", "linear"]), 8, end=0.0, start=1.0)])
    table = {draw.choice(PATTERNS): {"lr": draw.choice([0.5, SCHEDULES[0]])} for _ in range(2)}
    groups = table if draw.random() < 0.5 else None
    return lambda: ParamScheduler(optimizer, fields, groups=groups, **settings)


def attempt(action):
    """Return an error's class and text, or None."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - which error is right is not the question here
        return type(error).__name__, str(error)
    return None


def contents(scheduler):
    return scheduler.state_dict(), scheduler.history, helpers.contents(scheduler)


def gathered(value):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


class Case:
    """One sequence on this rank: what is called is common, what it is called with is not."""

    def __init__(self, number):
        self.rank = dist.get_rank()
        self.common = random.Random(number)
        self.own = random.Random((number + 1) * 1009 + self.rank)
        self.number = number
        self.calls = []
        self.states = []
        self.ends = Counter()
        """How the calls of all ranks together ended."""

    def run(self):
        """Return what is wrong; None if nothing is."""
        differs = self.own.random() < 0.2
        if not (differs and self.rank):
            register_shape("mine")(lambda progress: 1 - progress)
        try:
            return self._run(self.own if differs else self.common)
        finally:
            shapes.SHAPES.pop("mine", None)

    def _run(self, draw):
        groups = drawn_groups(self.own if self.own.random() < 0.5 else random.Random(self.number))
        self.made_of = {id(one["params"][0]): dict(one) for one in groups}
        built = []
        refused = attempt(lambda: built.append(drawn_scheduler(draw, groups)()))
        # From here on the common draws must be of one sequence, whatever construction has drawn.
        self.common = random.Random(self.number + 1)
        if any(gathered(refused)):  # some script could not be started
            return None
        (self.scheduler,) = built
        self.states.append(self.scheduler.state_dict())
        calls = [self.load, self.load, self.synchronize, self.read_and_fail, self.verify]
        for _ in range(NUM_CALLS):
            if self.own.random() < 0.5:
                self.alone()
            call = self.common.choice(calls)
            if (wrong := call()) is not None:
                return [*self.calls, wrong]
        return None

    # What this rank does without the others ----------------------------------------------------

    def alone(self):
        """Do something on this rank only; where it fails, nothing has changed."""
        action = self.own.choice(
            [self.move, self.move, self.save, self.load_alone, self.change, self.edit, self.add]
        )
        action()

    def move(self):
        attempt(lambda: self.scheduler.seek(self.own.choice(POSITIONS)))
        attempt(self.scheduler.step)

    def save(self):
        self.states.append(self.scheduler.state_dict())

    def load_alone(self):
        state = self.drawn_state()
        before = contents(self.scheduler)
        if attempt(lambda: self.scheduler.load_state_dict(state, local=True)):
            assert before == contents(self.scheduler)

    def change(self):
        scheduler, position = self.scheduler, self.scheduler.num_steps
        operation = self.own.choice(
            [
                lambda: scheduler.scale(0.5),
                lambda: scheduler.cooldown(16, "linear", 0.0),
                lambda: scheduler.extend(position + 300),
                lambda: scheduler.scale(0.5, field="momentum"),
            ]
        )
        before = contents(scheduler)
        if attempt(operation):
            assert before == contents(scheduler)

    def edit(self):
        """Write an override, which may be illegal; then this rank refuses what others can do."""
        groups = self.scheduler.optimizer.param_groups
        for group, key in itertools.product(groups, OVERRIDES):
            group.pop(key, None)
        if self.own.random() < 0.5:
            self.own.choice(groups)[self.own.choice(OVERRIDES)] = self.own.choice(
                [0.5, 2.0, 1, 1, 0.25, -1.0]
            )

    def add(self):
        group = {"params": [torch.nn.Parameter(torch.ones(1))], "name": self.own.choice(NAMES)}
        if self.own.random() < 0.5:
            group["lr"] = self.own.choice([0.25, 0.5, 1.0])
        self.scheduler.optimizer.add_param_group(group)

    def drawn_state(self):
        """Return one of this rank's states, perhaps of another config, torn, foreign or broken."""
        state = copy.deepcopy(self.own.choice(self.states))
        others = [
            {},
            {"last_batch_iteration": 7},
            {**state, "num_steps": 11},
            {**state, "dist_sched": "{"},
            helpers.state_at(self.own.choice(POSITIONS), max_lr=0.5),
            helpers.saved_state(8, {"lr": self.own.choice(SCHEDULES)}),
        ]
        return self.own.choice(others) if self.own.random() < 0.25 else state

    # What all ranks do together ----------------------------------------------------------------

    def load(self):
        state = self.drawn_state()
        expected = self.own.choice([*[None] * 9, 8])
        return self.together(
            "load", lambda: self.scheduler.load_state_dict(state, expected_position=expected)
        )

    def read_and_fail(self):
        def reader():
            raise OSError(f"rank {self.rank} cannot read")

        return self.together("load_with", lambda: self.scheduler.load_with(reader))

    def synchronize(self):
        return self.together("synchronize", self.scheduler.synchronize)

    def verify(self):
        """Compare; whether ranks differ or not, all say the same, and nothing changes."""
        before = contents(self.scheduler)
        ends = gathered((attempt(self.scheduler.verify), before == contents(self.scheduler)))
        self.calls.append("verify")
        errors = {str(error) for error, _ in ends}
        return None if len(errors) == 1 and all(same for _, same in ends) else ends

    def together(self, name, action):
        """Return how ranks ended, if not alike: the same state, or the same error and no change."""
        self.calls.append(name)
        before = contents(self.scheduler)
        end = attempt(action)
        ends = gathered(
            (end, self.scheduler.state_dict(), before == contents(self.scheduler), self.held())
        )
        errors = [end for end, _, _, _ in ends]
        self.ends["refused" if any(errors) else "applied"] += 1
        if any(errors):
            is_alike = len(set(errors)) == 1 and all(same for _, _, same, _ in ends)
            return None if is_alike else ends
        if len({str(state) for _, state, _, _ in ends}) > 1 or not _agree(
            held for *_, held in ends
        ):
            return ends
        found = gathered(attempt(self.scheduler.verify))
        return found if any(found) else None

    def held(self):
        """Return what the groups hold by what they were made of.

        Without those that were added: their ratios depend on when that was.
        """
        found = {}
        for group in self.scheduler.optimizer.param_groups:
            made = self.made_of.get(id(group["params"][0]))
            if made is not None:
                own = made["lr"], made.get("momentum", 0.5), made.get("name")
                key = str((own, [(key, group[key]) for key in OVERRIDES if key in group]))
                found[key] = group["lr"], group["momentum"], group["weight_decay"]
        return found


def _agree(ranks):
    """Return whether groups of the same kind hold the same on all ranks."""
    known = {}
    return all(
        known.setdefault(key, values) == values for held in ranks for key, values in held.items()
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    with worker.joined():
        numbers = range(arguments.first, arguments.first + arguments.cases)
        wrong, ends = {}, Counter()
        for number in numbers:
            case = Case(number)
            if (found := case.run()) is not None:
                wrong[number] = str(found)[:4000]
            ends += case.ends
        worker.write({"wrong": wrong, "ends": ends})


if __name__ == "__main__":
    main()
