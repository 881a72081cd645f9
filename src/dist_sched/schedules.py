"""Named schedules: functions that build a `Schedule` from a few numbers.

Each docstring also tells which scheduler of another library has the same values.

These arguments have the same meaning in every function:

- `peak`: the highest value, reached at position `warmup`.
- `horizon`: the position at which the schedule ends, in units. It includes the warmup. After the
  horizon the value stays constant, even if the other library's scheduler goes on.
- `warmup`: length of the rise from `start` to `peak`, in units. With 0 there is no warmup, and the
  schedule starts at the peak.
- `warmup_shape`: the shape of the warmup, `"linear"` by default. Pass a name of `shapes()`, or a
  mapping with `shape` and its parameters: `{"shape": "minus_power", "power": 2}` is a quadratic
  warmup.
- `start`: the value at position 0. It is used only with a warmup.
- `floor`: the value at the end of the decay.

A length between 0 and 1 is an error, because 0.03 could mean 3 % of the horizon or 0.03 units. In a
config file 0.03 is allowed and means 3 % of the horizon.

In the formulas `n` is the position, `w` the warmup, `h` the horizon and `r = (n - w) / (h - w)`.
If `warmup == horizon` there is no decay, and the value stays at the peak.

The first optimizer update uses the value at position 0. In torch and transformers the position is
`last_epoch`, or the argument of the lambda, unless a docstring says otherwise.
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
        """Raise an AttributeError that suggests the closest name."""
        close = near_miss(name, NAMED)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{close}")
