"""Coefficients: how much of a fall is left, from 1 at progress 0 to 0 at progress 1.

The order of the arithmetic is part of the contract: `OptimizerParamScheduler` promises the same bits
as `megatron.core.optimizer_param_scheduler` (megatron-core 0.16.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Coefficient = Callable[[float], float]


def linear(progress: float) -> float:
    """Fall in a straight line: `1 - progress`.

    >>> linear(0.0), linear(0.5), linear(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Fall along half a cosine, `(1 + cos(pi * progress)) / 2` (https://arxiv.org/abs/1608.03983).

    >>> cosine(0.0), cosine(1.0)
    (1.0, 0.0)
    """
    return 0.5 * (math.cos(math.pi * progress) + 1.0)


def halving(progress: float) -> float:
    """Fall as `2 * 0.5**progress - 1`; Megatron-LM calls this WSD decay "exponential".

    >>> halving(0.0), halving(1.0)
    (1.0, 0.0)
    """
    return 2.0 * math.pow(0.5, progress) - 1.0


def minus_sqrt(progress: float) -> float:
    """Fall as `1 - sqrt(progress)` (https://arxiv.org/abs/2405.18392).

    >>> minus_sqrt(0.0), minus_sqrt(0.25), minus_sqrt(1.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 - math.sqrt(progress)


def linear_rise(progress: float) -> float:
    """Rise in a straight line; not `1 - linear(progress)`, which rounds differently.

    >>> linear_rise(0.0), linear_rise(0.5), linear_rise(1.0)
    (0.0, 0.5, 1.0)
    """
    return progress


def cosine_rise(progress: float) -> float:
    """Rise along half a cosine, which is the fall read backwards.

    >>> cosine_rise(0.0), cosine_rise(1.0)
    (0.0, 1.0)
    """
    return cosine(1 - progress)


def between(fraction: float, high: float, low: float) -> float:
    """Return the value that lies `fraction` of the way from the low bound to the high one.

    >>> between(0.25, 1.0, 0.0)
    0.25
    """
    return low + fraction * (high - low)
