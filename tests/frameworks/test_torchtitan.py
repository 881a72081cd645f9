"""torchtitan's Trainer on CPU, by its own command line, with a scheduler of this library."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torchtitan")

import torch
from torch import nn
from torchtitan.components.optimizer import default_adamw

from dist_sched import ConfigError, ParamScheduler, schedules
from dist_sched.adapters.torchtitan import SchedulersContainer

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]

PROGRAM = "torchtitan_on_cpu.py"
FIELDS = {
    "lr": schedules.cosine(peak=8e-4, horizon=16, warmup=4, floor=8e-5),
    "weight_decay": schedules.proportional_to("lr", at_max=0.1),
}
"""Those of examples/torchtitan_config.py."""


def container(unit="steps", **entries):
    optimizers = default_adamw(lr=8e-4).build(model_parts=[nn.Linear(2, 2)])
    entries = {"make": lambda found, _: ParamScheduler(found, FIELDS, unit=unit), **entries}
    return SchedulersContainer.Config(**entries).build(optimizers=optimizers, training_steps=16)


def curve():
    """Return lr and weight decay of 16 updates in a plain loop."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=8e-4, weight_decay=0.1)
    scheduler = ParamScheduler(optimizer, FIELDS)
    values = []
    for _ in range(16):
        values.append([optimizer.param_groups[0][key] for key in ("lr", "weight_decay")])
        scheduler.step()
    return values


def keep_only_step_7(*folders):
    for folder in folders:
        for later in ("step-14", "step-16"):
            shutil.rmtree(folder / "checkpoint" / later)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torchtitan")


@pytest.fixture(scope="module")
def first(torchrun, folder):
    """Return 16 updates on one process, of our scheduler and of torchtitan's own."""
    runs = [f"ours_async:{folder}/ours:16", f"own:{folder}/own:16"]
    return torchrun(PROGRAM, 1, *runs, timeout=400, aborts=True)


@pytest.fixture(scope="module")
def resumed(torchrun, folder, first):  # noqa: ARG001 - it saves
    """Return what two processes make of these after 7 updates, and 16 of their own."""
    ours, own = folder / "ours", folder / "own"
    keep_only_step_7(ours, own)
    copy = shutil.copytree(ours, folder / "own_manager")
    runs = [f"ours:{ours}:16", f"ours:{own}:16", f"own_manager:{copy}:16"]
    runs += [f"ours_async:{folder}/two:16"]
    return torchrun(PROGRAM, 2, *runs, timeout=400, aborts=True)


@pytest.fixture(scope="module")
def resumed_by_one(torchrun, folder, resumed):  # noqa: ARG001 - it saves
    keep_only_step_7(folder / "two")
    return torchrun(PROGRAM, 1, f"ours:{folder}/two:16", timeout=400, aborts=True)


def test_every_update_uses_the_curve(first):
    assert [curve()] == [rank["ours"]["used"] for rank in first]


def test_every_update_of_two_processes_uses_the_curve(resumed):
    assert [curve()] * 2 == [rank["two"]["used"] for rank in resumed]


def test_two_processes_go_on_bit_for_bit_with_what_one_saved_asynchronously(resumed):
    assert [curve()[7:]] * 2 == [rank["ours"]["used"] for rank in resumed]


def test_one_process_goes_on_bit_for_bit_with_what_two_saved_asynchronously(resumed_by_one):
    assert [curve()[7:]] == [rank["two"]["used"] for rank in resumed_by_one]


def test_torchtitans_own_checkpoint_manager_goes_on_bit_for_bit(resumed):
    assert [curve()[7:]] * 2 == [rank["own_manager"]["used"] for rank in resumed]


def test_a_run_of_torchtitans_own_scheduler_is_resumed_at_its_position(resumed):
    assert [curve()[7:]] * 2 == [rank["own"]["used"] for rank in resumed]


def test_what_is_logged_is_what_the_update_used_after_a_resume_too(first, resumed):
    for rank in [*first, *resumed]:
        used = rank["ours"]["used"]
        assert used == [[row["lr/0"], row["weight_decay/0"]] for row in rank["ours"]["logged"]]


def test_the_container_saves_what_the_scheduler_saves():
    ours = container()
    ours.step()
    assert ours.scheduler.state_dict() == ours.state_dict()


def test_it_loads_the_state_of_torchtitans_own_container():
    ours = container()
    ours.load_state_dict({"last_epoch": 7})
    assert 7 == ours.scheduler.num_steps


def test_an_update_advances_by_the_units_of_a_global_batch():
    ours = container(unit="tokens", increment=512)
    ours.step()
    assert 512 == ours.scheduler.num_steps


@pytest.mark.parametrize("increment", [None, 0, 1.5, True])
def test_the_units_of_an_update_must_be_said_where_they_are_no_steps(increment):
    with pytest.raises(ConfigError, match=r"increment=.*: must be a whole number above 0"):
        container(unit="tokens", increment=increment)


def test_a_file_may_say_the_schedule(tmp_path):
    file = tmp_path / "schedule.yaml"
    file.write_text("fields:\n  lr: {schedule: constant, peak: 2e-4}\n")
    assert {"lr/0": 2e-4} == container(file=str(file), make=None).get_metrics()


@pytest.mark.parametrize("entries", [{"file": "a.yaml"}, {"make": None}])
def test_either_a_file_or_a_function_says_the_schedule(entries):
    with pytest.raises(ConfigError, match="set exactly one of the two"):
        container(**entries)


def test_entries_of_torchtitans_own_schedule_are_refused():
    with pytest.raises(ConfigError, match=r"warmup_steps=5: is an entry of torchtitan's own"):
        container(warmup_steps=5)


def test_it_has_what_torchtitans_trainers_read():
    ours = container()
    assert [[0.0]] == [one.get_last_lr() for one in ours]
    assert 1 == len(ours)
