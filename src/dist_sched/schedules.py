"""Named schedules: functions that join phases, each with the peer that it agrees with.

These arguments mean the same in every function:

- `peak`: the highest value, reached at position `warmup`.
- `horizon`: the position at which the schedule ends, in units, the warmup included. The value stays
  after it, whatever the peer does there.
- `warmup`: length of the rise from `start` to `peak`, in units. Without one, with 0, the schedule
  starts at the peak.
- `warmup_shape`: the shape of that rise, a line by default. A name of `shapes()`, or a mapping with
  `shape` and its parameters: `{"shape": "minus_power", "power": 2}` is a quadratic warmup.
- `start`: the value at position 0, where there is a warmup.
- `floor`: the value that the decay goes down to.

A length between 0 and 1 is refused, because 0.03 could mean 3 % of the horizon. Config files, where
it means that, may have one.

In the formulas `n` is the position, `w` the warmup, `h` the horizon and `r = (n - w) / (h - w)`.
Where `warmup == horizon` there is no decay, and the value stays at the peak.

Update `n + 1` uses the value at position `n`. For a peer in torch or transformers the position is
its `last_epoch`, or the argument of its lambda, unless a docstring says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_sched._curves.named import (
    LENGTHS,
    NAMED,
    build,
    constant,
    cosine,
    cosine_with_restarts,
    cyclic,
    exponential,
    infinite,
    inverse_sqrt,
    linear,
    multistep,
    noam,
    one_cycle,
    piecewise,
    polynomial,
    power,
    tri_stage,
    wsd,
    wsd_s,
)
from dist_sched._curves.operations import product, raised_to, repeat
from dist_sched._curves.operations import whole_multiples as whole
from dist_sched._curves.pace import units_after
from dist_sched._curves.proportional import ProportionalTo as proportional_to  # noqa: N813
from dist_sched._curves.shapes import shapes
from dist_sched._peers.registry import from_peer
from dist_sched._rules import near_miss

__all__ = [
    "LENGTHS",
    "NAMED",
    "build",
    "constant",
    "cosine",
    "cosine_with_restarts",
    "cyclic",
    "exponential",
    "from_peer",
    "infinite",
    "inverse_sqrt",
    "linear",
    "multistep",
    "noam",
    "one_cycle",
    "piecewise",
    "polynomial",
    "power",
    "product",
    "proportional_to",
    "raised_to",
    "repeat",
    "shapes",
    "tri_stage",
    "units_after",
    "whole",
    "wsd",
    "wsd_s",
]

if not TYPE_CHECKING:  # or every name would be an attribute to type checkers

    def __getattr__(name: str) -> Any:
        """Raise, and name the near miss."""
        close = near_miss(name, NAMED)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{close}")
