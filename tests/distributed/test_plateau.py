"""A Plateau on real ranks: all of them cut or none, and a resume may have another number."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

VALUES = [1.0] * 3 + [0.5] * 3 + [0.25] * 2 + [0.125] * 3 + [0.0625]
"""Of a run over the metrics of the program."""


@pytest.fixture(scope="module")
def launched(torchrun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return folder, torchrun("plateau.py", 2, folder)


@pytest.fixture(scope="module")
def results(launched):
    return launched[1]


def test_all_ranks_have_the_values_that_one_has(results):
    assert [VALUES, VALUES] == [result["values"] for result in results]


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_resume_on_another_number_of_ranks_goes_on_the_same(torchrun, launched, world_size):
    resumed = torchrun("plateau.py", world_size, launched[0], "--resume")
    assert [VALUES[6:]] * world_size == [result["values"] for result in resumed]


def test_the_first_ranks_metric_decides_and_no_other_is_read(results):
    assert [VALUES, VALUES] == [result["the_first_rank_decides"] for result in results]


def test_the_mean_decides_where_it_is_asked_for(results):
    expected = [1.0, 1.0, 0.5, 0.5]
    assert [expected, expected] == [result["the_mean_decides"] for result in results]


@pytest.mark.parametrize(
    "case, error, parts",
    [
        (
            "a_bad_metric_on_another_rank",
            "ConfigError",
            ["rank 1: metric='x': must be a number", "nothing has changed on any rank"],
        ),
        (
            "a_bad_metric_on_the_first_rank",
            "ConfigError",
            ["rank 0: metric=None: must be a number"],
        ),
        (
            "another_rank_has_another_factor",
            "RankMismatchError",
            ["rank 1: factor is 0.25, rank 0 has 0.5"],
        ),
        (
            "another_rank_is_elsewhere",
            "RankMismatchError",
            ["rank 1: position is 1, rank 0 has 0", "synchronize()"],
        ),
        (
            "another_rank_updates_another_scheduler",
            "RankMismatchError",
            ["rank 1: scheduler is \"ParamScheduler 'rank 1'\", rank 0 has"],
        ),
        ("another_rank_cannot_be_cut", "ConfigError", ["rank 1: ", "lr_mult=-1.0"]),
    ],
)
def test_a_fault_of_one_rank_is_the_same_error_on_all_and_changes_nothing(
    results, case, error, parts
):
    first, second = (result[case] for result in results)
    assert (error, first["message"]) == (second["error"], second["message"])
    assert error == first["error"]
    assert [] == [part for part in parts if part not in first["message"]]
    assert first["is_same"]
    assert second["is_same"]


def test_a_rank_with_other_counts_adopts_the_first_ranks_and_says_so(results):
    (first, ends), (second, others) = (
        result["another_rank_has_other_counts"] for result in results
    )
    assert first["returned"] is second["returned"] is True
    assert ends == others
    assert [] == [text for level, text in first["log"] if level == "WARNING"]
    (line,) = [text for level, text in second["log"] if level == "WARNING"]
    assert "rank 1 adopts rank 0's" in line
