"""OLMo-core's schedulers give OLMo-core's values, by its count, which is one ahead."""

from __future__ import annotations

import math

import pytest

from dist_sched import ConfigError, schedules
from peer_helpers import differing

END = 60


def build(kind, lr=1.0, **block):
    words = {"type": kind, "lr": lr, "max_steps": END, **block}
    return schedules.from_peer("olmo_core", words)


def agree(ours, peer, end=END):
    """Return whether the value of update n is the peer's of `current` n, which counts from 1."""
    return [] == differing(ours, lambda position: peer(position + 1), end - 1)


def rise(current, warmup, start=0.0, peak=1.0):
    return start + (peak - start) * min(current, warmup) / warmup


def tail(current, end, decay, floor, peak=1.0):
    return floor + (peak - floor) * min(end - current, decay) / decay


WARMUPS = pytest.mark.parametrize("warmup", [0, 1, 10, 55, 60, 70])
DECAYS = pytest.mark.parametrize("decay", [1, 6, 60])
FLOORS = pytest.mark.parametrize("floor", [0.0, 0.01])
STARTS = pytest.mark.parametrize("start", [0.0, 0.25])
ALPHAS = pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])


def test_a_constant_has_the_values_of_the_peer():
    assert agree(build("constant"), lambda _current: 1.0)


@WARMUPS
@STARTS
def test_a_warmup_has_the_values_of_the_peer(start, warmup):
    ours = build("constant_with_warmup", warmup=warmup, warmup_min_lr=start)
    assert agree(ours, lambda n: rise(n, warmup, start) if n <= warmup else 1.0)


@WARMUPS
@DECAYS
@FLOORS
def test_wsd_has_the_values_of_the_peer(floor, decay, warmup):
    ours = build("wsd", warmup=warmup, decay=decay, decay_min_lr=floor)

    def peer(current):
        if current <= warmup:
            return rise(current, warmup)
        return tail(current, END, decay, floor)

    assert agree(ours, peer)


@pytest.mark.parametrize("warmup", [1, 10, 55, 70])
@pytest.mark.parametrize("decay", [1, 6, 50])
@pytest.mark.parametrize("b", [-0.51, -1, -0.1])
def test_a_power_law_has_the_values_of_the_peer(b, decay, warmup):
    ours = build("power_lr", warmup=warmup, decay=decay, b=b, decay_min_lr=0.01)

    def peer(current):
        if current <= warmup:
            return rise(current, warmup)
        if current >= END - decay:
            return tail(current, END, decay, 0.01, ((END - decay) / warmup) ** b)
        return (current / warmup) ** b

    assert agree(ours, peer)


@WARMUPS
@ALPHAS
def test_an_inverse_square_root_has_the_values_of_the_peer(alpha, warmup):
    ours = build("inv_sqrt_with_warmup", warmup=warmup, alpha_f=alpha)

    def peer(current):
        if current < warmup:
            return rise(current, warmup)
        return alpha + (1 - alpha) * math.sqrt(warmup / current)

    # A lowest value of 0 without a warmup is 0 everywhere, and so is the peak.
    assert agree(ours, peer)


FALLS = {
    "cos_with_warmup": lambda r: (1 + math.cos(math.pi * r)) / 2,
    "linear_with_warmup": lambda r: 1 - r,
    "half_cos_with_warmup": lambda r: (1 + math.cos(math.pi * (1 + r) / 2)) / 2,
}


@WARMUPS
@ALPHAS
@pytest.mark.parametrize("end", [None, 30, 90])
@pytest.mark.parametrize("kind", FALLS)
def test_a_fall_has_the_values_of_the_peer(kind, end, alpha, warmup):
    ours = build(kind, warmup=warmup, alpha_f=alpha, t_max=end, warmup_min_lr=0.01)
    last = end or END
    peak = (1 + alpha) / 2 if kind == "half_cos_with_warmup" else 1.0

    def peer(current):
        if current < warmup:
            return rise(current, warmup, 0.01, peak)
        if current >= last:
            return alpha
        return alpha + (1 - alpha) * FALLS[kind]((current - warmup) / (last - warmup))

    assert agree(ours, peer)


@pytest.mark.parametrize("warmup", [0, 10, 55])
@pytest.mark.parametrize("decay", [1, 6, 50])
@pytest.mark.parametrize("end", [None, 90])
def test_a_cosine_with_a_tail_has_the_values_of_the_peer(end, decay, warmup):
    kind = "cos_with_warmup_and_linear_decay"
    ours = build(kind, warmup=warmup, alpha_f=0.1, t_max=end, decay=decay)
    last = end or END

    def cosine(current):
        if current < warmup:
            return rise(current, warmup)
        progress = (current - warmup) / (last - warmup)
        return 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2

    def peer(current):
        begin = END - decay
        return cosine(current) if current < begin else tail(current, END, decay, 0, cosine(begin))

    assert agree(ours, peer)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("decay", [1, 5])
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_periods_have_the_values_of_the_peer(warmup, decay, floor):
    lengths, factors = (12, 5, 20, 1 if decay == 1 else 9), (1.0, 0.5, 2.0, 1.0)
    ours = build(
        "wsds",
        period_lengths=lengths,
        period_lr_multipliers=factors,
        warmup=warmup,
        decay=decay,
        decay_min_lr=floor,
    )

    def peer(current):
        if current < warmup:
            return rise(current, warmup)
        begin = 0
        for length, factor in zip(lengths, factors, strict=True):
            # The end of a period belongs to it.
            if current <= begin + length:
                return tail(current - begin, length, decay, floor, factor)
            begin += length
        return floor

    assert agree(ours, peer)


def test_an_exponential_rise_has_the_values_of_the_peer():
    ours = build("exponential", lr_min=1e-6)
    assert agree(ours, lambda n: 1e-6 * 1e6 ** (n / END))


def test_stages_have_the_values_of_the_peer():
    stages = [
        {"duration": 10, "start_lr": 0.0, "end_lr_fraction": 1.0},
        {"duration": 20, "shape": "cosine", "end_lr": 0.1},
        {"duration": 5, "start_lr_fraction": 0.5, "end_lr": 0.2},
    ]

    def peer(current):
        if current < 10:
            return current / 10
        if current < 30:
            return 0.1 + 0.9 * (1 + math.cos(math.pi * (current - 10) / 20)) / 2
        return 0.5 - 0.3 * min(current - 30, 5) / 5

    assert agree(build("composable", stages=stages), peer)


def test_a_late_decay_begins_at_the_value_that_it_meets():
    stages = [{"duration": 20, "start_lr": 0.0, "end_lr": 2.0}]
    late = {"start": 10, "duration": 5, "end_lr_fraction": 0.1}
    ours = build("composable", stages=stages, override_decay=late)
    assert agree(ours, lambda n: n / 10 if n < 10 else 1 - 0.9 * min(n - 10, 5) / 5)


def test_a_sequence_has_the_values_of_the_peer():
    blocks = [
        {"type": "linear_with_warmup", "warmup": 5, "alpha_f": 0.5},
        {"type": "constant_with_warmup", "warmup": 4},
        {"type": "cos_with_warmup", "warmup": 0, "alpha_f": 0.0},
    ]

    def peer(current):
        if current <= 20:
            return rise(current, 5) if current < 5 else 1 - 0.5 * (current - 5) / 15
        if current <= 30:
            # The end of the first is the peak of the second, which warms up from 0 again.
            return rise(current - 20, 4, 0.0, 0.5)
        return 0.5 * (1 + math.cos(math.pi * (current - 30) / (END - 30))) / 2

    assert agree(build("sequential", schedulers=blocks, schedulers_max=[20, 10]), peer)
    assert agree(build("sequential", schedulers=blocks, schedulers_max_steps=[20, 10, 99]), peer)


def test_a_late_decay_takes_over_from_a_sequence_too():
    blocks = [{"type": "constant"}, {"type": "linear_with_warmup", "warmup": 0, "alpha_f": 0.0}]
    late = {"start": 40, "duration": 10, "end_lr": 0.0}
    ours = build("sequential", schedulers=blocks, schedulers_max=[20], override_decay=late)

    def peer(current):
        # Of the 40 updates after the first part, 20 are left, and so is half of lr.
        return min(1, 1 - (current - 20) / 40) if current < 40 else 0.5 * max(0, 50 - current) / 10

    assert agree(ours, peer)


def test_a_run_that_ends_in_the_first_of_a_sequence_has_its_length():
    blocks = [{"type": "linear_with_warmup", "warmup": 0, "alpha_f": 0.0}, {"type": "constant"}]
    ours = build("sequential", schedulers=blocks, schedulers_max=[100])
    assert agree(ours, lambda n: 1 - n / END)


def test_with_units_of_tokens_the_count_is_a_batch_ahead():
    ours = build("cos_with_warmup", warmup=8, units="tokens", max_tokens=80, global_batch_size=4)
    ahead = schedules.cosine(1.0, 80, 8, floor=0.1)
    assert [ahead(n + 4) for n in range(77)] == [ours(n) for n in range(77)]


@pytest.mark.parametrize(
    "given, same",
    [
        ({"warmup_steps": 5}, {"warmup": 5}),
        ({"warmup_fraction": 0.075}, {"warmup": 4}),  # 4.5 is rounded to even
        ({"warmup_fraction": 0.093}, {"warmup": 6}),  # 5.58
        ({"warmup": 5, "decay_steps": 6}, {"warmup": 5}),
        ({"warmup": 5, "decay": 6, "decay_fraction": None}, {"warmup": 5}),
    ],
)
def test_lengths_are_read_as_the_peer_reads_them(given, same):
    assert build("wsd", **same) == build("wsd", **given)


@pytest.mark.parametrize(
    "name", [{"type": "WSD"}, {"type": None, "_CLASS_": "olmo_core.optim.scheduler.WSD"}]
)
def test_a_scheduler_is_known_by_its_class_too(name):
    assert build("wsd", warmup=5) == build(**{"kind": "wsd", "warmup": 5, **name})


@pytest.mark.parametrize(
    "kind, block, words",
    [
        (None, {}, "olmo_core: lacks type"),
        ("constant", {"max_step": 9}, "'max_step' is not known here; did you mean 'max_steps'"),
        ("cosine_with_warmup", {}, "type='cosine_with_warmup': must be one of .*did you mean"),
        ("wsd", {}, "wsd: has none of 'warmup', 'warmup_steps', 'warmup_fraction'"),
        ("wsd", {"warmup": 5, "decay": 6, "decay_fraction": 0.1}, "has decay and decay_fraction"),
        ("wsd", {"warmup": 5, "decay": 61}, "decay=61: is 61 units; must be from 1"),
        ("wsd", {"warmup": 5, "decay_fraction": 0.001}, "decay_fraction=0.001: is 0 units"),
        ("wsd", {"warmup": 5, "decay_min_lr": 1.0}, "decay_min_lr=1.0: must be below 1.0"),
        ("wsd", {"warmup": 5, "warmup_min_lr": 1.0}, "warmup_min_lr=1.0: must be below the peak"),
        ("wsd", {"warmup": 5, "max_steps": None}, "wsd: lacks max_steps"),
        ("wsd", {"warmup": 5, "alpha_f": 0.1}, "'alpha_f' is not known here"),
        ("wsd", {"warmup": 5, "lr_field": "wd"}, "lr_field='wd': must be one of 'lr'"),
        ("wsd", {"warmup": 5, "units": "tokens"}, "lacks global_batch_size"),
        ("power_lr", {"warmup": 5, "b": 0.5}, "b=0.5: must be a number below 0"),
        ("power_lr", {"warmup": 0}, "warmup=0: must be at least 1 unit"),
        ("power_lr", {"warmup": 5, "decay": 60}, "decay=60: must be less than the run"),
        (
            "wsds",
            {"period_lengths": [9], "warmup": 5, "decay": 5},
            "decay=5: is too long beside the warmup",
        ),
        ("wsds", {"period_lengths": [9, 3], "warmup": 5, "decay": 4}, "period 1: decay=4: is 4"),
        ("composable", {"stages": [{"duration": 5}]}, r"stages\[0\]: has none of 'end_lr'"),
        (
            "sequential",
            {"schedulers": [{"type": "wsd"}], "schedulers_max": [1, 2]},
            "must be a list of 0",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(kind, block, words):
    with pytest.raises(ConfigError, match=words):
        build(kind, **block)
