"""The state of `ParamScheduler`: saved, resumed, refused; states of other schedulers; ranks."""

from __future__ import annotations

import copy
import functools
import io
import json
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dist_sched import (
    ParamScheduler,
    Phase,
    RankMismatchError,
    ReconcileError,
    Schedule,
    StateError,
    schedules,
)
from helpers import (
    HILL,
    OTHER_HILL,
    UP,
    adamw,
    contents,
    held,
    opt_param_scheduler,
    param_scheduler,
    saved_state,
    sgd,
    text_of,
    with_text,
)

NAMED = ({"name": "body"}, {"name": "embed"})


def full(build=adamw):
    """Return a scheduler with every kind of part a specification has."""
    optimizer = build({"name": "body"}, {"name": "head", "weight_decay": 0.0}, weight_decay=0.1)
    return ParamScheduler(
        optimizer,
        {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5), "betas[0]": UP},
        groups={"head": {"lr": OTHER_HILL, "betas[0]": 0.5}},
    )


def test_the_state_has_two_keys_and_is_fresh_primitives():
    scheduler = param_scheduler(unit="tokens")
    scheduler.seek(24)
    state = scheduler.state_dict()
    assert {"num_steps", "dist_sched"} == state.keys()
    assert {int, str} == {type(value) for value in state.values()}
    text = text_of(state)
    assert {"version", "unit", "position", "specification", "lineage"} == text.keys()
    assert (24, 24, "tokens", 1) == (
        state["num_steps"],
        text["position"],
        text["unit"],
        text["version"],
    )
    state.clear()
    assert scheduler.state_dict()


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda state: pickle.loads(pickle.dumps(state)),  # noqa: S301 - our own bytes
        lambda state: json.loads(json.dumps(state)),
    ],
)
def test_a_copied_state_loads(copied):
    scheduler = param_scheduler()
    scheduler.load_state_dict(copied(saved_state()))
    assert [0.75] == held(scheduler.optimizer)


def test_a_state_survives_torch_save_with_weights_only():
    file = io.BytesIO()
    torch.save(saved_state(), file)
    file.seek(0)
    scheduler = param_scheduler()
    scheduler.load_state_dict(torch.load(file, weights_only=True))
    assert [0.75] == held(scheduler.optimizer)


def test_dcp_saves_and_loads_a_scheduler_and_its_optimizer(tmp_path):
    first = full()
    first.seek(24)
    dcp.save({"scheduler": first}, checkpoint_id=tmp_path)
    second = full()
    dcp.load({"scheduler": second}, checkpoint_id=tmp_path)
    assert 24 == second.num_steps
    assert contents(first.optimizer) == contents(second.optimizer)
    second.verify()


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "optimizer alone"])
def test_the_order_of_loads_does_not_matter(order):
    first = full()
    first.seek(24)
    optimizer_state, state = copy.deepcopy(first.optimizer.state_dict()), first.state_dict()
    second = full()
    loads = [
        lambda: second.optimizer.load_state_dict(optimizer_state),
        lambda: second.load_state_dict(state),
    ]
    if order == "optimizer alone":
        loads = loads[:1]
    for load in reversed(loads) if order == "scheduler first" else loads:
        load()
    expected = full()
    expected.seek(0 if order == "optimizer alone" else 24)
    assert contents(expected.optimizer) == contents(second.optimizer)


def test_what_an_optimizer_carried_is_compared_field_by_field(caplog):
    first, second = full(), full()
    first.seek(24)
    optimizer_state = copy.deepcopy(first.optimizer.state_dict())
    optimizer_state["param_groups"][1]["betas"] = (0.125, 0.999)
    second.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(first.state_dict())
    (record,) = [one for one in caplog.records if one.levelname == "WARNING"]
    assert "group 1: betas[0] is 0.125 in the optimizer checkpoint" in record.message
    assert "group 0" not in record.message
    assert [0.75, 0.375] == held(second.optimizer, "betas[0]")


RATES = st.floats(0.01, 0.9)


STEPS = st.one_of(st.integers(1, 12), st.floats(1.0, 12.0))


FALLS = st.builds(
    lambda shape, steps, start, end: Phase(shape, steps, max(start, end), min(start, end)),
    st.sampled_from(["linear", "cosine", "exponential", "polynomial"]),
    STEPS,
    RATES,
    RATES,
)


CURVES = st.lists(
    st.one_of(FALLS, st.builds(lambda steps, at: Phase("constant", steps, at, at), STEPS, RATES)),
    min_size=1,
    max_size=4,
).map(Schedule)


FIELDS = st.dictionaries(st.sampled_from(["lr", "betas[0]", "betas[1]", "eps"]), CURVES, min_size=1)


@st.composite
def specifications(draw):
    """Draw fields and groups that fit `drawn`'s optimizer."""
    fields = draw(FIELDS)
    if "lr" in fields and draw(st.booleans()):
        fields["weight_decay"] = schedules.proportional_to(at_max=draw(RATES))
    own = st.dictionaries(
        st.sampled_from([key for key in fields if key != "weight_decay"]),
        st.one_of(CURVES, st.floats(0.0, 1.0)),
    )
    groups = draw(st.dictionaries(st.sampled_from(["head*", "body"]), own))
    return fields, {pattern: own for pattern, own in groups.items() if own}


def drawn(specification, unit):
    optimizer = adamw(
        {"name": "body"}, {"name": "head", "weight_decay": 0.0, "lr": 0.3}, lr=0.1, weight_decay=0.1
    )
    fields, groups = specification
    reference = {key: 0.1 for key in ("lr", "weight_decay") if key in fields}
    return ParamScheduler(optimizer, fields, groups=groups, unit=unit, reference=reference)


@given(
    specification=specifications(),
    unit=st.sampled_from(["steps", "samples", "tokens"]),
    increments=st.lists(st.integers(0, 9), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_resume_is_exact_at_every_split_point(specification, unit, increments):
    whole = drawn(specification, unit)
    states, expected = [whole.state_dict()], [contents(whole.optimizer)]
    for increment in increments:
        whole.step(increment)
        states.append(whole.state_dict())
        expected.append(contents(whole.optimizer))
    for split, state in enumerate(states):
        resumed = drawn(specification, unit)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        found = [contents(resumed.optimizer)]
        for increment in increments[split:]:
            resumed.step(increment)
            found.append(contents(resumed.optimizer))
        assert expected[split:] == found
        assert states[-1] == resumed.state_dict()


def test_loading_twice_is_loading_once():
    state = full()
    state.seek(24)
    scheduler = full()
    scheduler.load_state_dict(state.state_dict())
    once = contents(scheduler.optimizer), scheduler.state_dict()
    scheduler.load_state_dict(state.state_dict())
    assert once == (contents(scheduler.optimizer), scheduler.state_dict())


def broken(change):
    """Return a state whose text was changed."""
    state = saved_state(fields={"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)})
    text = text_of(state)
    change(text)
    return with_text(state, text)


def edited(path, value):
    def change(text):
        *way, last = path
        place = functools.reduce(lambda found, key: found[key], way, text)
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return functools.partial(broken, change)


LR = ("specification", "fields", "lr")


BAD_STATES = {
    "no position": (lambda: {"dist_sched": saved_state()["dist_sched"]}, "'num_steps'"),
    "a bad position": (lambda: {**saved_state(), "num_steps": -1}, "'num_steps'.*num_steps=-1"),
    "a newer version": (edited(("version",), 3), "has version 3.*upgrade"),
    "no version": (edited(("version",), ...), "no valid version"),
    "no unit": (edited(("unit",), ...), "'dist_sched.unit'"),
    "an unknown unit": (edited(("unit",), "epochs"), "'dist_sched.unit'.*'epochs'"),
    "an unknown name": (edited(("color",), 1), "'dist_sched.color'.*is not a key"),
    "no specification": (edited(("specification",), ...), "dist_sched"),
    "no fields": (edited(("specification", "fields"), ...), r"specification\.fields'.*missing"),
    "an unknown part": (edited(("specification", "color"), 1), r"specification\.color'.*not known"),
    "fields of no kind": (edited(("specification", "fields"), []), r"\.fields'.*must be a mapping"),
    "no field": (edited(("specification", "fields"), {}), r"specification\.fields'.*at least one"),
    "no length": (edited((*LR, "phases", 1, "steps"), ...), r"\.fields\.lr'.*phases\[1\].*steps"),
    "a bad length": (edited((*LR, "phases", 0, "steps"), -1), r"fields\.lr'.*steps=-1"),
    "an unknown shape": (edited((*LR, "phases", 1, "shape"), "wave"), r"\.lr'.*shape='wave'"),
    "a number": (edited(LR, 0.5), r"specification\.fields\.lr'"),
    "a bad peak": (
        edited(("specification", "fields", "weight_decay", "peak"), -1),
        r"weight_decay'.*peak=-1",
    ),
    "a coupling to nothing": (
        edited(("specification", "fields", "weight_decay", "to"), "rl"),
        r"weight_decay\.to='rl'",
    ),
    "groups of no kind": (edited(("specification", "groups"), {"a": 1}), r"\.groups\[a\]'"),
    "a group's own": (
        edited(("specification", "groups"), {"a": {"lr": "x"}}),
        r"\.groups\[a\]\.lr'.*multiplier='x'",
    ),
    "no text": (lambda: {**saved_state(), "dist_sched": 3}, "'dist_sched'.*must be a string"),
    "no JSON": (lambda: {**saved_state(), "dist_sched": "{"}, "'dist_sched'.*not valid JSON"),
    "nothing": (dict, "empty"),
}


@pytest.mark.parametrize("kind", BAD_STATES)
def test_a_bad_state_names_the_key_and_changes_nothing(kind):
    build, message = BAD_STATES[kind]
    scheduler = param_scheduler(
        sgd(weight_decay=0.1), {"lr": HILL, "weight_decay": schedules.proportional_to(at_max=0.5)}
    )
    scheduler.seek(4)
    before = contents(scheduler.optimizer), scheduler.state_dict()
    with pytest.raises(StateError, match=message):
        scheduler.load_state_dict(build())
    assert before == (contents(scheduler.optimizer), scheduler.state_dict())
    assert scheduler.last_reconciliation is None


def test_a_load_at_another_position_than_expected_changes_nothing():
    scheduler = param_scheduler()
    with pytest.raises(StateError, match="position is 24, but the trainer's is 25"):
        scheduler.load_state_dict(saved_state(), expected_position=25)
    assert (0, [0.0]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_torn_state_is_mended_from_its_text(caplog):
    scheduler = param_scheduler()
    scheduler.load_state_dict({**saved_state(), "num_steps": 8})
    assert "inconsistent: num_steps differ" in caplog.text
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_text_that_was_never_read_leaves_the_position_alone(caplog):
    scheduler = param_scheduler()
    scheduler.load_state_dict({**scheduler.state_dict(), "num_steps": 24})
    assert "has no text" in caplog.text
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))


def test_a_state_equal_to_the_schedulers_own_at_position_0_is_loaded_with_a_warning(caplog):
    scheduler = param_scheduler()
    scheduler.load_state_dict(scheduler.state_dict())
    assert "perhaps nothing was read" in caplog.text


def megatron_state(position=24, **changes):
    scheduler = opt_param_scheduler(**changes)
    scheduler.seek(position)
    return scheduler.state_dict()


TORCH = {"last_epoch": 24, "_step_count": 25, "base_lrs": [1.0], "_last_lr": [0.75]}


@pytest.mark.parametrize(
    "state, words",
    [
        (megatron_state, "saved by OptimizerParamScheduler: only its position is used"),
        (
            lambda: {k: v for k, v in megatron_state().items() if k != "dist_sched"},
            "saved by OptimizerParamScheduler: only its position is used",
        ),
        (lambda: TORCH, "the state is a torch LRScheduler's"),
        (lambda: {"last_batch_iteration": 23}, "the state is DeepSpeed's"),
    ],
    ids=["ours", "Megatron's", "torch", "DeepSpeed"],
)
def test_another_schedulers_state_gives_the_position_with_a_warning(state, words, caplog):
    scheduler = param_scheduler()
    scheduler.load_state_dict(state())
    assert (24, [0.75]) == (scheduler.num_steps, held(scheduler.optimizer))
    assert words in caplog.text
    assert {"WARNING"} == {record.levelname for record in caplog.records}


def test_another_schedulers_state_names_a_value_that_breaks(caplog):
    param_scheduler().load_state_dict(megatron_state())
    assert "lr for the next update: 0.874 → 0.75 (× 0.8581)" in caplog.text


def test_the_state_of_param_scheduler_gives_megatrons_class_its_position_with_a_warning(caplog):
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(saved_state(60))
    assert (60, pytest.approx(0.55)) == (scheduler.num_steps, scheduler.get_last_lr()[0])
    assert "the state was saved by ParamScheduler: only its position is used" in caplog.text


def test_another_schedulers_unit_is_reconciled_too():
    with pytest.raises(ReconcileError, match="unit is 'steps' in the config and 'tokens'"):
        param_scheduler().load_state_dict(megatron_state(unit="tokens"))
    with pytest.raises(ReconcileError, match="unit is 'steps' in the config and 'tokens'"):
        opt_param_scheduler().load_state_dict(saved_state(unit="tokens"))


def test_another_schedulers_bad_state_is_refused():
    state = megatron_state()
    with pytest.raises(StateError, match="'max_lr'"):
        param_scheduler().load_state_dict({**state, "max_lr": -1.0})


@pytest.mark.parametrize("policy", ["config", "checkpoint", "strict"])
def test_units_that_differ_are_refused_under_every_policy(policy):
    scheduler = param_scheduler(policy=policy)
    with pytest.raises(ReconcileError, match="build the scheduler with unit='tokens'"):
        scheduler.load_state_dict(saved_state(unit="tokens"))
    assert 0 == scheduler.num_steps


def test_a_position_without_a_text_is_refused():
    scheduler = param_scheduler()
    with pytest.raises(StateError, match="key 'dist_sched' of the checkpoint state is missing"):
        scheduler.load_state_dict({"num_steps": 5})
    assert 0 == scheduler.num_steps


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_plain_dcp_loads_the_position_of_megatrons_class(tmp_path):
    other = opt_param_scheduler()
    other.seek(60)
    dcp.save({"scheduler": other}, checkpoint_id=tmp_path)
    scheduler = param_scheduler()
    dcp.load({"scheduler": scheduler}, checkpoint_id=tmp_path)
    assert 60 == scheduler.num_steps
    assert any("OptimizerParamScheduler" in line for line in scheduler.last_reconciliation.warnings)


@pytest.mark.parametrize("name", ["other", None])
@pytest.mark.parametrize("optimizer_first", [True, False])
def test_a_name_that_an_optimizer_load_brings_changes_nothing(name, optimizer_first):
    optimizer = sgd(*NAMED)
    scheduler = param_scheduler(optimizer, {"lr": 1.0}, groups={"embed": {"lr": 0.125}})
    state, saved_state = optimizer.state_dict(), scheduler.state_dict()
    state["param_groups"][1]["name"] = name
    loads = [lambda: optimizer.load_state_dict(state)]
    loads.insert(optimizer_first, lambda: scheduler.load_state_dict(saved_state))
    for load in loads:
        load()
    assert [1.0, 0.125] == held(optimizer) == scheduler.get_last_lr()
    scheduler.verify()


def test_synchronize_changes_nothing_on_one_process():
    scheduler = full()
    scheduler.seek(24)
    before = contents(scheduler.optimizer), scheduler.state_dict()
    scheduler.synchronize()
    assert before == (contents(scheduler.optimizer), scheduler.state_dict())


def test_verify_reads_back_every_field_of_every_group():
    scheduler = full()
    scheduler.seek(24)
    scheduler.verify()
    scheduler.optimizer.param_groups[1]["betas"] = (0.125, 0.999)
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: betas\[0\] is 0\.125 and"):
        scheduler.verify()
    scheduler.step(0)
    scheduler.verify()
