"""Every example of plain torch, by the commands that stand in it, goes on exactly on more ranks."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from dist_sched import schedules

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NAMES = ["ddp.py", "fsdp2.py", "muon_adamw.py", "tokens_batch_ramp.py", "cooldown_forks.py"]
IS_SHARDED = {"fsdp2.py", "cooldown_forks.py"}
UPDATES, SAVED = 16, 7


def source(name):
    return (ROOT / "examples" / name).read_text()


def commands(name):
    """Return the commands at the top of an example, without "torchrun": options and arguments."""
    text = ast.get_docstring(ast.parse(source(name))).replace("\\\n", "")
    return [line.split()[1:] for line in text.splitlines() if line.startswith("torchrun ")]


WHOLE = {name: ["--nproc-per-node", "2", f"examples/{name}"] for name in NAMES}
FIRST = {name: commands(name)[0] for name in NAMES}
RESUME = {name: commands(name)[1] for name in NAMES}
FORK = commands("cooldown_forks.py")[2]
HALF = [word.replace("11", "9") for word in FORK]
REST = [*WHOLE["cooldown_forks.py"], "--updates", "11", "--resume", "runs/short/step-9"]
"""A fork that stops in the middle of its cooldown, and goes on without --cooldown."""


@pytest.fixture(scope="module")
def used(torchrun, tmp_path_factory):
    """Return what runs a command once, and returns what updates used and how large the model is."""
    folder = tmp_path_factory.mktemp("examples")

    @cache
    def run(option, world_size, example, *arguments):
        assert "--nproc-per-node" == option
        command = ["run_example.py", int(world_size), ROOT / example, *arguments]
        first, *others = ranks = torchrun(*command, cwd=folder, aborts=True, timeout=90)
        assert [first["used"]] * len(others) == [other["used"] for other in others]
        size = sum(rank["size"] for rank in ranks)
        return first["used"], size if Path(example).name in IS_SHARDED else size / len(ranks)

    return lambda command: run(*command)


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
    assert 60 >= len(source(name).splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_every_update_of_an_example_is_on_its_curves(used, name):
    updates, _ = used(WHOLE[name])
    found = [value for step in updates for group in step for value in group]
    expected = [value for step in EXPECTED[name] for group in step for value in group]
    assert pytest.approx(expected, rel=1e-12) == found


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_at_the_top_of_an_example_go_on_with_the_same_bits(used, name):
    whole, size = used(WHOLE[name])
    first, _ = used(FIRST[name])
    rest, resumed_size = used(RESUME[name])
    assert len(first) == len(whole) * SAVED // UPDATES
    assert whole == first + rest
    assert size == pytest.approx(resumed_size, rel=1e-5)


def test_a_fork_anneals_from_the_stable_lr_also_after_a_resume(used):
    used(FIRST["cooldown_forks.py"])
    fork, _ = used(FORK)
    lrs = [step[0][0] for step in fork]
    assert [1e-3 * (1 - (n / 4) ** 0.5) for n in range(4)] == pytest.approx(lrs, rel=1e-12)
    assert fork == used(HALF)[0] + used(REST)[0]
