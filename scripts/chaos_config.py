"""Configs that chaos.py draws, and the values that they stand for, without any checkpoint.

The formulas are written here a second time, so that a fault of the library cannot hide in both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from random import Random

Policy = str | dict[str, str]
Values = dict[str, float]
"""Learning rate and weight decay of the group "decay"; the other has this lr, and no decay."""

# What is left of the way from start to end, after a share of a phase.
LEFT: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "minus_sqrt": lambda share: 1 - math.sqrt(share),
    "exponential": lambda share: 2 * 0.5**share - 1,
}


def word_of(policy: Policy, name: str) -> str:
    """Return who wins for a part of a config."""
    return policy if isinstance(policy, str) else policy.get(name, policy["*"])


@dataclass(frozen=True, slots=True)
class Config(ABC):
    """A whole config, in parts for which a policy can have a word."""

    parts: Mapping[str, Any]

    def resolve(self, saved: Config, policy: Policy) -> Config:
        """Return what is in force after this config resumed a checkpoint with the saved one."""
        sides = {"config": self.parts, "checkpoint": saved.parts, "strict": saved.parts}
        return type(self)({name: sides[word_of(policy, name)][name] for name in self.parts})

    def edit(self, rng: Random, position: int) -> tuple[Config, list[str]]:
        """Return a config with some parts drawn again, and their names."""
        drawn = self.draw(rng, position).parts
        names = sorted(rng.sample(self.editable(), rng.randint(1, len(self.editable()))))
        return type(self)({**self.parts, **{name: drawn[name] for name in names}}), names

    @classmethod
    @abstractmethod
    def draw(cls, rng: Random, position: int) -> Config:
        """Return a legal config whose schedule ends after a position."""

    @abstractmethod
    def editable(self) -> list[str]:
        """Return the names of parts that may change in mid-run."""

    @abstractmethod
    def mapping(self) -> dict[str, Any]:
        """Return the config as a file has it."""

    @abstractmethod
    def values(self, position: int) -> Values:
        """Return the values of a position, by formula."""


class Entries(Config):
    """A config of `OptimizerParamScheduler`. Any mixture of two that are drawn is legal."""

    @classmethod
    def draw(cls, rng: Random, position: int) -> Entries:
        """Return a legal config whose schedule ends after a position."""
        return cls(
            {
                "init_lr": rng.choice([0.0, 3e-5]),
                "max_lr": rng.randint(10, 50) / 1e4,
                "min_lr": rng.randint(1, 50) / 1e5,
                "lr_warmup_steps": rng.randint(0, 4),
                "lr_decay_steps": position + rng.randint(12, 40),
                "lr_decay_style": rng.choice(
                    ["constant", "linear", "cosine", "inverse-square-root", "WSD"]
                ),
                "wsd_decay_steps": rng.randint(4, 8),
                "lr_wsd_decay_style": rng.choice(["linear", "cosine", "exponential", "minus_sqrt"]),
                "start_wd": rng.randint(1, 5) / 100,
                "end_wd": rng.randint(6, 20) / 100,
                "wd_incr_steps": position + rng.randint(6, 30),
                "wd_incr_style": rng.choice(["linear", "cosine"]),
            }
        )

    def editable(self) -> list[str]:
        """Return the names of all numbers."""
        names = [name for name, value in self.parts.items() if not isinstance(value, str)]
        # A load compares the length of the tail only under this style.
        return [name for name in names if self._has_tail() or name != "wsd_decay_steps"]

    def mapping(self) -> dict[str, Any]:
        """Return the config as a file has it."""
        tail = ("wsd_decay_steps", "lr_wsd_decay_style")
        return {
            name: value
            for name, value in self.parts.items()
            if self._has_tail() or name not in tail
        }

    def values(self, position: int) -> Values:
        """Return the values of a position, by Megatron's formulas."""
        return {"lr": self._lr(position), "wd": self._wd(position)}

    def _has_tail(self) -> bool:
        return bool(self.parts["lr_decay_style"] == "WSD")

    def _lr(self, position: int) -> float:
        part = self.parts
        low, high, style = part["min_lr"], part["max_lr"], part["lr_decay_style"]
        warmup, horizon = part["lr_warmup_steps"], part["lr_decay_steps"]
        if warmup and position <= warmup:
            return float(part["init_lr"] + (high - part["init_lr"]) * position / warmup)
        if style == "constant":
            return float(high)
        if position > horizon:
            return float(low)
        if style == "inverse-square-root":
            return float(max(low, high * math.sqrt(max(warmup, 1) / max(position, 1))))
        begin = warmup
        if style == "WSD":
            begin, style = horizon - part["wsd_decay_steps"], part["lr_wsd_decay_style"]
        share = max(position - begin, 0) / (horizon - begin)
        return float(low + (high - low) * LEFT[style](share))

    def _wd(self, position: int) -> float:
        part = self.parts
        share = min(position / part["wd_incr_steps"], 1)
        change = part["end_wd"] - part["start_wd"]
        return float(part["end_wd"] - change * LEFT[part["wd_incr_style"]](share))


@dataclass(frozen=True, slots=True)
class Piece:
    """A phase of a field, from a position on."""

    begin: int
    steps: int
    shape: str
    start: float
    end: float

    def at(self, position: int) -> float:
        """Return the value of a position in the piece or after it."""
        share = min((position - self.begin) / self.steps, 1)
        return self.end + (self.start - self.end) * LEFT[self.shape](share)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of `ParamScheduler`: what a file says of it, and what it means."""

    mapping: dict[str, Any]
    pieces: Sequence[Piece]

    @classmethod
    def of(cls, *phases: tuple[str, int, float, float]) -> Field:
        """Return phases (shape, steps, start, end) joined end to end."""
        names = ("shape", "steps", "start", "end")
        mapping = {"phases": [dict(zip(names, phase, strict=True)) for phase in phases]}
        pieces, begin = [], 0
        for shape, steps, start, end in phases:
            pieces.append(Piece(begin, steps, shape, start, end))
            begin += steps
        return cls(mapping, pieces)

    def at(self, position: int) -> float:
        """Return the value of a position."""
        return [piece for piece in self.pieces if piece.begin <= position][-1].at(position)

    def cooled(self, mapping: dict[str, Any], position: int, steps: int) -> Field:
        """Return this field cut at a position, and from there on cooled down to 0."""
        kept = [piece for piece in self.pieces if piece.begin < position]
        tail = Piece(position, steps, "minus_sqrt", self.at(position), 0.0)
        return Field(mapping, [*kept, tail])


class Fields(Config):
    """A config of `ParamScheduler`."""

    @classmethod
    def draw(cls, rng: Random, position: int) -> Fields:
        """Return a legal config whose schedule ends after a position."""
        peak, end = rng.randint(10, 50) / 1e4, rng.randint(1, 50) / 1e5
        low, high = rng.randint(1, 5) / 100, rng.randint(6, 20) / 100
        shapes = ("linear", "cosine", "minus_sqrt")
        return cls(
            {
                "lr": Field.of(
                    ("linear", rng.randint(1, 4), rng.choice([0.0, 3e-5]), peak),
                    ("constant", position + rng.randint(4, 20), peak, peak),
                    (rng.choice(shapes), rng.randint(4, 20), peak, end),
                ),
                "weight_decay": Field.of(
                    (rng.choice(shapes[:2]), position + rng.randint(6, 30), low, high)
                ),
            }
        )

    def editable(self) -> list[str]:
        """Return the names of all fields."""
        return [*self.parts]

    def mapping(self) -> dict[str, Any]:
        """Return the config as a file has it."""
        return {"fields": {name: field.mapping for name, field in self.parts.items()}}

    def values(self, position: int) -> Values:
        """Return the values of a position, by formula."""
        return {"lr": self.parts["lr"].at(position), "wd": self.parts["weight_decay"].at(position)}


class Preview:
    """What the library's own scheduler writes, without load, checkpoint or process group."""

    def __init__(self, config: Config) -> None:
        import torch

        from dist_sched import from_config

        first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
        # As in train_fsdp.py: all of the weight decay, or none.
        self._groups: list[dict[str, Any]] = [
            {"params": [first], "weight_decay": 1.0, "name": "decay"},
            {"params": [second], "weight_decay": 0.0, "name": "no_decay"},
        ]
        self._optimizer = torch.optim.AdamW(self._groups)
        self._scheduler = from_config(self._optimizer, config.mapping())

    def values(self, position: int) -> Values:
        """Return the values of a position."""
        self._scheduler.seek(position)
        group = self._optimizer.param_groups[0]
        return {"lr": float(group["lr"]), "wd": float(group["weight_decay"])}
