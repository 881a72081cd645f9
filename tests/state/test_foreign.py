"""States of other schedulers: what is read from them, and what is the config's."""

from __future__ import annotations

import decimal
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.optim import lr_scheduler as peers

from dist_sched import StateError, checkpoint
from dist_sched._config.path import Path
from dist_sched._state import foreign
from helpers import adamw, opt_param_scheduler

LACKING = "not in the checkpoint: using config value"
LR_ENTRIES = ["init_lr", "max_lr", "min_lr", "lr_warmup_steps", "lr_decay_steps", "lr_decay_style"]
WD_ENTRIES = ["start_wd", "end_wd", "wd_incr_steps", "wd_incr_style"]


def sequence(optimizer, fall, warmup=5, start=0.1):
    rise = peers.LinearLR(optimizer, start, 1.0, total_iters=warmup)
    return peers.SequentialLR(optimizer, [rise, fall], [warmup])


READABLE = {
    "cosine": lambda o: peers.CosineAnnealingLR(o, 40, eta_min=0.05),
    "linear": lambda o: peers.LinearLR(o, 1.0, 0.1, total_iters=40),
    "linear from below the base": lambda o: peers.LinearLR(o, 0.8, 0.2, total_iters=40),
    "polynomial": lambda o: peers.PolynomialLR(o, 40, power=1.0),
    "warmup, cosine": lambda o: sequence(o, peers.CosineAnnealingLR(o, 35, eta_min=0.01)),
    "warmup, linear": lambda o: sequence(o, peers.LinearLR(o, 1.0, 0.0, total_iters=35)),
    "warmup, polynomial": lambda o: sequence(o, peers.PolynomialLR(o, 35, power=1.0)),
}
POSITION_ALONE = {
    "lambda": lambda o: peers.LambdaLR(o, lambda k: 0.9**k),
    "multiplicative": lambda o: peers.MultiplicativeLR(o, lambda _: 0.9),
    "step": lambda o: peers.StepLR(o, 10, 0.5),
    "multistep": lambda o: peers.MultiStepLR(o, [2, 5], 0.5),
    "constant": lambda o: peers.ConstantLR(o, 0.5, 5),
    "exponential": lambda o: peers.ExponentialLR(o, 0.9),
    "rising linear": lambda o: peers.LinearLR(o, 0.1, 1.0, 5),
    "square": lambda o: peers.PolynomialLR(o, 40, power=2.0),
    "one cycle": lambda o: peers.OneCycleLR(o, 0.5, 100, cycle_momentum=False),
    "cyclic": lambda o: peers.CyclicLR(o, 0.01, 0.5, cycle_momentum=False),
    "restarts": lambda o: peers.CosineAnnealingWarmRestarts(o, 3),
    "chained": lambda o: peers.ChainedScheduler(
        [peers.ConstantLR(o, 0.1, 2), peers.ExponentialLR(o, 0.9)]
    ),
    "sequence of three": lambda o: peers.SequentialLR(
        o, [peers.ConstantLR(o), peers.ExponentialLR(o, 0.9), peers.StepLR(o, 3)], [3, 6]
    ),
    "warmup that does not reach the base": lambda o: peers.SequentialLR(
        o, [peers.LinearLR(o, 0.1, 0.5, 5), peers.CosineAnnealingLR(o, 35)], [5]
    ),
    "warmup of another length": lambda o: peers.SequentialLR(
        o, [peers.LinearLR(o, 0.1, 1.0, 4), peers.CosineAnnealingLR(o, 35)], [5]
    ),
    "warmup, linear that jumps": lambda o: sequence(o, peers.LinearLR(o, 0.5, 0.0, 35)),
    "warmup, exponential": lambda o: sequence(o, peers.ExponentialLR(o, 0.9)),
}


def advance(peer, optimizer, updates):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's SequentialLR calls what torch deprecates
        for _ in range(updates):
            optimizer.step()
            peer.step()


def built(make, optimizer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(optimizer)


def whys(scheduler):
    return {row.name: row.why for row in scheduler.last_reconciliation.rows}


@pytest.mark.parametrize(
    "name, position, kind",
    [
        *((name, position, "torch") for name in READABLE for position in (0, 20)),
        *(("warmup, cosine", position, "torch") for position in (1, 4, 5, 6, 39)),
        *((name, 20, "dcp") for name in ("cosine", "warmup, linear")),
    ],
)
def test_a_curve_that_is_in_torchs_state_goes_on_the_same(tmp_path, name, position, kind):
    optimizer = adamw(lr=0.5)
    peer = built(READABLE[name], optimizer)
    advance(peer, optimizer, position)
    if kind == "dcp":
        dcp.save({"lr_scheduler": peer.state_dict()}, checkpoint_id=tmp_path / "a")
    else:
        torch.save({"lr_scheduler": peer.state_dict()}, tmp_path / "a")
    ours = opt_param_scheduler()
    where = checkpoint.load(ours, tmp_path / "a")
    assert ("lr_scheduler", foreign.TORCH) == (where.key, where.format)
    for k in range(position, 40):
        assert k == ours.num_steps
        assert peer.get_last_lr() == pytest.approx(ours.get_last_lr(), rel=1e-12, abs=1e-15)
        advance(peer, optimizer, 1)
        ours.step()
    assert {LACKING} == {whys(ours)[entry] for entry in WD_ENTRIES}
    assert LACKING not in {whys(ours)[entry] for entry in LR_ENTRIES}


@pytest.mark.parametrize(
    "name, position", [*((name, 7) for name in POSITION_ALONE), ("lambda", 0), ("one cycle", 1)]
)
def test_a_curve_that_is_not_in_the_state_is_the_configs_and_the_report_says_so(
    tmp_path, name, position
):
    optimizer = adamw()
    peer = built(POSITION_ALONE[name], optimizer)
    advance(peer, optimizer, position)
    torch.save(peer.state_dict(), tmp_path / "scheduler.pt")
    ours = opt_param_scheduler()
    before = ours.last_reconciliation
    checkpoint.load(ours, tmp_path)
    assert before is None
    assert position == ours.num_steps
    assert {LACKING} == {whys(ours)[entry] for entry in (*LR_ENTRIES, *WD_ENTRIES, "unit")}
    assert "only its position is used" in str(ours.last_reconciliation)


def test_a_cosine_past_its_end_climbs_again_and_is_not_read():
    optimizer = adamw()
    peer = peers.CosineAnnealingLR(optimizer, 10)
    advance(peer, optimizer, 11)
    ours = opt_param_scheduler()
    ours.load_state_dict(peer.state_dict())
    assert LACKING == whys(ours)["lr_decay_style"]


def test_a_cosine_at_its_very_end_is_read():
    optimizer = adamw()
    peer = peers.CosineAnnealingLR(optimizer, 10)
    advance(peer, optimizer, 10)
    ours = opt_param_scheduler()
    ours.load_state_dict(peer.state_dict())
    assert "cosine" == ours.last_reconciliation.used["lr_decay_style"]


def test_a_floor_beside_several_base_rates_is_not_read():
    """The floor of torch is one number for all groups, ours follows the ratio."""
    optimizer = adamw({"lr": 1.0}, {"lr": 0.1})
    peer = peers.CosineAnnealingLR(optimizer, 10, eta_min=0.05)
    ours = opt_param_scheduler()
    ours.load_state_dict(peer.state_dict())
    assert LACKING == whys(ours)["min_lr"]


def test_a_value_that_jumps_is_named(caplog):
    optimizer = adamw(lr=0.3)
    peer = peers.ExponentialLR(optimizer, 0.5)
    advance(peer, optimizer, 10)
    opt_param_scheduler().load_state_dict(peer.state_dict())
    assert "lr for the next update: 0.00029296875 → 1 (× 3413)" in caplog.text


def test_the_report_has_the_value_of_a_scheduler_whose_curve_is_not_in_the_state():
    optimizer = adamw(lr=0.5)
    peer = peers.ExponentialLR(optimizer, 0.5)
    advance(peer, optimizer, 1)
    ours = opt_param_scheduler()
    ours.load_state_dict(peer.state_dict())
    lr = ours.last_reconciliation.next_update[0]
    assert (0.1, 0.25, 0.1) == (lr.config, lr.checkpoint, lr.used)


def test_a_value_that_goes_on_is_said_to(caplog):
    optimizer = adamw()
    peer = peers.LambdaLR(optimizer, lambda k: k / 10)
    advance(peer, optimizer, 5)
    opt_param_scheduler().load_state_dict(peer.state_dict())
    assert "torch LRScheduler" in caplog.text
    assert "lr for the next update: 0.5, as in the checkpoint's run" in caplog.text


def test_strict_does_not_fail_on_what_the_source_lacks():
    ours = opt_param_scheduler(policy="strict")
    ours.load_state_dict({"last_epoch": 7})
    assert 7 == ours.num_steps


def test_the_warning_names_who_steps_more_often_than_once_for_an_update():
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict({"last_epoch": 7})
    (warning,) = scheduler.last_reconciliation.warnings
    assert "once per optimizer update (accelerate calls it once per process" in warning


def test_a_scheduler_that_follows_a_metric_is_refused(tmp_path):
    peer = peers.ReduceLROnPlateau(adamw())
    peer.step(1.0)
    torch.save(peer.state_dict(), tmp_path / "scheduler.pt")
    with pytest.raises(StateError, match="ReduceLROnPlateau"):
        checkpoint.load(opt_param_scheduler(), tmp_path)


def test_torchtitans_count_is_known_by_the_name_it_stands_under(tmp_path):
    dcp.save(
        {"lr_scheduler": {"last_epoch": 42}, "train_state": {"step": 42}},
        checkpoint_id=tmp_path / "step-42",
    )
    ours = opt_param_scheduler()
    assert "lr_scheduler" == checkpoint.load(ours, tmp_path).key
    assert 42 == ours.num_steps


@pytest.mark.parametrize("odd", [None, "x", float("nan")])
def test_a_sequence_whose_warmup_is_not_whole_is_not_read(odd):
    state = built(READABLE["warmup, cosine"], adamw()).state_dict()
    state["_schedulers"][0]["start_factor"] = odd
    ours = opt_param_scheduler()
    ours.load_state_dict(state)
    assert LACKING == whys(ours)["init_lr"]


def test_a_trainers_own_count_of_epochs_is_no_scheduler(tmp_path):
    torch.save({"progress": {"last_epoch": 42}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="it has: 'progress'"):
        checkpoint.read_state(tmp_path / "a.pt")
    assert {"last_epoch": 42} == checkpoint.read_state(tmp_path / "a.pt", key="progress")[0]


@pytest.mark.parametrize("last, position", [(-1, 0), (0, 1), (41, 42)])
def test_deepspeeds_count_is_one_less_than_the_updates(tmp_path, last, position):
    torch.save(
        {"module": {}, "lr_scheduler": {"last_batch_iteration": last}},
        tmp_path / "mp_rank_00_model_states.pt",
    )
    ours = opt_param_scheduler()
    assert "DeepSpeed" == checkpoint.load(ours, tmp_path).format
    assert position == ours.num_steps


@pytest.mark.parametrize(
    "state",
    [
        {"last_epoch": -1},
        {"last_epoch": 1.5},
        {"last_epoch": "7"},
        {"last_epoch": True},
        {"last_epoch": 10**400},
        {"last_batch_iteration": -2},
        {"last_batch_iteration": None},
        {"_schedulers": []},
        {"_schedulers": None},
        {"_schedulers": [{"last_epoch": 1}, {"last_epoch": 2}]},
    ],
)
def test_an_illegal_count_is_refused_and_changes_nothing(state):
    ours = opt_param_scheduler()
    before = ours.state_dict()
    with pytest.raises(StateError):
        ours.load_state_dict(state)
    assert before == ours.state_dict()


@pytest.mark.parametrize(
    "odd",
    [
        {"eta_min": -1.0},
        {"eta_min": 2.0},
        {"eta_min": float("nan")},
        {"T_max": 0},
        {"T_max": "x"},
        {"base_lrs": [float("inf")]},
        {"base_lrs": "x"},
        {"base_lrs": [10**400]},
        {"T_max": 10**400},
        {"base_lrs": []},
    ],
)
def test_parameters_that_are_not_legal_here_are_not_read(odd):
    state = peers.CosineAnnealingLR(adamw(), 40, eta_min=0.05).state_dict()
    ours = opt_param_scheduler()
    ours.load_state_dict({**state, **odd, "last_epoch": 3})
    assert (3, LACKING) == (ours.num_steps, whys(ours)["min_lr"])


@pytest.mark.parametrize("odd", [[None], 7])
def test_a_last_lr_that_is_none_is_passed_over(odd):
    state = peers.CosineAnnealingLR(adamw(), 40, eta_min=0.05).state_dict()
    ours = opt_param_scheduler()
    ours.load_state_dict({**state, "_last_lr": odd, "last_epoch": 3})
    assert (3, 0.05) == (ours.num_steps, ours.min_lr)


def transformers_schedules():
    from transformers import optimization as hf

    return {
        "constant": hf.get_constant_schedule,
        "constant with warmup": lambda o: hf.get_constant_schedule_with_warmup(o, 10),
        "linear": lambda o: hf.get_linear_schedule_with_warmup(o, 10, 110),
        "cosine": lambda o: hf.get_cosine_schedule_with_warmup(o, 10, 110),
        "restarts": lambda o: hf.get_cosine_with_hard_restarts_schedule_with_warmup(o, 10, 110, 2),
        "polynomial": lambda o: hf.get_polynomial_decay_schedule_with_warmup(o, 10, 110),
        "inverse sqrt": lambda o: hf.get_inverse_sqrt_schedule(o, 10),
        "wsd": lambda o: hf.get_wsd_schedule(o, 10, 20, num_training_steps=110),
        "cosine with floor": lambda o: hf.get_cosine_with_min_lr_schedule_with_warmup(
            o, 10, 110, min_lr=0.1
        ),
    }


def loaded_from_a_trainer(folder, make):
    """Return our scheduler after a load of what Trainer saved at 60."""
    optimizer = adamw()
    peer = make(optimizer)
    advance(peer, optimizer, 60)
    (folder / "checkpoint-60").mkdir(parents=True)
    torch.save(peer.state_dict(), folder / "checkpoint-60" / "scheduler.pt")
    ours = opt_param_scheduler(min_lr=0.0)
    checkpoint.load(ours, folder)
    return ours


@pytest.mark.filterwarnings("ignore")
def test_schedules_of_transformers_are_read_as_their_position(tmp_path):
    for name, make in transformers_schedules().items():
        assert 60 == loaded_from_a_trainer(tmp_path / name, make).num_steps


@pytest.mark.filterwarnings("ignore")
def test_a_schedule_of_transformers_that_is_the_configs_goes_on(tmp_path, caplog):
    ours = loaded_from_a_trainer(tmp_path, transformers_schedules()["linear"])
    assert [0.5] == ours.get_last_lr()
    assert "lr for the next update: 0.5, as in the checkpoint's run" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_accelerate_is_read_as_its_position(tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    peer = peers.LinearLR(optimizer, 1.0, 0.1, total_iters=40)
    model, optimizer, peer = accelerator.prepare(model, optimizer, peer)
    for _ in range(7):
        accelerator.backward(model(torch.ones(1, 2)).sum())
        optimizer.step()
        peer.step()
        optimizer.zero_grad()
    accelerator.save_state(str(tmp_path / "checkpoint_7"))
    ours = opt_param_scheduler()
    where = checkpoint.load(ours, tmp_path)
    assert where.path.endswith("scheduler.bin")
    assert (7, peer.get_last_lr()) == (ours.num_steps, pytest.approx(ours.get_last_lr(), rel=1e-12))


ODD = [torch.ones(2), decimal.Decimal("sNaN"), [1] * 3, object(), float("nan"), 10**400, {}]
KEYS = ["power", "start_factor", "end_factor", "total_iters", "eta_min", "T_max", "base_lrs"]


@pytest.mark.parametrize("odd", ODD, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("key", KEYS)
def test_an_odd_value_in_a_foreign_state_leaves_its_position(key, odd):
    last = {"last_epoch": 7, "base_lrs": [1.0], "power": 1, "total_iters": 40, key: odd}
    rise = {"start_factor": 0.1, "end_factor": 1.0, "total_iters": 5, "base_lrs": [1.0], key: odd}
    for state in (last, {"last_epoch": 7, "_schedulers": [rise, last], "_milestones": [5]}):
        assert 7 == foreign.read({**state, "_step_count": 8}).position


FALL = {"T_max": 40, "eta_min": 0.1, "base_lrs": [0.5], "_last_lr": [0.4], "_step_count": 8}
COSINE = {
    "init_lr": 0.5,
    "max_lr": 0.5,
    "min_lr": 0.1,
    "lr_warmup_steps": 0,
    "lr_decay_steps": 40,
    "lr_decay_style": "cosine",
}


def rise(**changes):
    return {"start_factor": 0.1, "end_factor": 1.0, "total_iters": 5, "base_lrs": [0.5], **changes}


def in_sequence(*parts, milestones=(5,), position=7):
    """Return the state of a SequentialLR."""
    schedulers = [{**part, "last_epoch": position} for part in parts]
    state = {"last_epoch": position, "_schedulers": schedulers, "_milestones": [*milestones]}
    return {**state, "_last_lr": [0.4], "_step_count": position + 1}


def of_part(**changes):
    """Return the state of a scheduler alone at 7, its base lr 0.5, with these parameters."""
    return {"base_lrs": [0.5], "last_epoch": 7, "_step_count": 8, **changes}


@pytest.mark.parametrize(
    "keys, name, expected",
    [
        (["last_batch_iteration"], "", "DeepSpeed"),
        (["last_batch_iteration", "last_epoch", "base_lrs"], "", "DeepSpeed"),
        (["_schedulers"], "", "torch LRScheduler"),
        (["last_epoch", "_last_lr"], "", "torch LRScheduler"),
        (["last_epoch", "_step_count"], "", "torch LRScheduler"),
        (["last_epoch", "base_lrs"], "", "torch LRScheduler"),
        (["last_epoch"], "LR_Scheduler", "torch LRScheduler"),
        (["last_epoch"], "progress", None),
        (["last_epoch"], "", None),
        (["base_lrs", "_last_lr"], "scheduler", None),
        ([], "scheduler", None),
    ],
    ids=str,
)
def test_a_library_is_known_by_its_keys_or_by_the_name_of_the_state(keys, name, expected):
    assert expected == foreign.format_of(keys, name)


def test_what_is_no_schedulers_state_is_not_read():
    assert foreign.read({"step": 7}) is None


@pytest.mark.parametrize("last, position", [(-1, 0), (0, 1), (41, 42)])
def test_of_deepspeed_the_position_alone_is_read(last, position):
    found = foreign.read({"last_batch_iteration": last})
    assert ("DeepSpeed", position, {}, {}) == (
        found.format,
        found.position,
        found.entries,
        found.values,
    )
    assert "only its position is used (last_batch_iteration + 1)" in found.warning


@pytest.mark.parametrize(
    "state, key",
    [
        ({"last_batch_iteration": -2}, "last_batch_iteration"),
        ({"last_batch_iteration": -1.0}, "last_batch_iteration"),
        ({"last_batch_iteration": True}, "last_batch_iteration"),
        ({"last_epoch": -1}, "last_epoch"),
        ({"last_epoch": None}, "last_epoch"),
        ({"_schedulers": [{"last_epoch": "x"}]}, "_schedulers.last_epoch"),
        ({"_schedulers": [{}]}, "_schedulers.last_epoch"),
    ],
    ids=str,
)
def test_an_illegal_count_is_named_by_its_key(state, key):
    with pytest.raises(StateError) as caught:
        foreign.read(state)
    assert str(caught.value).startswith(f"key {key!r} of the checkpoint state: {key}=")


@pytest.mark.parametrize(
    "schedulers, shown",
    [([{"last_epoch": 9}, {"last_epoch": 3}], [3, 9]), ([], []), ([7], []), (None, [])],
    ids=str,
)
def test_schedulers_that_have_no_position_in_common_are_refused_with_theirs(schedulers, shown):
    with pytest.raises(StateError) as caught:
        foreign.read({"_schedulers": schedulers})
    text = (
        f"key '_schedulers' of the checkpoint state: its schedulers are at the positions {shown},"
    )
    assert str(caught.value).startswith(text)


def test_schedulers_that_are_all_at_a_position_are_there():
    assert 9 == foreign.read({"_schedulers": ({"last_epoch": 9}, {"last_epoch": 9})}).position


@pytest.mark.parametrize(
    "state, entries",
    [
        (of_part(T_max=40, eta_min=0.1), COSINE),
        (
            of_part(start_factor=1.0, end_factor=0.25, total_iters=30),
            {**COSINE, "min_lr": 0.125, "lr_decay_steps": 30, "lr_decay_style": "linear"},
        ),
        (
            of_part(start_factor=0.5, end_factor=0.25, total_iters=30),
            {
                **COSINE,
                "init_lr": 0.25,
                "max_lr": 0.25,
                "min_lr": 0.125,
                "lr_decay_steps": 30,
                "lr_decay_style": "linear",
            },
        ),
        (
            of_part(power=1.0, total_iters=30),
            {**COSINE, "min_lr": 0.0, "lr_decay_steps": 30, "lr_decay_style": "linear"},
        ),
        (
            in_sequence(rise(), {"T_max": 40, "eta_min": 0.1}),
            {**COSINE, "init_lr": 0.05, "lr_warmup_steps": 5, "lr_decay_steps": 45},
        ),
        (
            in_sequence(rise(total_iters=1), {"T_max": 40, "eta_min": 0.1}, milestones=[1]),
            {**COSINE, "init_lr": 0.05, "lr_warmup_steps": 1, "lr_decay_steps": 41},
        ),
    ],
    ids=["cosine", "linear", "linear from below", "polynomial", "warmup", "warmup of one"],
)
def test_a_curve_is_read_as_entries(state, entries):
    found = foreign.read(state)
    assert (7, entries, "torch LRScheduler") == (found.position, found.entries, found.format)
    assert f"its position and {', '.join(entries)} are used; the position is" in found.warning


@pytest.mark.parametrize(
    "state",
    [
        of_part(),
        of_part(T_max=40),
        of_part(eta_min=0.1),
        of_part(power=2.0, total_iters=30),
        of_part(power=1.0),
        of_part(start_factor=1.0, total_iters=30),
        of_part(start_factor=1.0, end_factor=0.5),
        of_part(T_max=40, eta_min=0.1, base_lrs=[0.5, 0.25]),
        of_part(T_max=40, eta_min=0.1, base_lrs=[0.0]),
        of_part(T_max=40.0, eta_min=0.1),
        of_part(T_max=6, eta_min=0.1),
        in_sequence(rise(), {"T_max": 1, "eta_min": 0.1}),
        in_sequence(rise(), {"T_max": 40, "eta_min": 0.1}, milestones=[]),
        in_sequence(rise(), {"T_max": 40, "eta_min": 0.1}, milestones=[5, 9]),
        in_sequence(rise(), milestones=[5]),
        in_sequence(rise(), FALL, FALL, milestones=[5, 9]),
        in_sequence(rise(), FALL, FALL, milestones=[5]),
        in_sequence(rise(total_iters=4), FALL),
        in_sequence(rise(end_factor=0.5), FALL),
        in_sequence(rise(start_factor=None), FALL),
        in_sequence(rise(), {}),
        in_sequence(rise(), {"start_factor": 0.5, "end_factor": 0.0, "total_iters": 40}),
        in_sequence(
            rise(total_iters=1),
            {"start_factor": 0.5, "end_factor": 0.0, "total_iters": 40},
            milestones=[1],
        ),
    ],
    ids=str,
)
def test_of_a_curve_that_the_entries_cannot_express_only_the_position_is_read(state):
    found = foreign.read(state)
    assert (7, {}) == (found.position, found.entries)
    assert "the state is a torch LRScheduler's: only its position is used; the" in found.warning


@pytest.mark.parametrize("length, is_read", [(6, False), (7, True)])
def test_a_cosine_is_read_until_its_end(length, is_read):
    assert is_read is bool(foreign.read(of_part(T_max=length, eta_min=0.1)).entries)


@pytest.mark.parametrize("length, is_read", [(1, False), (2, True)])
def test_a_cosine_after_a_warmup_is_read_until_its_end(length, is_read):
    state = in_sequence(rise(), {"T_max": length, "eta_min": 0.1})
    assert is_read is bool(foreign.read(state).entries)


def test_a_linear_decay_stays_at_its_end_and_is_read_after_it():
    assert foreign.read(of_part(start_factor=1.0, end_factor=0.5, total_iters=2)).entries


def test_groups_without_a_base_lr_are_passed_over():
    state = of_part(T_max=40, eta_min=0.1, base_lrs=[0.0, 0.5], _last_lr=[0.0, 0.25])
    found = foreign.read(state)
    assert (COSINE, {Path("lr"): 0.25}) == (found.entries, found.values)


@pytest.mark.parametrize(
    "state, values",
    [
        (of_part(_last_lr=[0.25]), {Path("lr"): 0.25}),
        (of_part(_last_lr=[1]), {Path("lr"): 1.0}),
        (of_part(_last_lr=[0.25, 0.5], base_lrs=[0.5]), {Path("lr"): 0.25}),
        (of_part(_last_lr=[0.25], base_lrs=[0.0]), {}),
        (of_part(_last_lr=[float("inf")]), {}),
        (of_part(_last_lr=[True]), {}),
        (of_part(_last_lr=0.25), {}),
        (of_part(_last_lr=[10**400]), {}),
        (of_part(), {}),
        (in_sequence(rise(base_lrs=[0.5]), FALL), {Path("lr"): 0.4}),
        (in_sequence(rise(base_lrs=[0.0]), FALL), {}),
        (
            {"last_epoch": 7, "_schedulers": [], "base_lrs": [0.5], "_last_lr": [0.4]},
            {Path("lr"): 0.4},
        ),
    ],
    ids=str,
)
def test_the_last_lr_of_the_first_group_with_a_base_lr_is_the_value(state, values):
    found = foreign.read(state).values
    assert values == found
    assert {float} >= {type(value) for value in found.values()}


def test_a_number_of_torch_or_numpy_is_a_number():
    state = in_sequence(rise(start_factor=torch.tensor(0.5), total_iters=torch.tensor(5)), FALL)
    assert 0.25 == foreign.read(state).entries["init_lr"]


def test_a_metrics_follower_names_what_to_use_instead():
    with pytest.raises(
        StateError, match=r"ReduceLROnPlateau.*scheduler\.seek\(position\).*Plateau f"
    ):
        foreign.read({"last_epoch": 7, "num_bad_epochs": 0, "_last_lr": [0.1]})


def test_a_part_of_a_sequence_may_have_its_parameters_alone():
    parts = [rise(), {"T_max": 40, "eta_min": 0.1}]
    state = {**in_sequence(), "_schedulers": parts}
    assert 45 == foreign.read(state).entries["lr_decay_steps"]
