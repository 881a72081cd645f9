"""Files that the release of version 1 wrote load for ever after, as they are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from dist_sched import ReconcileError, checkpoint
from helpers import adamw, held, opt_param_scheduler, param_scheduler, text_of

DATA = Path(__file__).parents[1] / "data" / "v1"
SUMS = {
    "dcp/.metadata": "9c04fef78db4cc74132b61efee58fe5e2492078407c4a44c4e90a6ed8c180cd9",
    "dcp/__0_0.distcp": "2510c0679914d4ca953b7c6d33e98bfd7648161b55c51998cee4b534ab7099c7",
    "file.pt": "fc2de2fdaefa42dc3a3cefaefdd011d247d24c136f6dd4fa2ff4fd45f8d63279",
    "late_changes.json": "97bca60f0658cb5d8e79c69b2c71bef6016e7a25281f33d14ef777eb5e5562c6",
}
LINEAR = {
    "init_lr": 0.001,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "cosine",
    "wsd_decay_steps": None,
    "lr_wsd_decay_style": None,
}
WSD = {
    **LINEAR,
    "lr_warmup_steps": 37.5,
    "lr_decay_steps": 1000,
    "lr_decay_style": "WSD",
    "wsd_decay_steps": 200,
    "lr_wsd_decay_style": "minus_sqrt",
}
FILES = [
    ("dcp", "steps", 60, LINEAR, 0.55),
    ("file.pt", "tokens", 900, WSD, 0.1 + 0.9 * (1 - 0.5**0.5)),
]
OF_VERSION_2 = json.loads((DATA.parent / "v2" / "states.json").read_text())
POSITIONS_2 = OF_VERSION_2.pop("positions")
SUM_2 = "a441f719caebb111745d7ae97cd718a08f040d277b5b0c23fcfc675911f77e5b"
LATE_CHANGES = json.loads((DATA / "late_changes.json").read_text())
POSITIONS = LATE_CHANGES.pop("positions")


@pytest.mark.parametrize("name", sorted(SUMS))
def test_a_frozen_file_is_never_written_again(name):
    assert SUMS[name] == hashlib.sha256((DATA / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("name, unit, position, entries, lr", FILES)
def test_a_file_of_version_1_gives_back_everything(floats, name, unit, position, entries, lr):
    scheduler = floats.scheduler(unit=unit)
    checkpoint.load(scheduler, DATA / name)
    used = scheduler.last_reconciliation.used
    assert (position, entries) == (scheduler.num_steps, used)
    assert lr == pytest.approx(scheduler.optimizer.param_groups[0]["lr"], rel=1e-15)


def test_the_folder_of_version_1_loads_with_plain_dcp(floats):
    scheduler = floats.scheduler()
    dcp.load({"scheduler": scheduler}, checkpoint_id=DATA / "dcp")
    assert (60, 0.001) == (scheduler.num_steps, scheduler.init_lr)


def test_the_file_of_version_1_loads_with_plain_torch(floats):
    scheduler = floats.scheduler(unit="tokens")
    scheduler.load_state_dict(torch.load(DATA / "file.pt", weights_only=True)["scheduler"])
    assert (900, 200) == (scheduler.num_steps, scheduler.wsd_decay_steps)


@pytest.mark.parametrize("name, unit", [("dcp", "samples"), ("file.pt", "steps")])
@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict"])
def test_a_changed_unit_is_refused_by_name_under_every_policy(floats, name, unit, policy):
    scheduler = floats.scheduler(unit=unit, policy=policy)
    before = scheduler.state_dict()
    with pytest.raises(ReconcileError, match=f"unit is '{unit}' in the config"):
        checkpoint.load(scheduler, DATA / name)
    assert before == scheduler.state_dict()


@pytest.mark.parametrize("name", ["dcp", "file.pt"])
def test_a_state_survives_json_as_it_is(name):
    state, _ = checkpoint.read_state(DATA / name)
    assert state == json.loads(json.dumps(state))
    assert {int, float, str} >= set(map(type, state.values()))


def resumed(state):
    """Return a scheduler of another script, with the groups of the run that saved a state."""
    if "specification" in text_of(state):
        optimizer = adamw({"name": "body"}, {"name": "embed"}, {"name": "head"})
        scheduler = param_scheduler(optimizer, {"lr": 1.0, "weight_decay": 0.1, "betas[0]": 0.5})
    else:
        optimizer = adamw({"name": "body"}, {"name": "embed", "lr": 0.25})
        scheduler = opt_param_scheduler(optimizer)
    scheduler.load_state_dict(state)
    return scheduler


@pytest.mark.parametrize("name", LATE_CHANGES)
@pytest.mark.parametrize("key", ["lr", "weight_decay"])
def test_late_changes_of_version_1_give_their_values_bit_for_bit(name, key):
    saved = LATE_CHANGES[name]
    scheduler, found = resumed(saved["state"]), []
    for position in POSITIONS:
        scheduler.seek(position)
        found.append(held(scheduler, key))
    assert saved[key] == found


@pytest.mark.parametrize("name", LATE_CHANGES)
def test_late_changes_of_version_1_are_saved_as_they_were(name):
    state = LATE_CHANGES[name]["state"]
    assert state == resumed(state).state_dict()


def resumed_of_version_2(name, state):
    """Return a scheduler of another script, with the groups of the run that saved a state."""
    bounds = {"max_lr": 2.0, "min_lr": 0.5}
    if name.startswith("entries"):
        decays = {"start_wd": 0.2, "end_wd": 0.3}
        optimizer = adamw({"name": "body"}, {"name": "embed", **bounds, **decays})
        scheduler = opt_param_scheduler(optimizer)
    else:
        others = (
            [] if name.startswith("fields") else [{"name": "bounded", **bounds}, {"name": "own"}]
        )
        fields = {"lr": 1.0, "weight_decay": 0.1}
        scheduler = param_scheduler(adamw({"name": "body"}, *others), fields, reference=1.0)
    scheduler.load_state_dict(state)
    return scheduler


def test_the_states_of_version_2_are_never_written_again():
    content = (DATA.parent / "v2" / "states.json").read_bytes()
    assert SUM_2 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", OF_VERSION_2)
def test_a_state_of_version_2_gives_its_values_bit_for_bit(name):
    saved = OF_VERSION_2[name]
    scheduler, found = resumed_of_version_2(name, saved["state"]), []
    for position in POSITIONS_2:
        scheduler.seek(position)
        found.append(scheduler.metrics())
    assert saved["values"] == found


@pytest.mark.parametrize("name", OF_VERSION_2)
def test_a_state_of_version_2_is_saved_as_it_was(name):
    state = OF_VERSION_2[name]["state"]
    assert state == resumed_of_version_2(name, state).state_dict()
