"""Stages: what a rank says of its groups, and what all ranks conclude from what all say."""

from __future__ import annotations

import math

import pytest

from dist_sched._config.path import Path
from dist_sched._optim.stages import Stage, common_names, common_references, lost_groups
from dist_sched._optim.writer import Reach
from helpers import adamw, param_scheduler, sgd

END = "nothing has changed on any rank"


def stage(**changes):
    return Stage(
        **{"lacks": (), "names": (), "fields": (), "references": {}, "reaches": (), **changes}
    )


def reach(**changes):
    limits = {"own": 3.0, "peak": 1.0, "is_weight": False, "limit": 10.0}
    return Reach(**{"key": "lr", "group": "group 0", **limits, **changes})


def of(scheduler, known=None):
    return Stage.of(scheduler._writer, scheduler._agreed.reference, known)


@pytest.mark.parametrize(
    "references, expected",
    [
        ([{}, {}], {}),
        ([{"lr": 1.0}, {"lr": 2.0}], {"lr": 1.0}),
        ([{"lr": None}, {"lr": 2.0, "weight_decay": 0.1}], {"lr": 2.0, "weight_decay": 0.1}),
        ([{"lr": 0.0}, {"lr": 2.0}], {"lr": 2.0}),
        ([{"lr": None}, {}], {"lr": None}),
    ],
)
def test_the_reference_of_a_field_is_that_of_the_first_rank_that_has_one(references, expected):
    assert expected == common_references([stage(references=one) for one in references])


def test_a_group_that_would_come_too_high_with_another_ranks_reference_is_named():
    stages = [stage(references={"lr": 0.25}), stage(references={"lr": None}, reaches=(reach(),))]
    lines = lost_groups(stages, {"lr": 0.25}).split("\n")
    assert [True, END] == [lines[0].startswith("rank 1: group 0: lr would reach 12.0 "), *lines[1:]]


@pytest.mark.parametrize(
    "own, common",
    [
        (0.25, 0.25),  # its own reference, which was checked before
        (None, 0.5),
        (None, None),
    ],
)
def test_a_group_that_fits_is_not_named(own, common):
    stages = [stage(references={"lr": own}, reaches=(reach(),))]
    assert "" == lost_groups(stages, {"lr": common})


@pytest.mark.parametrize(
    "changes, reference, is_problem",
    [
        ({"peak": 10.0, "own": 1.0}, 1.0, False),
        ({"peak": 10.0, "own": 1.0}, 0.99, True),
        ({"peak": 10.0}, None, False),
        ({"peak": 10.0}, 0.0, False),
        ({"is_weight": True, "peak": 0.5, "own": 1.0}, 0.5, True),
        ({"is_weight": True, "peak": 0.5, "own": 1.0}, 0.51, False),
        ({"own": 1e308, "limit": math.inf}, 1e-308, True),
    ],
)
def test_a_group_can_use_a_reference_up_to_its_limit(changes, reference, is_problem):
    assert is_problem == bool(reach(**changes).problem(reference))


MOMENTUM, HEAD = Path("momentum"), Path("lr", pattern="head")


def test_what_a_rank_lacks_may_be_on_another():
    has = {"fields": ("lr",), "names": ("body",)}
    assert "" == common_names([stage(lacks=(MOMENTUM, HEAD, "r"), **has), stage(**has)])
    assert "" == common_names([stage(lacks=(MOMENTUM,), **has), stage(lacks=(HEAD,), **has)])


def test_a_job_without_groups_lacks_nothing():
    assert "" == common_names([stage(lacks=(MOMENTUM, HEAD, "r"))] * 2)


@pytest.mark.parametrize("fields", [[("lr",), ()], [(), ("lr",)], [("lr",), ("lr",)]])
def test_a_field_that_no_rank_has_is_named(fields):
    expected = f"{MOMENTUM}: no group of any rank has this field"
    assert expected == common_names([stage(lacks=(MOMENTUM,), fields=one) for one in fields])


def test_a_field_that_is_nearly_that_of_a_rank_is_named_with_it():
    stages = [stage(lacks=(Path("momentun"),), fields=("lr",)), stage(lacks=(Path("momentun"),))]
    assert "momentum" not in common_names(stages)
    stages[1] = stage(lacks=(Path("momentun"),), fields=("momentum",))
    assert "did you mean" in common_names(stages)
    assert "'momentum'" in common_names(stages)


@pytest.mark.parametrize("lacked, start", [(HEAD, f"{HEAD}"), ("head", "reference='head'")])
def test_a_name_that_no_rank_has_is_named_with_those_that_are(lacked, start):
    stages = [stage(lacks=(lacked,), fields=("lr",), names=names) for names in (("heat",), ("b",))]
    text = common_names(stages)
    assert text.startswith(f"{start}: no group of any rank has this name")
    assert "did you mean" in text
    for name in ("'heat'", "'b'"):
        assert name in text


def test_all_that_no_rank_has_is_named_once():
    lacks = (MOMENTUM, HEAD, "r")
    stages = [stage(lacks=lacks, fields=("lr",), names=("b",))] * 2
    assert [1, 1, 1] == [
        common_names(stages).count(start)
        for start in ("momentum: ", f"{HEAD}: ", "reference='r': ")
    ]
    assert 3 == len(common_names(stages).split("; ")) - common_names(stages).count("; the ")


def test_a_rank_says_what_its_groups_have():
    optimizer = sgd({"name": "b"}, {"name": "a", "lr": 2.0})
    found = of(param_scheduler(optimizer, reference="b"))
    assert (("a", "b"), (), {"lr": 1.0}) == (found.names, found.lacks, found.references)
    assert {"lr", "momentum", "weight_decay"} <= set(found.fields)
    assert sorted(found.fields) == [*found.fields]
    assert ["lr"] == [one.key for one in found.reaches]


def test_a_rank_says_fifty_names_at_most():
    found = of(param_scheduler(sgd(*({"name": f"n{i:03}"} for i in range(60)))))
    assert tuple(f"n{i:03}" for i in range(50)) == found.names


@pytest.fixture
def renamed():
    """Return a scheduler whose groups have lost the name of its reference."""
    scheduler = param_scheduler(adamw({"name": "a"}), reference="a")
    scheduler.optimizer = adamw({"name": "b"})
    return scheduler


def test_a_rank_says_that_it_lacks_a_name_of_a_reference(renamed):
    assert ("a",) == of(renamed).lacks


def test_a_name_of_a_reference_that_was_found_before_is_not_lacked(renamed):
    assert () == of(renamed, renamed._agreed.plan).lacks


def test_without_ratios_no_name_of_a_reference_is_lacked():
    writer = param_scheduler(adamw({"name": "b"}), keep_group_ratios=False)._writer
    assert () == Stage.of(writer, "a", None).lacks
