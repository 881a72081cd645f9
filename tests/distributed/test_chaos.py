"""Twenty kills of the training script leave nothing wrong, and what is wrong would be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

import chaos_judge as judge
from chaos_config import Entries, Fields, Preview
from chaos_jobs import descendants
from chaos_plan import FAULTS, MOMENTS, TARGETS, draw

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).parents[2] / "scripts"
SEED, KILLS = 1, 20


def chaos(*arguments):
    """Run the program, and return its status and what it printed."""
    command = [sys.executable, SCRIPTS / "chaos.py", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


# Kills


def test_twenty_kills_cover_every_moment_and_fault_and_whom_they_hit():
    kills = [draw(SEED, number) for number in range(KILLS)]
    assert {*MOMENTS} == {kill.moment for kill in kills}
    assert {*FAULTS} == {kill.fault for kill in kills}
    assert {*TARGETS} == {kill.target for kill in kills}
    assert {1, 2, 3, 4} == {kill.world_size for kill in kills}


def test_after_twenty_kills_every_value_is_on_the_curve_and_nothing_is_lost_or_left(tmp_path):
    status, printed = chaos("--kills", KILLS, "--seed", SEED, "--folder", tmp_path)
    assert 0 == status, printed
    assert f"{KILLS} kills" in printed
    assert "0 violations" in printed


# Faults that it must find

BROKEN = {
    # The lr of the log is not the lr that was used.
    '"lr": {name: float(group["lr"])': '"lr": {name: float(group["lr"]) * (1 + 1e-15)',
    # A resume takes the oldest checkpoint.
    "return complete[-1]\n": "return complete[0]\n",
    # A process outlives the job.
    "    run.start = run.updates\n": "    run.start = run.updates\n"
    '    subprocess.Popen(["sleep", "60"], start_new_session=True)\n',
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Return status and output of a kill of a training script that does several things wrong."""
    folder = tmp_path_factory.mktemp("broken")
    text = (SCRIPTS / "train_fsdp.py").read_text()
    for right, wrong in BROKEN.items():
        assert 1 == text.count(right), right
        text = text.replace(right, wrong)
    (folder / "broken.py").write_text(text)
    options = ("--script", folder / "broken.py", "--folder", folder / "kill")
    return chaos("--seed", SEED, "--only", 4, *options)


@pytest.mark.parametrize(
    "text",
    ["lr at position 2: used", "resumed at 2, the newest checkpoint is 4", "are left"],
)
def test_a_training_script_that_does_wrong_is_found_out(broken, text):
    status, printed = broken
    assert 1 == status
    assert text in printed


@pytest.mark.parametrize("kind", [Entries, Fields])
@pytest.mark.parametrize("seed", range(20))
def test_the_formulas_agree_with_the_library(kind, seed):
    config = kind.draw(Random(seed), 5)
    preview = Preview(config)
    records = [record(position, **preview.values(position)) for position in range(60)]
    assert [] == judge.wrong_values(records, config)


CONFIG = Entries.draw(Random(SEED), 0)


def record(position, lr, wd, **more):
    values = {"lr": {"decay": lr, "no_decay": lr}, "wd": {"decay": wd, "no_decay": 0.0}}
    return {"position": position, **values, **more}


def records(count=6):
    return [record(p, **Preview(CONFIG).values(p), loss=5.0 - p) for p in range(count)]


@pytest.mark.parametrize("name", ["lr", "wd"])
@pytest.mark.parametrize("group", ["decay", "no_decay"])
def test_a_value_that_is_off_by_one_bit_is_found(name, group):
    used = records()
    used[3][name][group] = used[3][name][group] * (1 + 2**-52) or 5e-324
    [found] = judge.wrong_values(used, CONFIG)
    assert found.startswith(f"{name} at position 3: used ")


def test_metrics_of_every_update_are_right():
    assert [] == judge.wrong_metrics(records(), dict.fromkeys(range(6), CONFIG), 6)


@pytest.mark.parametrize(
    "lines, newest",
    [
        pytest.param(records(), 7, id="the last is missing"),
        pytest.param(records()[:2] + records()[3:], 4, id="one is missing"),
        pytest.param(records() + records()[-1:], 4, id="one is there twice"),
        pytest.param(records(7), 4, id="one is of no job"),
    ],
)
def test_metrics_that_lack_or_repeat_an_update_are_found(lines, newest):
    assert judge.wrong_metrics(lines, dict.fromkeys(range(6), CONFIG), newest)


def test_more_lost_updates_than_since_the_last_checkpoint_are_found():
    assert [] == judge.lost_updates(3, 3)
    assert ["4 updates are lost, with a checkpoint every 3"] == judge.lost_updates(4, 3)


@pytest.mark.parametrize("before, newest", [(8, 6), (6, 6), (None, None)])
def test_a_checkpoint_that_was_complete_and_is_gone_is_found(before, newest):
    assert [] == judge.lost_checkpoints("train_fsdp: saved run/step-00000006\n", 4, 6)
    assert judge.lost_checkpoints("train_fsdp: saved run/step-00000008\n", before, newest)


def test_another_loss_after_a_resume_is_found():
    assert [] == judge.other_losses(records(), 3, {3: 2.0})
    assert judge.other_losses(records(), 3, {3: 2.1})


def test_a_process_that_is_left_is_found():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        try:
            assert process.pid in descendants(os.getpid())
        finally:
            process.kill()
