"""Every example of plain torch, by the commands that stand in it, goes on exactly on more ranks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dist_sched import schedules

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(500)]

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["ddp.py", "fsdp2.py", "muon_adamw.py", "tokens_batch_ramp.py", "cooldown_forks.py"]
UPDATES, SAVED = 16, 7


def commands(name):
    """Return the arguments of an example's commands: the first one's, then those that resume."""
    text = ast.get_docstring(ast.parse((EXAMPLES / name).read_text()))
    found = re.findall(r"torchrun --nproc-per-node (\d) examples/(\S+.*)", text.replace("\\\n", ""))
    assert [("2", name), *[("3", name)] * (len(found) - 1)] == [
        (ranks, job.split()[0]) for ranks, job in found
    ]
    return [" ".join(job.split()) for _, job in found]


JOBS = {name: commands(name) for name in NAMES}
FORK = JOBS["cooldown_forks.py"][2]
HALF = [FORK.replace("11", "9"), "cooldown_forks.py --updates 11 --resume runs/short/step-9"]
"""A fork that stops in the middle of its cooldown, and goes on without --cooldown."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def on_two(torchrun, folder):
    jobs = [job for name in NAMES for job in (name, JOBS[name][0])]
    return torchrun("run_examples.py", 2, *jobs, cwd=folder, timeout=200, aborts=True)


@pytest.fixture(scope="module")
def on_three(torchrun, folder, on_two):  # noqa: ARG001 - it saves
    jobs = [job for name in NAMES for job in JOBS[name][1:]] + HALF
    return torchrun("run_examples.py", 3, *jobs, cwd=folder, timeout=200, aborts=True)


def used(ranks, job):
    """Return what every update of a job used, which must be the same on every rank."""
    first, *others = [result[job]["used"] for result in ranks]
    assert [first] * len(others) == others
    return first


def size(ranks, job):
    """Return the size of the model that a job left, the mean over ranks or their sum."""
    sizes = [result[job]["size"] for result in ranks]
    return sum(sizes) if "fsdp2" in job or "forks" in job else sum(sizes) / len(sizes)


LR = schedules.cosine(1e-2, horizon=16, warmup=4, floor=1e-3)
DECAY = schedules.linear(0.1, horizon=16, floor=0.01)
WSD = schedules.wsd(1.0, horizon=16, warmup=4, decay=5)
TOKENS = [1200 * update for update in range(6)] + [7200, 9600, 12000, 14400, 18000, 21600]
TOKENS += [26400, 31200, 36000, 40800]
IN_TOKENS = schedules.cosine(1e-3, horizon=45_000, warmup=5_000, floor=1e-4)


def updates(curve, positions=range(UPDATES)):
    return [curve(position) for position in positions]


def muon_adamw():
    """Return what both optimizers use, one after the other at each update."""
    steps = []
    for update in range(UPDATES):
        share, decay = WSD(update), DECAY(update)
        steps.append([[0.02 * share, decay, 0.85 + 0.1 * min(update / 8, 1)]])
        steps.append([[1.5e-4 * share, decay], [3e-4 * share, 0.0]])
    return steps


TWO_GROUPS = updates(lambda n: [[LR(n), DECAY(n)], [LR(n), 0.0]])
EXPECTED = {
    "ddp.py": TWO_GROUPS,
    "fsdp2.py": TWO_GROUPS,
    "muon_adamw.py": muon_adamw(),
    "tokens_batch_ramp.py": updates(lambda n: [[IN_TOKENS(n), 100 * IN_TOKENS(n)]], TOKENS),
    "cooldown_forks.py": updates(lambda n: [[1e-3 * min(n / 4, 1), 0.1]]),
}
"""What every group holds at every update: lr, weight decay and, of Muon, momentum."""


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short_enough_to_start_from(name):
    assert 60 >= len((EXAMPLES / name).read_text().splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_every_update_of_an_example_is_on_its_curves(on_two, name):
    found = used(on_two, name)
    flat = [value for step in found for group in step for value in group]
    expected = [value for step in EXPECTED[name] for group in step for value in group]
    assert pytest.approx(expected, rel=1e-12) == flat


@pytest.mark.parametrize("name", NAMES)
def test_an_example_goes_on_with_the_same_bits_in_new_processes(on_two, on_three, name):
    first, resume, *_ = JOBS[name]
    whole = used(on_two, name)
    begin = len(whole) * SAVED // UPDATES
    assert whole[:begin] == used(on_two, first)
    assert whole[begin:] == used(on_three, resume)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_goes_on_with_its_model_and_optimizers(on_two, on_three, name):
    assert size(on_two, name) == pytest.approx(size(on_three, JOBS[name][1]), rel=1e-5)


def test_a_fork_anneals_from_the_stable_lr(on_three):
    lrs = [step[0][0] for step in used(on_three, FORK)]
    assert [1e-3 * (1 - (n / 4) ** 0.5) for n in range(4)] == pytest.approx(lrs, rel=1e-12)


def test_a_fork_that_is_resumed_goes_on_annealing(on_three):
    begin, rest = (used(on_three, job) for job in HALF)
    assert used(on_three, FORK) == begin + rest
