"""What chaos.py draws for each kill: the moment, the fault, the ranks and the edit."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")

BY_CLOCK = "any time"
MOMENTS: dict[str, tuple[str, ...]] = {
    "start-up": ("first line", "before process group", "after process group", "lock", "model"),
    "load": ("before index read", "before read", "after read"),
    "broadcast": ("before broadcast", "after broadcast"),
    "agreement": ("before gather", "after gather"),
    "save": ("before write", "before fsync", "after write"),
    "index": (
        "before index write",
        "before index rename",
        "after index rename",
        "before final rename",
        "after final rename",
    ),
    "pruning": ("before old rename", "before delete", "in delete", "after delete"),
    "training": ("before reduce", "after reduce", "before step", "after step"),
    BY_CLOCK: ("by the clock",),
}
"""Every moment, with the points of the program that it has."""

FIRST_RANK_ONLY = {"lock", "before index read", *MOMENTS["index"], *MOMENTS["pruning"]}
"""Points that only rank 0 comes to."""
NEEDS_CHECKPOINT = ("load", "broadcast", "agreement")
"""Moments that only a resume has."""

KILL, TERM, STOP, FULL, SECOND = FAULTS = (
    "SIGKILL",
    "SIGTERM",
    "SIGSTOP, SIGKILL",
    "disk full",
    "second job",
)
ONE, ALL, LAUNCHER = TARGETS = ("one rank", "all ranks", "launcher")

PER_RUN = 10
"""Kills in a checkpoint folder, before a run starts anew in another one."""
WORLD_SIZES = (1, 1, 2, 2, 2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill. It depends on seed and number alone, so that it can be drawn again alone."""

    number: int
    moment: str
    point: str
    passage: int
    """How often the rank comes to the point before the fault."""
    rank: int
    """The rank that comes to the point, and waits there for the fault."""
    fault: str
    target: str
    victim: int
    """The rank that has the fault, if it is one."""
    world_size: int
    share: float
    """Of the clock: when, as a share of the time that a job takes."""
    head_start: float
    """Seconds that the other ranks have to come to where they wait for this one."""
    pause: float
    """Seconds between SIGSTOP and SIGKILL."""
    file_size: int
    """Bytes after which a file cannot grow, where the disk is full."""
    every: int
    """Updates between checkpoints."""
    keep: int
    """Checkpoints that are kept."""
    is_cooldown: bool
    is_edited: bool
    word: str
    """The policy: checkpoint, config, strict, or "edited" for config where it was edited."""
    seed: str
    """Of the edit."""

    @property
    def run(self) -> int:
        """The number of the run that it is a part of."""
        return self.number // PER_RUN

    @property
    def place(self) -> str:
        """The moment with its point."""
        again = f" {self.passage}" if self.passage > 1 else ""
        return f"{self.moment}: {self.point}{again}"

    @property
    def hit(self) -> str:
        """Who has the fault."""
        if self.fault == SECOND:
            return "same folder"
        return f"rank {self.victim}" if self.target == ONE else self.target


def draw(seed: int, number: int) -> Kill:
    """Return a kill. Any 45 in a row have every moment with every fault."""
    moment = _dealt([*MOMENTS], seed, number)
    fault = _dealt([*FAULTS], seed, number)
    rng = Random(f"kill {seed} {number}")  # noqa: S311 - repeatable on purpose
    point = rng.choice(MOMENTS[moment])
    world_size = rng.choice(WORLD_SIZES)
    every, keep = rng.randint(1, 3), rng.randint(1, 2)
    most = {"save": 2, "index": 2, "training": 2 * every}.get(moment, 1)
    return Kill(
        number=number,
        moment=moment,
        point=point,
        passage=rng.randint(1, most),
        rank=0 if point in FIRST_RANK_ONLY else rng.randrange(world_size),
        fault=fault,
        # The launcher writes nothing.
        target=rng.choice(TARGETS[:2] if fault == FULL else TARGETS),
        victim=rng.randrange(world_size),
        world_size=world_size,
        share=rng.random(),
        head_start=rng.choice([0.0, 0.0, 0.5]),
        pause=rng.uniform(0.05, 0.5),
        file_size=rng.randrange(1500),
        every=every,
        keep=keep,
        is_cooldown=rng.random() < 1 / 4,
        is_edited=rng.random() < 2 / 3,
        word=rng.choice(["checkpoint", "config", "edited", "strict"]),
        seed=f"edit {seed} {number}",
    )


def _dealt(items: list[T], seed: int, number: int) -> T:
    """Return one of the items in turn, in an order that the seed shuffles."""
    order = Random(f"order {seed}").sample(items, len(items))  # noqa: S311 - as above
    return order[number % len(order)]
