"""Random specifications, saved on two ranks, go on exactly on one, two and three."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed

PROGRAM = "resume_specifications.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("specifications")


@pytest.fixture(scope="module")
def uninterrupted(torchrun, folder):
    first, second = torchrun(PROGRAM, 2, "save", folder, timeout=90, aborts=True)
    assert first == second
    return first


@pytest.fixture(scope="module", params=[1, 2, 3], ids="{} ranks".format)
def resumed(request, torchrun, folder, uninterrupted):  # noqa: ARG001 - the saves that it resumes
    return torchrun(PROGRAM, request.param, "load", folder, timeout=110, aborts=True)


def test_every_split_point_goes_on_with_the_same_bits_on_every_rank(resumed, uninterrupted):
    for result in resumed:
        for runs, whole in zip(result["runs"], uninterrupted, strict=True):
            assert [whole[begin:] for begin in range(len(whole))] == runs


def test_the_first_three_updates_of_a_random_run_differ(uninterrupted):
    assert [3] * len(uninterrupted) == [len({str(it) for it in run[:3]}) for run in uninterrupted]


def test_a_no_decay_group_keeps_its_zero(uninterrupted):
    assert {0.0} == {bias[1] for run in uninterrupted for _, bias, _, _ in run}


# wsd's tail goes from 1 at 90 to 0 at 100: at 95 a stretch leaves 55 units from 1 - sqrt(0.5) on.
ON_ONE_RANK = {"late_change": 0.0, "scale": 0.5, "stretch": 1 - (0.5 + 0.5 * 10 / 55) ** 0.5}


@pytest.mark.parametrize("name", ON_ONE_RANK)
def test_a_late_change_on_one_rank_is_named_and_synchronized(resumed, name):
    for result in resumed:
        late = result[name]
        assert ([pytest.approx(ON_ONE_RANK[name])], 1) == (late["lr"], late["changes"])
        assert (len(resumed) > 1) == ("rank 1: history" in late["error"])


def test_a_rank_with_another_specification_adopts_the_first_ranks(resumed):
    assert [[1.0]] * len(resumed) == [result["config"] for result in resumed]


def test_fields_are_known_by_name_whatever_their_order_and_passed_over_where_groups_lack_them(
    resumed,
):
    for rank, result in enumerate(resumed):
        assert [0.5, 0.1, 0.45] == result["fields"][0]
        assert [0.5, 0.1, 0.45 if rank == 0 else None] == result["fields"][1]
        is_last = rank == len(resumed) - 1
        assert [0.5, 0.1, 0.45 if is_last else None] == result["fields"][2]


def test_a_rank_with_the_other_scheduler_is_named_and_nothing_changes(resumed):
    for result in resumed:
        kind = result["kind"]
        assert kind["is_unchanged"]
        named = ["OptimizerParamScheduler" in error for error in kind["errors"]]
        assert [len(resumed) > 1] * 2 == named


# By where the part is, the lr after `synchronize`: "here" is the first rank, "there" the others.
VARIANTS = {
    "more phases here": 1.0,
    "fewer phases here": 0.5,
    "cut here": 0.7,
    "a group here": 0.5,
    "a group there": 1.0,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_part_that_some_ranks_lack_is_found_and_synchronized(resumed, name):
    for result in resumed:
        is_found, lrs, position = result["variants"][name]
        assert (len(resumed) > 1, 50, [VARIANTS[name]]) == (is_found, position, lrs)


def test_a_field_that_the_first_rank_does_not_schedule_gets_back_what_it_was(resumed):
    assert [0.1] * len(resumed) == [result["weight_decay"] for result in resumed]


def test_a_named_group_of_the_last_rank_alone_is_scheduled_there(resumed):
    for result in resumed:
        is_last, lrs = result["stage"]
        assert [0.5 if is_last else 1.0] == lrs
