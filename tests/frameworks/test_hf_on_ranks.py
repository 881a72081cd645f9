"""HF Trainer under FSDP2, and accelerate's loop, on two ranks and with accumulation."""

from __future__ import annotations

import pytest

from dist_sched import schedules

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]

PROGRAM = "hf_on_ranks.py"
LR = schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4)
WEIGHT_DECAY = schedules.linear(0.1, horizon=16, floor=0.01)
NO_DECAY = {"created", "from theirs"}
"""Cases in which HF's Trainer builds the optimizer, with a group of biases and norms."""
LOOPS = ["prepare", "prepare_scheduler"]
CASES = [*LOOPS, "built", "created"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hf")


@pytest.fixture(scope="module")
def first(torchrun, folder):
    return torchrun(PROGRAM, 2, folder, "whole,save", timeout=400, aborts=True)


@pytest.fixture(scope="module")
def resumed(torchrun, folder, first):  # noqa: ARG001 - it saves
    return torchrun(PROGRAM, 2, folder, "load", timeout=300, aborts=True)


@pytest.fixture(scope="module")
def resumed_by_one(torchrun, folder, first):  # noqa: ARG001 - it saves
    return torchrun(PROGRAM, 1, folder, "load", *LOOPS, timeout=300)


def curve(case, begin=0, end=16):
    """Return lr and weight decay of every group of a case, at each update."""
    return [
        [[LR(k), WEIGHT_DECAY(k)], *([[LR(k), 0.0]] if case in NO_DECAY else [])]
        for k in range(begin, end)
    ]


@pytest.mark.parametrize("case", CASES)
def test_sixteen_updates_are_on_the_curve(case, first):
    assert [curve(case)] * 2 == [rank["whole"][case] for rank in first]


@pytest.mark.parametrize("case", CASES)
def test_seven_updates_and_nine_of_new_processes_are_on_the_curve(case, first, resumed):
    assert [curve(case, end=7)] * 2 == [rank["save"][case] for rank in first]
    assert [curve(case, begin=7)] * 2 == [rank["load"][case] for rank in resumed]


def test_a_run_of_the_trainers_own_scheduler_goes_on_under_ours(resumed):
    assert [curve("from theirs", begin=7)] * 2 == [rank["load"]["from theirs"] for rank in resumed]


@pytest.mark.parametrize("case", LOOPS)
def test_one_process_goes_on_with_what_two_saved(case, resumed_by_one):
    assert [curve(case, begin=7)] == [rank["load"][case] for rank in resumed_by_one]
