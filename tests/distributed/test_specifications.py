"""Drawn specifications, saved on two ranks, go on exactly on one, two and three."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("specifications")


@pytest.fixture(scope="module")
def uninterrupted(torchrun, folder):
    results = torchrun("specifications.py", 2, "save", folder, timeout=90, aborts=True).results
    assert results[0] == results[1]
    return results[0]


@pytest.fixture(scope="module", params=[1, 2, 3], ids="{} ranks".format)
def resumed(request, torchrun, folder, uninterrupted):  # noqa: ARG001 - it saves first
    results = torchrun(
        "specifications.py", request.param, "load", folder, timeout=110, aborts=True
    ).results
    return [results[rank] for rank in range(request.param)]


def test_every_split_point_goes_on_with_the_same_bits_on_every_rank(resumed, uninterrupted):
    for result in resumed:
        for runs, whole in zip(result["runs"], uninterrupted, strict=True):
            assert [whole[begin:] for begin in range(len(whole))] == runs


def test_the_drawn_runs_are_worth_comparing(uninterrupted):
    for run in uninterrupted:
        assert len(run) == len({str(held) for held in run[:3]}) + len(run[3:])
        no_decay = [group[1] for update in run for group in update[1:2]]
        assert {0.0} == set(no_decay)


def test_a_late_change_of_one_rank_is_named_and_mended(resumed):
    for result in resumed:
        told = result["late"]
        assert ([0.0], 1) == (told["lr"], told["changes"])
        assert (len(resumed) > 1) == ("rank 1: history" in told["error"])


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
        told = result["kind"]
        assert told["is_unchanged"]
        if len(resumed) > 1:
            assert all("OptimizerParamScheduler" in error for error in told["errors"])


VARIANTS = {
    "more phases here": 1.0,
    "fewer phases here": 0.5,
    "cut here": 0.7,
    "a group here": 0.5,
    "a group there": 1.0,
}


def test_parts_that_one_rank_lacks_are_found_and_mended(resumed):
    for result in resumed:
        for name, lr in VARIANTS.items():
            is_found, lrs, position = result["variants"][name]
            assert (len(resumed) > 1, 50) == (is_found, position), name
            assert [lr] == lrs, name


def test_a_field_that_the_first_rank_does_not_schedule_gets_back_what_it_was(resumed):
    assert [0.1] * len(resumed) == [result["weight_decay"] for result in resumed]


def test_a_named_group_of_the_last_rank_alone_is_scheduled_there(resumed):
    for result in resumed:
        is_last, lrs = result["stage"]
        assert [0.5 if is_last else 1.0] == lrs
