"""Coefficients of a fall: functions from 1 at progress 0 to 0 at progress 1.

The order of the arithmetic is part of the contract: `OptimizerParamScheduler` must return the same
bits as `megatron.core.optimizer_param_scheduler` (megatron-core 0.16.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Coefficient = Callable[[float], float]


def linear(progress: float) -> float:
    """Return `1 - progress`: a straight line.

    Examples:
        >>> linear(0.0), linear(0.5), linear(1.0)
        (1.0, 0.5, 0.0)
    """
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Return `(1 + cos(pi progress)) / 2`: half a cosine.

    References:
        Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983.

    Examples:
        >>> cosine(0.0), round(cosine(0.5), 15), cosine(1.0)
        (1.0, 0.5, 0.0)
    """
    return 0.5 * (math.cos(math.pi * progress) + 1.0)


def halving(progress: float) -> float:
    """Return `2 (1/2)^progress - 1`, which Megatron-LM calls the "exponential" decay of WSD.

    Examples:
        >>> halving(0.0), round(halving(0.5), 3), halving(1.0)
        (1.0, 0.414, 0.0)
    """
    return 2.0 * math.pow(0.5, progress) - 1.0


def minus_sqrt(progress: float) -> float:
    """Return `1 - sqrt(progress)`.

    References:
        Hägele et al. 2024, https://arxiv.org/abs/2405.18392.

    Examples:
        >>> minus_sqrt(0.0), minus_sqrt(0.25), minus_sqrt(1.0)
        (1.0, 0.5, 0.0)
    """
    return 1.0 - math.sqrt(progress)


def minus_power(progress: float, power: float) -> float:
    """Return `1 - progress^power`. Power 1/2 is `minus_sqrt`, and a rise of power 2 is quadratic.

    References:
        timm's `WSDLRScheduler`, which calls it the "power" decay.

    Examples:
        >>> minus_power(0.0, 2), minus_power(0.5, 2), minus_power(1.0, 2)
        (1.0, 0.75, 0.0)
    """
    return float(1.0 - progress**power)


def exponential_to_zero(progress: float, ratio: float) -> float:
    """Return `(ratio^progress - ratio) / (1 - ratio)`. Ratio 1/2 is `halving`.

    It is an exponential fall from 1 to `ratio`, stretched to end at 0. With a ratio above 1 it is
    slow at first and fast at the end.

    References:
        timm's `WSDLRScheduler`, which calls it the "exp" decay.

    Examples:
        >>> [round(exponential_to_zero(progress, 0.25), 15) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.333333333333333, 0.0]
    """
    rate = math.log(ratio)
    # expm1 keeps the digits where the ratio is near 1.
    return math.exp(progress * rate) * math.expm1((1 - progress) * rate) / math.expm1(rate)


def rex(progress: float, beta: float) -> float:
    """Return `(1 - progress) / (1 - beta progress)`: the reflected exponential.

    The paper's beta is 1/2; axolotl's `RexLR` has 0.9.

    References:
        Chen et al. 2021, https://arxiv.org/abs/2107.04197.

    Examples:
        >>> rex(0.0, 0.5), round(rex(0.5, 0.5), 15), rex(1.0, 0.5)
        (1.0, 0.666666666666667, 0.0)
    """
    return (1.0 - progress) / (1.0 - beta * progress)


def sine(progress: float) -> float:
    """Return `1 - sin(pi progress / 2)`, a quarter of a sine wave.

    Examples:
        >>> sine(0.0), round(sine(1 / 3), 15), sine(1.0)
        (1.0, 0.5, 0.0)
    """
    return 1.0 - math.sin(math.pi * progress / 2)


def linear_rise(progress: float) -> float:
    """Return `progress`: a straight line up. `1 - linear(progress)` would round differently.

    Examples:
        >>> linear_rise(0.0), linear_rise(0.5), linear_rise(1.0)
        (0.0, 0.5, 1.0)
    """
    return progress


def cosine_rise(progress: float) -> float:
    """Return `(1 + cos(pi (1 - progress))) / 2`: half a cosine up.

    Examples:
        >>> cosine_rise(0.0), round(cosine_rise(0.5), 15), cosine_rise(1.0)
        (0.0, 0.5, 1.0)
    """
    # 0.5 * (1 - cos(pi progress)) would round differently.
    return cosine(1 - progress)


def between(fraction: float, high: float, low: float) -> float:
    """Return `low + fraction (high - low)`.

    Examples:
        >>> between(1.0, 4.0, 2.0), between(0.25, 4.0, 2.0), between(0.0, 4.0, 2.0)
        (4.0, 2.5, 2.0)
    """
    return low + fraction * (high - low)
