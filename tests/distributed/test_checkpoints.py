"""Checkpoints loaded by several ranks: the first one reads, and all of them get its state."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.distributed

WORLD_SIZE = 3


@pytest.fixture(scope="module")
def results(torchrun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return torchrun("load_checkpoints.py", WORLD_SIZE, folder, timeout=90)


def test_the_first_rank_alone_touches_storage(results):
    first, *others = [result["counted_opens"]["opens"] for result in results]
    assert first > 0
    assert [0] * (WORLD_SIZE - 1) == others


def test_every_rank_has_what_the_first_read(results):
    for result in results:
        loaded = result["counted_opens"]["loaded"]
        assert {"position": 60, "lr": [0.55], "key": "scheduler"} == loaded


def test_a_megatron_checkpoint_loads_on_every_rank(results):
    lr = 0.1 + 0.4 * 0.5
    for result in results:
        loaded = result["megatron_checkpoint"]
        assert (60, "app.opt_param_scheduler") == (loaded["position"], loaded["key"])
        assert [lr] == pytest.approx(loaded["lr"], rel=1e-15)


def test_several_states_are_refused_on_every_rank_and_one_is_loaded_by_its_key(results):
    first = results[0]["two_states"]["without a key"]
    assert "StateError" in first["error"]
    for result in results:
        assert {**first, "position": 0} == result["two_states"]["without a key"]
        assert 70 == result["two_states"]["with a key"]["position"]


def test_a_missing_checkpoint_is_the_same_error_on_every_rank(results):
    first = results[0]["missing"]
    assert "does not exist" in first["error"]
    assert [first] * WORLD_SIZE == [result["missing"] for result in results]


def test_only_the_first_ranks_path_and_config_count(results):
    for result in results:
        assert {"position": 60, "lr": [0.55], "key": "sched"} == result["another_path_and_config"]


def test_a_partial_load_of_a_megatron_folder_takes_its_values_on_every_rank(results):
    for result in results:
        loaded = result["partial"]["megatron"]
        assert (60, 0.5) == (loaded["position"], loaded["max_lr"])
        assert any("has no text" in warning for warning in loaded["warnings"])


def test_a_partial_load_of_a_folder_without_a_scheduler_warns_on_every_rank(results):
    for result in results:
        loaded = result["partial"]["model alone"]
        assert 0 == loaded["position"]
        assert any("perhaps nothing was read" in warning for warning in loaded["warnings"])


def test_an_asynchronous_save_holds_the_state_at_the_call(results):
    expected = [[7 * save, 7 * save, 7 * save, 7 * save + 7] for save in range(4)]
    for result in results:
        assert expected == result["asynchronous"]
