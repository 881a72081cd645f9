"""The words of TrainingArguments give the values of transformers, which is run."""

from __future__ import annotations

import warnings

import pytest

from dist_sched import ConfigError, schedules
from peer_helpers import differing

pytest.importorskip("transformers")
TOTAL = 64


def peer(kind, warmup, kwargs, peak=1.0, total=TOTAL):
    """Return the value by the position: the lambda's factor times the peak."""
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_scheduler(kind, optimizer, warmup, total, kwargs or None)
    (factor,) = found.lr_lambdas
    return lambda position: peak * factor(position)


def build(kind="linear", kwargs=None, **words):
    common = {"learning_rate": 1.0, "lr_scheduler_type": kind, "max_steps": TOTAL}
    return schedules.from_peer("transformers", {**common, "lr_scheduler_kwargs": kwargs, **words})


COSINES = [{}, {"num_cycles": 1}, {"num_cycles": 0.3}, {"num_cycles": 2.25}, {"num_cycles": 0}]
WSD = {"num_decay_steps": 20}
CASES = [
    ("linear", {}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    *[("cosine", kwargs) for kwargs in COSINES],
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}),
    *[("cosine_with_min_lr", {"min_lr": 0.2, **kwargs}) for kwargs in COSINES],
    ("cosine_with_min_lr", {"min_lr_rate": 0.0}),
    *[("cosine_warmup_with_min_lr", {"min_lr": 0.2, **kwargs}) for kwargs in COSINES],
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.25}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.0}),
    *[
        ("warmup_stable_decay", {**WSD, "warmup_type": rise, "decay_type": fall})
        for rise in ("linear", "cosine", "1-sqrt")
        for fall in ("linear", "cosine", "1-sqrt")
    ],
    ("warmup_stable_decay", {**WSD, "min_lr_ratio": 0.1, "num_cycles": 0.75}),
    ("warmup_stable_decay", {**WSD, "num_stable_steps": 5, "min_lr_ratio": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 0, "min_lr_ratio": 0.1}),
]


@pytest.mark.parametrize("warmup", [0, 1, 2, 32, 50, 64, 100])
@pytest.mark.parametrize("kind, kwargs", CASES)
def test_values_are_those_of_the_peer(kind, kwargs, warmup):
    ours = build(kind, kwargs, warmup_steps=warmup)
    assert [] == differing(ours, peer(kind, warmup, kwargs), TOTAL)


# At restarts within a step, rounding may leave transformers at the end of the old cycle.
@pytest.mark.parametrize("warmup", [0, 32, 64, 100])
@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_restarts_have_the_values_of_the_peer(cycles, warmup):
    kind, kwargs = "cosine_with_restarts", {"num_cycles": cycles}
    ours = build(kind, kwargs, warmup_steps=warmup)
    assert [] == differing(ours, peer(kind, warmup, kwargs), TOTAL)


@pytest.mark.parametrize("warmup", [0, 1, 50])
@pytest.mark.parametrize("kwargs", [{}, {"power": 2.0, "lr_end": 0.0}, {"power": 0.5}])
def test_a_polynomial_has_the_values_of_the_peer(kwargs, warmup):
    ours = build("polynomial", kwargs, warmup_steps=warmup, learning_rate=3e-4)
    assert [] == differing(ours, peer("polynomial", warmup, kwargs, 3e-4), TOTAL)


@pytest.mark.parametrize("given", [0.0, 0.03, 0.3, 1, 7.9, 20])
def test_warmup_steps_are_read_as_transformers_reads_them(given):
    from transformers import TrainingArguments

    steps = TrainingArguments(warmup_steps=given).get_warmup_steps(TOTAL)
    assert build(warmup_steps=steps) == build(warmup_steps=given)


@pytest.mark.parametrize("ratio, steps", [(0.0, 0), (0.03, 2), (0.5, 32), (0.51, 33), (1, 64)])
def test_a_ratio_of_warmup_is_rounded_up(ratio, steps):
    assert build(warmup_steps=steps) == build(warmup_ratio=ratio)


def test_steps_win_over_a_ratio():
    assert build(warmup_steps=5) == build(warmup_steps=5, warmup_ratio=0.5)


def test_the_words_of_transformers_are_known_by_its_own_enumeration():
    from transformers import SchedulerType

    assert build("cosine") == build(SchedulerType.COSINE)


def test_a_cosine_is_the_named_one():
    assert schedules.cosine(3e-4, TOTAL, 10) == build("cosine", warmup_steps=10, learning_rate=3e-4)


def test_defaults_are_those_of_the_peer():
    words = {"learning_rate": 1.0, "num_training_steps": TOTAL, "max_steps": -1}
    assert schedules.linear(1.0, TOTAL) == schedules.from_peer("transformers", words)


def test_a_constant_needs_no_length():
    assert 1.0 == build("constant_with_warmup", max_steps=None, warmup_steps=5)(10**6)


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
def test_what_follows_a_metric_is_refused(kind):
    with pytest.raises(ConfigError, match=f"{kind}.*depends on a metric.*Plateau"):
        build(kind)


@pytest.mark.parametrize(
    "kind, kwargs, words, message",
    [
        ("cosine_annealing", None, {}, "lr_scheduler_type='cosine_annealing': must be one of"),
        ("linear", {"power": 2}, {}, "lr_scheduler_kwargs: 'power' is not known here"),
        ("cosine", {"num_cycle": 1}, {}, "did you mean 'num_cycles'"),
        ("cosine", {"last_epoch": 3}, {}, "last_epoch=3: is the position of a resume"),
        ("cosine_with_restarts", {"num_cycles": 1.5}, {}, "num_cycles=1.5: must be a whole number"),
        ("cosine", {"num_cycles": 1e-320}, {}, "is too small: half a wave must be at most"),
        ("cosine", {"num_cycles": 1e6}, {}, "makes more than 50,000 phases"),
        ("polynomial", None, {"warmup_steps": 64}, "because the rest is the decay"),
        ("polynomial", {"lr_end": 1.0}, {}, "lr_end=1.0: must be below learning_rate=1.0"),
        ("cosine_with_min_lr", None, {}, "has none of 'min_lr', 'min_lr_rate'"),
        ("warmup_stable_decay", None, {}, "lacks num_decay_steps"),
        ("cosine", None, {"max_steps": None}, "cosine: lacks max_steps or num_training_steps"),
        ("constant", None, {"max_steps": None, "warmup_ratio": 0.1}, "is a fraction of the run"),
        (
            "cosine",
            None,
            {"num_training_steps": 9},
            "num_training_steps=9: must be equal to max_steps=64",
        ),
        ("cosine", None, {"learning_rate": "3e-4"}, "learning_rate='3e-4': must be a number"),
        ("cosine", None, {"weight_decay": 0.1}, "'weight_decay' is not known here"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(kind, kwargs, words, message):
    with pytest.raises(ConfigError, match=message):
        build(kind, kwargs, **words)
