"""What each file of `examples/recipes` must have at a position, as its source computes it.

Written from the sources that the files name: arithmetic of a position, with no call of ours. Values
are those of the update that is made at the position, so a source that counts updates before it uses
them is asked for the next one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

from dist_sched import Schedule, from_config
from dist_sched._config import files
from helpers import new_group

FOLDER = Path(__file__).parents[1] / "examples" / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def line(position, *points):
    """Return the value at a position of lines through points, and of the ends beyond them."""
    for (left, low), (right, high) in pairwise(points):
        if left <= position < right:
            return low + (high - low) * (position - left) / (right - left)
    return points[0][1] if position < points[0][0] else points[-1][1]


def stairs(position, *points):
    """Return the value of the last of the points that the position has reached."""
    return points[bisect_right([begin for begin, _ in points], position) - 1][1]


def cosine(position, begin, end, high, low):
    """Return half a cosine from high to low between two positions."""
    share = min(max((position - begin) / (end - begin), 0), 1)
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def smollm3_3b(n):
    peak, begin, steps = 2e-4, 4_198_001, 522_000
    lr = peak * n / 2000 if n <= 2000 else peak
    if n >= begin:
        lr = max(0, peak * (steps - (n - begin)) / steps)
    return {"lr": lr, "weight_decay": 0.1}


OLMO_BATCH = 1024 * 4096


def olmo2_7b(n):
    update = n // OLMO_BATCH + 1
    first = 928_646
    if update > first:
        return {"lr": 6.1499e-5 * max(0, 1 - (update - first) / math.ceil(50e9 / OLMO_BATCH))}
    tokens, warmup, peak = update * OLMO_BATCH, 8_388_608_000, 3e-4
    if tokens < warmup:
        return {"lr": peak * tokens / warmup}
    return {"lr": cosine(tokens, warmup, 5e12, peak, 0.1 * peak)}


def olmo3_7b(n):
    step, peak, batch = n + 1, 3e-4, 8192 * 512
    switch = int(5e12) // batch // 2 + 2000 // 2
    if step <= switch:
        end = math.ceil(5e12 / batch)
        lr = peak * step / 2000 if step < 2000 else cosine(step, 2000, end, peak, 0.1 * peak)
        return {"lr": lr}
    rest = math.ceil(7e12 / batch) - switch
    return {"lr": cosine(step - switch + rest, 0, 2 * rest, peak, 0.1 * peak)}


WSDS_BATCH = 2**19


def olmo_core_wsds(n):
    tokens, parameters = n + WSDS_BATCH, 190_000_000
    base = 0.0047 * (parameters / 108e6) ** (-1 / 3) / 2
    begin = 0
    for multiple in (0.5, 1, 2, 4):
        end = WSDS_BATCH * round(20 * parameters * multiple / WSDS_BATCH)
        peak, decay = base / math.sqrt(multiple), round(0.1 * (end - begin))
        if tokens <= end:
            if multiple == 0.5 and tokens < parameters:
                return {"lr": peak * tokens / parameters}
            return {"lr": peak * min(1, (end - tokens) / decay)}
        begin = end
    return {"lr": 0.0}


def olmo_core_power(n):
    step, peak, warmup, horizon = n + 1, 4e-4, 2000, 100_000
    if step <= warmup:
        return {"lr": peak * step / warmup}
    last = min(step, horizon - horizon // 10)
    left = max(horizon - step, 0)
    return {"lr": peak * (last / warmup) ** -0.51 * min(1, left / (horizon // 10))}


def torchtitan_wsd(n):
    peak, warmup, total = 8e-5, 600, 3000
    decay = round(0.2 * total)
    stable = total + 1 - warmup - decay
    factor = 1.0
    if n < warmup:
        factor = (n + 1) / warmup
    elif n >= warmup + stable:
        share = min(1, (n + 1 - warmup - stable) / decay)
        factor = 0.1 + 0.9 * (1 - math.sqrt(share))
    return {"lr": peak * factor}


def nanochat_d12(n):
    iterations = 2520
    warmdown = round(0.65 * iterations)
    n = min(n, iterations)
    left = (iterations - n) / warmdown
    multiplier = min(1.0, (n + 1) / 40, left + (1 - left) * 0.05)
    momentum = line(n, (0, 0.85), (400, 0.97), (iterations - warmdown, 0.97), (iterations, 0.9))
    decay = 0.28 * 0.5 * (1 + math.cos(math.pi * n / iterations))
    return {"lr": 0.02 * multiplier, "momentum": momentum, "weight_decay": decay}


def modded_nanogpt(n):
    scheduled, total = 1270, 1285
    ends = [round(scheduled / 3), round(scheduled * 2 / 3), scheduled, total]
    stage = min(bisect_right(ends, n), 3)
    t = min(1, (n - [0, *ends][stage]) / (ends[stage] - [0, *ends][stage]))
    cooldown = int(scheduled * (1 - 0.6))
    down = min(max((n - cooldown) / (scheduled - cooldown), 0), 1)
    window_long = 20 if n >= total else (3, 7, 11, 13)[stage]
    return {
        "lr": (1, 1.52, 1.73, 1)[stage] * (1 - down) + 0.15 * down,
        "momentum": line(n, (0, 0.85), (300, 0.95), (total - 50, 0.95), (total, 0.85)),
        "batch_size": (8, 16, 24, 24)[stage] * 2048 * 8,
        "sequence_length": (896, 2048, 2048, 2048)[stage],
        "window_short": (1, 3, 5, 6)[stage],
        "window_long": window_long,
        "mtp_weight_2": (0.5, 0.5 - 0.5 * t, 0, 0)[stage],
        "mtp_weight_3": (0.25 - 0.25 * t, 0, 0, 0)[stage],
        "prefix_weight": (0.25, 0.25 - 0.25 * t, 0, 0)[stage],
    }


def apertus_70b(n):
    peak, low, warmup, decay, horizon = 1e-5, 1e-6, 4_096_000, 403_905_806, 3_662_109_375
    share = min(max((n - (horizon - decay)) / decay, 0), 1)
    lr = peak * n / warmup if n < warmup else low + (1 - math.sqrt(share)) * (peak - low)
    update = n / 2048 + 1  # the batch doubles when both warmups have ended
    share = update / 100_000
    halves = [math.log(0.5) / math.log(beta + 1e-8) for beta in (0.9, 0.9999)]
    warm = 0.5 ** (1 / ((1 - share) * halves[0] + share * halves[1]))
    return {
        "lr": lr,
        "alpha": 8 * min(1, share),
        "betas[2]": warm if share < 1 else 0.9999,
        "weight_decay": 0.1,
        "batch_size": 2048 if n < 1_072_164_864 else 4096,
    }


def deepseek_batch(tokens):
    return int(3072 + (15360 - 3072) * min(1, tokens / 469e9))


@cache
def deepseek_warmup():
    tokens = 0
    for _ in range(2000):
        tokens += deepseek_batch(tokens) * 4096
    return tokens


def deepseek_v3(n):
    lr = cosine(n, 10e12, 14.3e12, 2.2e-4, 2.2e-5)
    if n < deepseek_warmup():
        lr = 2.2e-4 * n / deepseek_warmup()
    if n >= 14.3e12 + 333e9:
        lr = 7.3e-6
    return {
        "lr": lr,
        "batch_size": deepseek_batch(n),
        "bias_update_speed": 0.001 if n < 14.3e12 else 0.0,
        "mtp_weight": 0.3 if n < 10e12 else 0.1,
    }


def falcon_mamba_7b(n):
    batch = int((128 + (2048 - 128) * min(1, n / 50e9)) // 64 * 64)
    decayed = min(max(n - 5e12, 0), 500e9) / 500e9
    return {"lr": 6.4e-4 * (1 / 256) ** decayed * math.sqrt(batch / 2048), "batch_size": batch}


def kimi_k2(n):
    warmup, is_long = 500 * 16384 * 4096, n >= 15.9e12
    lr = 2e-4 * n / warmup if n < warmup else cosine(n, 10e12, 15.5e12, 2e-4, 2e-5)
    if n >= 15.5e12:
        lr = line(n, (15.5e12, 2e-5), (15.96e12, 7e-6))
    return {
        "lr": lr,
        "weight_decay": 0.1,
        "batch_size": 2048 if is_long else 16384,
        "sequence_length": 32768 if is_long else 4096,
    }


@cache
def llama3_stages():
    """Return the updates from which the paper's batches are used, by counting tokens."""
    tokens, updates, begins = 0, 0, []
    for until, batch in ((252e6, 1024 * 4096), (2.87e12, 1024 * 8192)):
        while tokens < until:
            tokens, updates = tokens + batch, updates + 1
        begins.append(updates)
    return begins


def llama3_405b(n):
    longer, larger = llama3_stages()
    return {
        "lr": 8e-5 * n / 8000 if n < 8000 else cosine(n, 8000, 1_200_000, 8e-5, 8e-7),
        "batch_size": 1024 if n < larger else 2048,
        "sequence_length": 4096 if n < longer else 8192,
    }


def minicpm_2b(n):
    halvings = min(max(n - 250_000, 0), 25_000) / 5000
    return {"lr": 0.01 * min(1, n / 2000) * 0.5**halvings}


def marin_8b(n):
    batch = stairs(n, (0, 1024), (660_001, 3072), (1_320_001, 4096))
    if n < 660_000:
        cycle, at = divmod(n, 10_000)
        decayed = 1e-3 / ((1e-3 / 1e-4 - 1) * max(at - 9000, 1) / 1000 + 1)
        lr = 1e-3 * n / 1000 if cycle == 0 and at < 1000 else 1e-3 if at < 9000 else decayed
        return {"lr": lr, "batch_size": batch}
    high, middle, low = 1.7e-3, 1.7e-4, 1.7e-5
    points = [(660_000, high), (740_500, high), (820_000, middle), (822_000, high)]
    points += [(1_320_000, high), (1_400_000, low)]
    return {"lr": line(n, *points), "batch_size": batch}


def axolotl_quadratic(n):
    peak, warmup, total = 8.5e-5, 100, 1000
    return {"lr": peak * (n / warmup) ** 2 if n < warmup else cosine(n, warmup, total, peak, 0)}


def axolotl_rex(n):
    step, peak, low = n + 1, 2e-4, 2e-5
    if step <= 100:
        return {"lr": peak * step / 100}
    left = max(0, (900 - (step - 100)) / 900)
    return {"lr": peak * (low / peak + (1 - low / peak) * left / (0.1 + 0.9 * left))}


def axolotl_jagged_restarts(n):
    step = n + 1
    lr = 2e-4 * step / 150 if step < 150 else cosine(step, 150, 1500, 2e-4, 0)
    if step < 149:
        return {"lr": lr}
    return {"lr": lr * (min(1, step % 150 / 10) * (1 - 0.001) + 0.001)}


def timm_wsd(n):
    peak, first, warmup, stable, decay = 1e-3, 1e-6, 5000, 80_000, 20_000
    if n < warmup:
        return {"lr": first + n * (peak - first) / warmup}
    since = n - warmup
    share = min(max((since - stable) / decay, 0), 1)
    return {"lr": peak * (1 + since / warmup) ** -0.5 * (1 - share**2)}


def big_vision_vit_g(n):
    warmup, cooldown, total = 10_000, 50_000, 1_000_000
    lr = 8e-4 * min(1, n / warmup) / math.sqrt(1 + max(n - warmup, 0) / 10_000)
    return {"lr": lr * min(1, max(total - n, 0) / cooldown)}


def palm_540b(n):
    step = min(n + 1, 255_000)
    lr = min(0.01, 1 / math.sqrt(step))
    batch = stairs(n, (0, 512), (50_000, 1024), (115_000, 2048))
    return {"lr": lr, "weight_decay": lr**2, "beta2": 1 - step**-0.8, "batch_size": batch}


def adamc(n):
    lr = 6e-4 * n / 1000 if n < 1000 else cosine(n, 1000, 100_000, 6e-4, 6e-5)
    return {"lr": lr, "weight_decay": 0.1 * lr / 6e-4}


EXPECTED = {
    function.__name__: function
    for function in (
        adamc,
        apertus_70b,
        axolotl_jagged_restarts,
        axolotl_quadratic,
        axolotl_rex,
        big_vision_vit_g,
        deepseek_v3,
        falcon_mamba_7b,
        kimi_k2,
        llama3_405b,
        marin_8b,
        minicpm_2b,
        modded_nanogpt,
        nanochat_d12,
        olmo2_7b,
        olmo3_7b,
        olmo_core_power,
        olmo_core_wsds,
        palm_540b,
        smollm3_3b,
        timm_wsd,
        torchtitan_wsd,
    )
}
"""By the name of the file, a function from a position to each field and extra."""

STRIDES = {"deepseek_v3": 4096, "olmo2_7b": OLMO_BATCH, "olmo_core_wsds": WSDS_BATCH}
"""Tokens of a sequence or an update, of which every position is a multiple where that matters."""

HORIZONS = {
    "adamc": 100_000,
    "apertus_70b": 3_662_109_375,
    "axolotl_jagged_restarts": 1500 - 1,
    "axolotl_quadratic": 1000,
    "axolotl_rex": 1000 - 1,
    "big_vision_vit_g": 1_000_000,
    "deepseek_v3": 14_800_000_000_000,
    "falcon_mamba_7b": 5_500_000_000_000,
    "kimi_k2": 15_960_000_000_000,
    "llama3_405b": 1_200_000,
    "marin_8b": 1_420_000,
    "minicpm_2b": 275_000,
    "modded_nanogpt": 1270,
    "nanochat_d12": 2520,
    "olmo2_7b": (928_646 + 11_921 - 1) * OLMO_BATCH,
    "olmo3_7b": 1_668_931 - 1,
    "olmo_core_power": 100_000 - 1,
    "olmo_core_wsds": 15_200_157_696 - WSDS_BATCH,
    "palm_540b": 255_000 - 1,
    "smollm3_3b": 4_720_001,
    "timm_wsd": 105_000,
    "torchtitan_wsd": 3000,
}
"""Where lr reaches its last value, less the update that a source is ahead."""

GROUPS = {
    "nanochat_d12": [
        {"name": "muon", "lr": 0.02, "momentum": 0.95, "weight_decay": 0.28},
        {"name": "adamw_head", "lr": 0.008, "weight_decay": 0.01},
        {"name": "adamw_embed", "lr": 0.3, "weight_decay": 0.001},
        {"name": "adamw_head_value", "lr": 0.15, "weight_decay": 0.01},
        {"name": "adamw_resid", "lr": 0.005, "weight_decay": 0.05},
        {"name": "adamw_x0", "lr": 0.5, "weight_decay": 0.0},
    ],
    "modded_nanogpt": [
        {"name": "muon", "lr": 1.0, "momentum": 0.95},
        {"name": "adam", "lr": 0.008},
    ],
    "apertus_70b": [{"lr": 1e-5, "alpha": 8.0, "betas": (0.9, 0.999, 0.9999), "weight_decay": 0.1}],
}
"""Groups of the recipes that need others than one with the highest lr and a weight decay."""


def build(name):
    """Return the scheduler of a recipe, over an optimizer with its groups."""
    peak = config_of(name).fields["lr"].max_value
    own = GROUPS.get(name, [{"lr": peak, "weight_decay": 0.1}])
    groups = [new_group(**group) for group in own]
    return from_config(torch.optim.Optimizer(groups, {}), FOLDER / f"{name}.yaml")


@cache
def config_of(name):
    """Return what the file of a recipe declares."""
    return files.read(FOLDER / f"{name}.yaml").config


def joins_of(name):
    """Return where the phases of a recipe's schedules begin, and where they end."""
    config = config_of(name)
    values = [*config.fields.values(), *config.extras.values()]
    found = [one for one in values if isinstance(one, Schedule)]
    return sorted({int(join) for one in found for join in (*one.boundaries, one.horizon)})


def positions_of(name, most=2500):
    """Return every position of a short recipe; of a long one a dense set, and all around joins."""
    unit, joins = STRIDES.get(name, 1), joins_of(name)
    last = joins[-1] + 10 * unit
    stride = max(1, last // unit // most)
    if last // unit <= 8 * most:
        stride = 1
    near = {join // unit * unit + more * unit for join in joins for more in (-1, 0, 1)}
    return sorted({*range(0, last, stride * unit), *(one for one in near if one >= 0)})


def splits_of(name, most=4):
    """Return positions in the middle of phases."""
    unit = STRIDES.get(name, 1)
    middles = [(begin + end) // 2 // unit * unit for begin, end in pairwise(joins_of(name))]
    return middles[:: -math.ceil(len(middles) / most)][::-1]


def held(scheduler):
    """Return what the first group holds for each scheduled field, and the extras."""
    group = scheduler.optimizer.param_groups[0]
    found = {name: group[name] for name in ("lr", "weight_decay", "momentum") if name in group}
    if "betas" in group:
        found |= {"alpha": group["alpha"], "betas[2]": group["betas"][2]}
    return found | dict(scheduler.extras)


def held_at(scheduler, position):
    """Return what `held` returns once the run is at a position."""
    scheduler.seek(position)
    return held(scheduler)
