"""Loads of checkpoints by several ranks: one of them reads, all of them know."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed

WORLD_SIZE = 3


@pytest.fixture(scope="module")
def found(torchrun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    results = torchrun("checkpoints.py", WORLD_SIZE, folder, timeout=90).results
    return [results[rank] for rank in range(WORLD_SIZE)]


def test_the_first_rank_alone_touches_storage(found):
    opens = [result["many_opens"].pop("opens") for result in found]
    assert opens[0] > 0
    assert [0] * (WORLD_SIZE - 1) == opens[1:]


def test_every_rank_has_what_the_first_read(found):
    expected = {"position": 60, "lr": [0.55], "key": "scheduler"}
    for result in found:
        result["many_opens"].pop("opens", None)
        assert expected == result["many_opens"]


def test_a_seeds_checkpoint_loads_on_every_rank(found):
    lr = 0.1 + 0.4 * 0.5
    for result in found:
        told = result["seeds_checkpoint"]
        assert (60, "app.opt_param_scheduler") == (told["position"], told["key"])
        assert [lr] == pytest.approx(told["lr"], rel=1e-15)


def test_several_states_are_refused_on_every_rank_and_one_is_loaded_by_its_key(found):
    errors = {result["two_states"]["unnamed"]["error"] for result in found}
    assert 1 == len(errors)
    assert "StateError" in next(iter(errors))
    for result in found:
        assert 0 == result["two_states"]["unnamed"]["position"]
        assert 70 == result["two_states"]["named"]["position"]


def test_a_missing_checkpoint_is_the_same_error_on_every_rank(found):
    errors = {result["missing"]["error"] for result in found}
    assert 1 == len(errors)
    assert "nothing is there" in next(iter(errors))


def test_only_the_first_ranks_path_and_config_count(found):
    for result in found:
        assert {"position": 60, "lr": [0.55], "key": "sched"} == result["other_rank_elsewhere"]


def test_a_partial_load_of_a_seeds_folder_takes_its_values_on_every_rank(found):
    for result in found:
        told = result["partial"]["partial"]
        assert (60, 0.5) == (told["position"], told["max_lr"])
        assert any("never read" in warning for warning in told["warnings"])


def test_a_partial_load_of_a_folder_without_a_scheduler_warns_on_every_rank(found):
    for result in found:
        told = result["partial"]["none"]
        assert 0 == told["position"]
        assert any("perhaps nothing was read" in warning for warning in told["warnings"])


def test_an_asynchronous_save_holds_the_state_at_the_call(found):
    expected = [[7 * save, 7 * save, 7 * save, 7 * save + 7] for save in range(4)]
    for result in found:
        assert expected == result["asynchronous"]
