"""A metric cuts a schedule as torch's class does, and what it did is part of the schedule."""

from __future__ import annotations

import copy
import json
import logging
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Plateau,
    StateError,
    checkpoint,
    schedules,
)
from helpers import CONFIG, UP, adamw, adamw_of_tensors, held, sgd

NAN, INF = math.nan, math.inf
CONSTANT = {**CONFIG, "init_lr": 1.0, "lr_warmup_steps": 0, "lr_decay_style": "constant"}


def phased(lr=1.0, optimizer=None, **fields):
    return ParamScheduler(optimizer or sgd(), {"lr": lr, **fields})


def megatrons(lr=1.0, optimizer=None):
    config = {**CONSTANT, "init_lr": lr, "max_lr": lr, "min_lr": 0.0}
    return OptimizerParamScheduler(optimizer or sgd(lr=lr), **config)


BOTH = pytest.mark.parametrize("build", [phased, megatrons])


def warnings_of(caplog):
    """Return what was logged at WARNING, but for the reports of loads."""
    records = [record for record in caplog.records if record.levelno == logging.WARNING]
    return [text for one in records if "loaded the scheduler" not in (text := one.getMessage())]


def run(plateau, metrics, key="lr"):
    """Step and update once for each metric, and return the first group's values."""
    found = []
    for metric in metrics:
        plateau.scheduler.step()
        plateau.update(metric)
        found.append(held(plateau.scheduler, key)[0])
    return found


# What torch's class does


def of_torch(metrics, lr=1.0, **arguments):
    optimizer = sgd(lr=lr)
    peer = ReduceLROnPlateau(optimizer, **arguments)
    found = []
    for metric in metrics:
        peer.step(metric)
        found.append(optimizer.param_groups[0]["lr"])
    return found, peer


METRICS = st.lists(
    st.one_of(
        st.sampled_from([NAN, INF, -INF, 0.0, 1.0, 1.0, 0.5]),
        st.floats(-2, 2).map(lambda metric: round(metric, 2)),
    ),
    max_size=60,
)


@BOTH
@given(
    metrics=METRICS,
    lr=st.sampled_from([1.0, 0.3, 1e-3]),
    factor=st.sampled_from([0.1, 0.5, 0.7, 0.97]),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    mode=st.sampled_from(["min", "max"]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 4),
    least=st.sampled_from([0.0, 1e-4, 0.1, 0.2]),
    eps=st.sampled_from([0.0, 1e-8, 0.03]),
)
def test_values_over_a_constant_schedule_are_those_of_torch(build, metrics, lr, least, **arguments):
    # Not bit for bit: torch multiplies the last value, and a schedule is multiplied as a whole.
    expected, peer = of_torch(metrics, lr, min_lr=least, **arguments)
    plateau = Plateau(build(lr), min_value=least, **arguments)
    assert pytest.approx(expected, rel=1e-12, abs=0) == run(plateau, metrics)
    counts = (peer.best, peer.num_bad_epochs, peer.cooldown_counter, peer.last_epoch)
    assert counts == (
        plateau.best,
        plateau.num_bad_epochs,
        plateau.cooldown_counter,
        plateau.num_updates,
    )


def test_the_defaults_are_those_of_torch():
    metrics = [1.0] * 40
    expected, _ = of_torch(metrics)
    assert pytest.approx(expected, rel=1e-12) == run(Plateau(phased()), metrics)
    assert 3 == len(set(expected)) - 1


def test_a_cut_comes_after_more_than_patience_updates_in_a_row_that_are_no_better():
    values = run(Plateau(phased(), 0.5, 2), [1, 1, 1, 0.5, 1, 1, 1, 1])
    assert [1, 1, 1, 1, 1, 1, 0.5, 0.5] == values


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_nan_is_never_better_and_counts_as_a_bad_update(mode, threshold_mode):
    plateau = Plateau(phased(), 0.5, 1, mode=mode, threshold_mode=threshold_mode)
    assert [1.0, 1.0, 0.5] == run(plateau, [1.0, NAN, NAN])
    assert 1.0 == plateau.best


def test_nan_is_named_once_in_the_log(caplog):
    run(Plateau(phased()), [1.0, NAN, NAN])
    (line,) = warnings_of(caplog)
    assert "the metric of update 2 is nan, which never counts" in line


def test_a_metric_below_0_under_a_relative_threshold_is_named_once(caplog):
    run(Plateau(phased(), threshold_mode="abs"), [-1.0])
    run(Plateau(phased(), threshold=0), [-1.0])
    assert [] == caplog.records
    run(Plateau(phased()), [-1.0, -2.0])
    (line,) = warnings_of(caplog)
    assert "update 1 is -1.0: for metrics below 0, a relative threshold counts worse" in line


def test_no_cut_goes_below_min_value_and_none_is_made_there():
    plateau = Plateau(phased(), 0.1, 0, min_value=0.3, eps=0.0)
    assert [1.0, 0.3, 0.3, 0.3] == run(plateau, [1, 1, 1, 1])
    assert 1 == len(plateau.scheduler.history)


def test_a_value_that_rounding_leaves_just_above_min_value_is_not_cut_again():
    plateau = Plateau(phased(0.3), 0.1, 0, min_value=0.19, eps=0.0)
    assert [0.3, 0.19, 0.19] == pytest.approx(run(plateau, [1, 1, 1]), rel=1e-15)
    assert 0.19 < held(plateau.scheduler)[0]
    assert 1 == len(plateau.scheduler.history)


def test_the_history_has_the_factor_as_it_was_typed():
    plateau = Plateau(phased(0.1), 0.1, 0)
    run(plateau, [1, 1])
    assert 0.1 == plateau.scheduler.history[0].arguments["factor"]


def test_a_value_below_min_value_is_not_raised():
    plateau = Plateau(phased(0.25), 0.5, 0, min_value=0.5)
    assert [0.25, 0.25] == run(plateau, [1, 1])
    assert () == plateau.scheduler.history


def test_a_cut_that_lowers_by_no_more_than_eps_is_left_out():
    assert [1.0, 1.0] == run(Plateau(phased(), 0.5, 0, eps=0.5), [1, 1])
    assert [1.0, 0.5] == run(Plateau(phased(), 0.5, 0, eps=0.4375), [1, 1])


def test_a_value_of_0_and_the_smallest_value_are_not_cut():
    for lr in (0.0, 5e-324):
        assert [lr, lr] == run(Plateau(phased(lr), 0.1, 0, eps=0.0), [1, 1])


def test_groups_keep_their_ratios_where_torch_stops_each_at_its_own_min_lr():
    groups = {"lr": 1.0}, {"lr": 0.5}
    peer = ReduceLROnPlateau(sgd(*groups), factor=0.25, patience=0, min_lr=0.25)
    plateau = Plateau(phased(optimizer=sgd(*groups)), 0.25, 0, min_value=0.25)
    for metric in (1.0, 1.0):
        peer.step(metric)
        plateau.update(metric)
    assert [0.25, 0.25] == [group["lr"] for group in peer.optimizer.param_groups]
    assert [0.25, 0.125] == held(plateau.scheduler)


# Schedules


def test_a_cut_multiplies_what_is_left_of_a_schedule():
    plateau = Plateau(phased(schedules.linear(1.0, 16)), 0.5, 0)
    values = run(plateau, [1.0] * 2)
    assert [0.9375, 0.4375] == values
    plateau.scheduler.seek(12)
    assert [0.125] == held(plateau.scheduler)


def test_min_value_is_compared_with_the_schedule_at_the_position():
    plateau = Plateau(phased(schedules.linear(1.0, 4)), 0.25, 0, min_value=0.25)
    assert [0.75, 0.25, 0.125, 0.0] == run(plateau, [1, 1, 1, 1])
    assert 1 == len(plateau.scheduler.history)


@pytest.mark.parametrize("field", ["weight_decay", "momentum"])
def test_any_field_can_be_cut(field):
    plateau = Plateau(phased(**{field: 0.5}), 0.5, 0, field=field)
    assert [0.5, 0.25] == run(plateau, [1, 1], field)
    assert [1.0] == held(plateau.scheduler)


def test_an_extra_can_be_cut():
    scheduler = ParamScheduler(sgd(), {"lr": 1.0}, extras={"loss_weight": 0.5})
    plateau = Plateau(scheduler, 0.5, 0, field="loss_weight")
    found = []
    for _ in range(2):
        plateau.update(1.0)
        found.append(scheduler.extras["loss_weight"])
    assert [0.5, 0.25] == found


def test_weight_decay_of_megatrons_class_can_be_cut():
    optimizer = adamw(weight_decay=0.5)
    scheduler = OptimizerParamScheduler(optimizer, **{**CONSTANT, "start_wd": 0.5, "end_wd": 0.5})
    assert [0.5, 0.25] == run(
        Plateau(scheduler, 0.5, 0, field="weight_decay"), [1, 1], "weight_decay"
    )


def test_a_field_in_proportion_follows_the_cut():
    scheduler = phased(weight_decay=schedules.proportional_to("lr", at_max=0.1))
    assert pytest.approx([0.1, 0.05]) == run(Plateau(scheduler, 0.5, 0), [1, 1], "weight_decay")


def test_several_optimizers_and_tensors_are_cut_alike():
    optimizers = [sgd(lr=0.5), adamw_of_tensors(lr=1.0)]
    lr = optimizers[1].param_groups[0]["lr"]
    plateau = Plateau(ParamScheduler(optimizers, {"lr": 1.0}), 0.5, 0)
    assert [False, True] == [plateau.update(1.0), plateau.update(1.0)]
    assert [[0.25], [0.5]] == [held(one) for one in optimizers]
    assert lr is optimizers[1].param_groups[0]["lr"]


def test_two_plateaus_may_cut_two_fields_of_one_scheduler():
    scheduler = phased(momentum=0.5)
    lr, momentum = Plateau(scheduler, 0.5, 0), Plateau(scheduler, 0.5, 1, field="momentum")
    for metric in (1, 1, 1):
        lr.update(metric)
        momentum.update(metric)
    assert ([0.25], [0.25]) == (held(scheduler), held(scheduler, "momentum"))


def test_the_cut_stands_in_the_history_and_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    plateau = Plateau(phased(), 0.5, 0)
    run(plateau, [1, 1])
    (change,) = plateau.scheduler.history
    assert "scale at 2 (field=lr, factor=0.5)" == str(change)
    assert "scale at 2: lr changes from 1 to 0.5" in caplog.text


# Resumes

LOSSES = [1.0, 0.9, 0.9, 0.9, 0.8, NAN, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7]


def built(build=phased, **arguments):
    optimizer = adamw_of_tensors() if build is phased else None
    return Plateau(build(optimizer=optimizer), **{"factor": 0.5, "patience": 1, **arguments})


@BOTH
@pytest.mark.parametrize("split", range(len(LOSSES) + 1))
def test_a_resume_at_any_update_has_the_values_of_a_run_that_never_stopped(build, split):
    expected = run(built(build, cooldown=1), LOSSES)
    first, second = built(build, cooldown=1), built(build, cooldown=1)
    before = run(first, LOSSES[:split])
    second.load_state_dict(first.state_dict())
    second.scheduler.load_state_dict(first.scheduler.state_dict())
    assert expected == before + run(second, LOSSES[split:])


def test_a_run_is_repeated_without_the_metrics():
    plateau = built()
    values = [1.0, *run(plateau, LOSSES)]
    again = phased()
    again.load_state_dict(plateau.scheduler.state_dict())
    found = []
    for position in range(len(values)):
        again.seek(position)
        found += held(again)
    # A value is cut after the update at its position.
    assert values == found
    assert 0.5**5 == values[-1]


def test_megatrons_entries_go_on_from_the_cuts_without_the_metrics():
    plateau = built(megatrons)
    *_, last = run(plateau, LOSSES)
    again = megatrons()
    again.load_state_dict(plateau.scheduler.state_dict())
    again.step(100)
    assert [last] == held(again)


def test_dcp_saves_and_loads_both(tmp_path):
    first, second = built(), built()
    run(first, LOSSES[:8])
    tree = {"scheduler": first.scheduler, "plateau": first}
    dcp.save(tree, checkpoint_id=tmp_path)
    dcp.load({"scheduler": second.scheduler, "plateau": second}, checkpoint_id=tmp_path)
    assert first.state_dict() == second.state_dict()
    assert run(first, LOSSES[8:]) == run(second, LOSSES[8:])


def test_dcp_saves_and_loads_one_without_a_metric_yet(tmp_path):
    for mode, best in {"min": INF, "max": -INF}.items():
        dcp.save({"plateau": built(mode=mode)}, checkpoint_id=tmp_path / mode)
        second = built(mode=mode)
        dcp.load({"plateau": second}, checkpoint_id=tmp_path / mode)
        assert best == second.best


def test_a_schedulers_state_is_found_beside_a_plateaus(tmp_path):
    plateau = built()
    run(plateau, LOSSES[:8])
    dcp.save({"scheduler": plateau.scheduler, "plateau": plateau}, checkpoint_id=tmp_path)
    again = phased()
    assert "scheduler" == checkpoint.load(again, tmp_path).key
    assert plateau.scheduler.history == again.history


def test_the_state_is_plain_and_loads_with_weights_only(tmp_path):
    state = built().state_dict()
    torch.save(state, tmp_path / "a.pt")
    assert state == torch.load(tmp_path / "a.pt", weights_only=True)
    assert {float, int, str} == {type(value) for value in state.values()}


def test_the_keys_of_the_state_never_change():
    # DCP fails a load whose target has a key that the checkpoint lacks.
    keys = ["best", "num_bad_epochs", "cooldown_counter", "num_updates", "plateau"]
    assert keys == list(built().state_dict())
    text = json.loads(built().state_dict()["plateau"])
    assert ["version", "position", "scales", "arguments"] == list(text)


FIRST_VERSION = {
    "best": 0.5,
    "num_bad_epochs": 1,
    "cooldown_counter": 2,
    "num_updates": 7,
    "plateau": '{"version": 1, "position": 8, "scales": 1, "arguments": {"factor": 0.5, '
    '"patience": 1, "threshold": 0.0001, "mode": "min", "cooldown": 0, "min_value": 0.0, '
    '"threshold_mode": "rel", "eps": 1e-08, "field": "lr", "reduce": null}}',
}


def test_a_state_of_the_first_version_loads_for_ever(caplog):
    plateau = built()
    plateau.load_state_dict(FIRST_VERSION)
    assert (0.5, 1, 2, 7) == (
        plateau.best,
        plateau.num_bad_epochs,
        plateau.cooldown_counter,
        plateau.num_updates,
    )
    assert [] == caplog.records


def test_a_load_is_the_same_twice_as_once():
    first, second = built(), built()
    run(first, LOSSES[:6])
    second.load_state_dict(first.state_dict())
    once = second.state_dict()
    second.load_state_dict(first.state_dict())
    assert once == second.state_dict()


def with_text(**changes):
    text = {**json.loads(FIRST_VERSION["plateau"]), **changes}
    return {**FIRST_VERSION, "plateau": json.dumps(text)}


@pytest.mark.parametrize(
    "state, message",
    [
        (None, "'state': must be a dict, not NoneType"),
        ({}, "key 'best' of the checkpoint state is missing"),
        ({**FIRST_VERSION, "best": NAN}, "key 'best'.*best=nan: must be a number, or infinite"),
        ({**FIRST_VERSION, "best": "x"}, "key 'best'.*best='x': must be a number"),
        ({**FIRST_VERSION, "num_bad_epochs": -1}, "key 'num_bad_epochs'.*whole number >= 0"),
        ({**FIRST_VERSION, "cooldown_counter": 0.5}, "key 'cooldown_counter'.*whole number >= 0"),
        ({**FIRST_VERSION, "num_updates": True}, "key 'num_updates'.*whole number >= 0"),
        ({**FIRST_VERSION, "plateau": 1}, "key 'plateau'.* must be a string, not int"),
        ({**FIRST_VERSION, "plateau": "{"}, "key 'plateau'.*is not valid JSON"),
        ({**FIRST_VERSION, "plateau": "[" * 10**5}, "key 'plateau'"),
        (with_text(version=2), "key 'plateau'.*version 2 is newer.*upgrade dist-sched"),
        (with_text(version=None), "key 'plateau'.*version=None: must be a whole number"),
        (with_text(position=-1), "key 'plateau'.*position=-1"),
        (with_text(scales="x"), "key 'plateau'.*scales='x'"),
        (with_text(arguments=[]), r"key 'plateau'.*arguments=\[\]: must be a mapping"),
        (
            with_text(arguments={"mode": "max", "field": "lr"}),
            "mode is 'max' in the checkpoint, but 'min' here",
        ),
        (with_text(arguments={"mode": "min"}), "field is None in the checkpoint, but 'lr' here"),
    ],
)
def test_a_malformed_state_is_refused_by_its_key_and_changes_nothing(state, message):
    plateau = built()
    run(plateau, LOSSES[:6])
    before = plateau.state_dict()
    with pytest.raises(StateError, match=message):
        plateau.load_state_dict(state)
    assert before == plateau.state_dict()


def test_a_state_of_torchs_class_is_refused():
    _, peer = of_torch([1.0])
    with pytest.raises(
        StateError, match=r"key 'num_updates' .* is missing; check that it is a Plateau's"
    ):
        built().load_state_dict(peer.state_dict())


def test_the_scripts_arguments_count_and_those_that_differ_are_named(caplog):
    plateau = built(patience=0, factor=0.25)
    plateau.load_state_dict({**FIRST_VERSION, "cooldown_counter": 0})
    lines = caplog.text
    assert "factor is 0.25 (the checkpoint has 0.5); patience is 0 (the checkpoint has 1)" in lines
    assert plateau.update(1.0)
    assert [0.25] == held(plateau.scheduler)


def test_a_plateau_that_was_loaded_without_its_scheduler_is_named_once(caplog):
    plateau = built()
    plateau.load_state_dict(FIRST_VERSION)
    run(plateau, [1.0, 1.0])
    (line,) = warnings_of(caplog)
    assert "at position 8 with 1 scales of lr in the history" in line
    assert "its scheduler is at position 1 with 0 scales; load the scheduler's state" in line


@pytest.mark.parametrize(
    "position, scales, is_named", [(7, 1, True), (8, 0, True), (8, 1, False), (9, 2, False)]
)
def test_a_scheduler_from_before_the_plateaus_last_scale_is_named(
    caplog, position, scales, is_named
):
    plateau = built()
    plateau.scheduler.seek(position)
    for _ in range(scales):
        plateau.scheduler.scale(0.5)
    plateau.update(1.0)
    assert [] == warnings_of(caplog)
    plateau.load_state_dict(FIRST_VERSION)
    plateau.update(1.0)
    assert is_named == bool(warnings_of(caplog))


def test_a_scheduler_that_was_loaded_without_its_plateau_is_named_once(caplog):
    first = built()
    run(first, [1.0] * 8)
    second = built()
    second.scheduler.load_state_dict(first.scheduler.state_dict())
    run(second, [0.5, 0.5])
    (line,) = warnings_of(caplog)
    assert "the scheduler was loaded and its Plateau was not, so the Plateau starts again" in line


@pytest.mark.parametrize("is_first", [True, False])
def test_nothing_is_named_where_both_were_loaded(caplog, is_first):
    first = built()
    run(first, LOSSES[:5])
    pair = [(second := built()).scheduler, second]
    for one in pair if is_first else reversed(pair):
        source = first if isinstance(one, Plateau) else first.scheduler
        one.load_state_dict(source.state_dict())
    run(second, LOSSES[6:])
    assert [] == warnings_of(caplog)


def test_it_is_copied_with_its_scheduler_and_optimizer():
    plateau = built()
    run(plateau, LOSSES[:8])
    other = copy.deepcopy(plateau)
    assert run(plateau, LOSSES[8:]) == run(other, LOSSES[8:])


# Bad arguments


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"factor": 1.0}, "factor=1.0: must be below 1"),
        ({"factor": 0}, "factor=0: must be greater than 0"),
        ({"factor": "min"}, "factor='min': must be a number"),
        ({"factor": NAN}, "factor=nan: must be a finite number"),
        ({"patience": -1}, "patience=-1: must be a whole number >= 0"),
        ({"patience": 1.5}, "patience=1.5: must be a whole number >= 0"),
        ({"cooldown": True}, "cooldown=True: must be a whole number >= 0"),
        ({"threshold": -0.1}, "threshold=-0.1: must be a finite number >= 0"),
        ({"threshold": 1}, "threshold=1.0: must be below 1, because"),
        ({"mode": "mx"}, "mode='mx': must be one of 'min', 'max'; did you mean 'max'"),
        ({"threshold_mode": "relative"}, "threshold_mode='relative': must be one of 'rel', 'abs'"),
        ({"min_value": [0.1]}, r"min_value=\[0.1\]: must be a number"),
        ({"eps": INF}, "eps=inf: must be a finite number"),
        ({"reduce": "sum"}, "reduce='sum': must be one of 'mean'"),
        ({"field": "momentun"}, "field='momentun': is not scheduled; did you mean 'momentum'"),
        ({"field": "weight_decay"}, "field='weight_decay': follows lr; change that one"),
        ({"field": 1}, "field=1: must be a non-empty string"),
    ],
)
def test_a_bad_argument_is_refused_by_name_value_and_rule(arguments, message):
    follower = schedules.proportional_to("lr", at_max=0.1)
    scheduler = phased(momentum=UP, weight_decay=follower)
    with pytest.raises(ConfigError, match=message):
        Plateau(scheduler, **arguments)
    assert [1.0] == held(scheduler)


def test_a_threshold_of_1_and_more_is_legal_where_it_is_no_share_to_be_lower_by():
    Plateau(phased(), threshold=1.0, mode="max")
    Plateau(phased(), threshold=1.0, threshold_mode="abs")


@pytest.mark.parametrize("other", [sgd(), None, "lr"])
def test_what_is_no_scheduler_is_refused(other):
    with pytest.raises(ConfigError, match=r"scheduler=.*must be a scheduler of dist_sched"):
        Plateau(other)


def test_torchs_min_lr_is_answered_with_min_value():
    with pytest.raises(TypeError, match="argument 'min_lr'; did you mean 'min_value'"):
        Plateau(phased(), min_lr=0.1)


@pytest.mark.parametrize(
    "metric",
    [
        *(1, 1.0, Fraction(1), np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1)),
        torch.tensor(1.0, dtype=torch.bfloat16),
        torch.tensor(1.0, requires_grad=True),
    ],
)
def test_a_metric_may_be_any_number(metric):
    plateau = Plateau(phased())
    plateau.update(metric)
    assert 1.0 == plateau.best
    assert float is type(plateau.best)


@pytest.mark.parametrize(
    "metric, message",
    [
        ("1", "metric='1': must be a number"),
        (None, "metric=None: must be a number"),
        (True, "metric=True: must be a number"),
        (1j, "metric=1j: must be a number"),
        ([1.0], r"metric=\[1.0\]: must be a number"),
        (torch.ones(2), r"metric=tensor\(\[1., 1.\]\): must be a number"),
        (torch.ones((), device="meta"), "metric=tensor.*must be a number"),
        (10**400, "metric=.*must be at most"),
    ],
)
def test_a_metric_that_is_no_number_is_refused_and_changes_nothing(metric, message):
    plateau = built()
    run(plateau, LOSSES[:4])
    before, values = plateau.state_dict(), held(plateau.scheduler)
    with pytest.raises(ConfigError, match=message):
        plateau.update(metric)
    assert (before, values) == (plateau.state_dict(), held(plateau.scheduler))


def test_a_cut_that_a_group_refuses_changes_nothing():
    plateau = Plateau(phased(), 0.5, 0)
    plateau.update(1.0)
    before = plateau.state_dict()
    plateau.scheduler.optimizer.param_groups[0]["lr_mult"] = -1.0
    with pytest.raises(ConfigError, match="lr_mult"):
        plateau.update(1.0)
    assert (before, ()) == (plateau.state_dict(), plateau.scheduler.history)


def test_repr_names_arguments_and_counts():
    assert repr(Plateau(phased())).startswith("Plateau(factor=0.1, patience=10, threshold=0.0001, ")
    assert "best=inf, num_bad_epochs=0, cooldown_counter=0, num_updates=0)" in repr(
        Plateau(phased())
    )


@pytest.mark.usefixtures("_alone")
def test_a_metric_of_which_a_rank_has_a_part_is_refused():
    mesh = init_device_mesh("cpu", (1,))
    metric = DTensor.from_local(torch.tensor(1.0), mesh, [Partial()])
    with pytest.raises(ConfigError, match=r"metric=.*for a DTensor, call full_tensor\(\)"):
        built().update(metric)


@pytest.mark.usefixtures("_alone")
def test_a_group_of_one_rank_decides_as_no_group_does():
    assert run(built(), LOSSES) == run(built(reduce="mean"), LOSSES)
    with pytest.raises(ConfigError, match="metric='x': must be a number"):
        built().update("x")
