"""The fault table: whatever goes wrong on one rank, all ranks end alike, and soon.

One launch a world size runs every case of `programs/faults_cases.py` among all ranks, among a part
of them, and along a mesh dimension; what each rank wrote is judged here.
"""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

LAUNCH = {"timeout": 100}


class World:
    """What the ranks of one launch wrote."""

    def __init__(self, launched):
        self.found = [found for _, found in sorted(launched.results.items())]
        self.size = len(self.found)

    def groups(self, case):
        """Give a case's records by group: a list of ranks, each with a list of attempts."""
        groups = {}
        for found in self.found:
            for name, place in found["places"].items():
                members = groups.setdefault((name, *place["ranks"]), [])
                members.append(place["cases"][case])
        return list(groups.values())

    def cases(self):
        return set(self.found[-1]["places"]["all"]["cases"])

    def lives(self, life):
        """Give the record of each rank that lived to tell."""
        records = [found["lives"][life] for found in self.found]
        return [record for record in records if record is not None]

    def records(self):
        """Give every record there is, by where it comes from."""
        return {
            (case, index): record
            for case in self.cases()
            for group in self.groups(case)
            for rank in group
            for index, record in enumerate(rank)
        } | {
            (life, rank): record
            for rank, found in enumerate(self.found)
            for life, record in found["lives"].items()
            if record is not None
        }


@pytest.fixture(scope="module")
def saved(torchrun, tmp_path_factory):
    """Save models on 4 ranks, for the other world sizes to load."""
    folder = tmp_path_factory.mktemp("models")
    return folder, torchrun("faults.py", 4, "--save", folder, **LAUNCH)


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 8], ids="{} ranks".format)
def world(request, torchrun, saved):
    folder, of_four = saved
    if request.param == 4:
        return World(of_four)
    return World(torchrun("faults.py", request.param, "--load", folder, **LAUNCH))


def ended(group):
    return [[record["ended"] for record in rank] for rank in group]


def at(position, lr, wd):
    """Give the values of a rank with one group."""
    return {"position": position, "lr": [lr.hex()], "wd": [wd.hex()]}


LOADED = at(72, 0.5, 0.28125)

# By case, how each of its attempts ends on every rank.
SAME = {
    "another_rank_has_another_config": [LOADED],
    "another_rank_has_another_position": [LOADED],
    "another_rank_has_another_policy_and_unit": [LOADED],
    "another_rank_has_a_tensor_lr": [LOADED],
    "the_state_of_another_rank_is_empty": [LOADED],
    "the_state_of_another_rank_is_none": [LOADED],
    "the_state_of_another_rank_is_garbage": [LOADED],
    "the_state_of_another_rank_is_foreign": [LOADED],
    "the_state_of_another_rank_is_unreadable": [LOADED],
    "only_the_first_rank_has_read_the_state": [LOADED],
    "a_torn_state": [LOADED],
    "a_state_beside_a_thousand_tensors": [LOADED],
    "a_state_of_scalars_of_another_library": [LOADED],
    "the_checkpoint_differs": [LOADED],
    "the_checkpoint_is_equal": [LOADED],
    "two_schedulers": [at(72, 0.25, 0.28125), LOADED],
    "decide_returns": [{"returned": "{'a': [1.0, None, 'b']}"}],
    "decide_raises": [{"error": "KeyError", "message": "'lr'"}],
    "decide_returns_what_cannot_be_pickled": [
        {"error": "TypeError", "message": "cannot pickle '_thread.lock' object"}
    ],
    "decide_raises_what_cannot_be_unpickled": [
        {"error": "RuntimeError", "message": "TwoPartError: lr is 1.0"}
    ],
}

# By case, the error on every rank, and what its message says.
REFUSED = {
    "the_first_state_is_empty": ("StateError", "'state'", "is empty"),
    "the_first_state_is_none": ("StateError", "'state'", "must be a dict, not NoneType"),
    "the_first_state_is_a_list": ("StateError", "'state'", "must be a dict, not list"),
    "the_first_state_is_unreadable": ("RuntimeError", "UnreadableError: the disk is gone"),
    "the_first_state_lacks_a_key": ("StateError", "'max_lr'", "is missing"),
    "the_first_state_lacks_its_position": ("StateError", "'num_steps'", "is missing"),
    "the_first_state_lacks_all_but_its_text": ("StateError", "'max_lr'", "is missing", "end_wd"),
    "the_first_state_has_a_text_for_a_number": ("StateError", "'max_lr'", "max_lr='1.0'"),
    "the_first_state_has_a_number_for_a_style": ("StateError", "'lr_decay_style'", "'cosine'"),
    "the_first_state_has_a_fraction_for_a_position": ("StateError", "'num_steps'", "72.5"),
    "the_first_state_has_a_bool_for_a_position": ("StateError", "'num_steps'", "True"),
    "the_first_state_has_a_tensor_of_two": ("StateError", "'max_lr'", "must be a number"),
    "the_first_state_has_a_tensor_without_data": ("StateError", "'max_lr'"),
    "the_first_state_has_nan": ("StateError", "'max_lr'", "max_lr=nan"),
    "the_first_state_has_infinity": ("StateError", "'lr_decay_steps'", "lr_decay_steps=inf"),
    "the_first_state_has_a_negative_position": ("StateError", "'num_steps'", "num_steps=-1"),
    "the_first_state_has_a_negative_rate": ("StateError", "'min_lr'", "min_lr=-0.5"),
    "the_first_state_has_a_huge_position": ("StateError", "'num_steps'", "9007199254740993"),
    "the_first_state_has_a_huge_length": ("StateError", "'wd_incr_steps'", "at most 2**53"),
    "the_first_state_has_a_huge_rate": ("StateError", "'max_lr'", "a finite number"),
    "the_first_state_has_a_position_of_5000_digits": ("StateError", "'num_steps'", "2**53"),
    "the_first_state_contradicts_itself": ("StateError", "'start_lr'", "max_lr", "0.25", "1.0"),
    "the_first_state_has_a_text_that_is_garbage": ("StateError", "'dist_sched'", "valid JSON"),
    "the_first_state_has_a_text_that_is_a_number": ("StateError", "'dist_sched'", "not int"),
    "the_first_state_has_a_text_too_deep": ("StateError", "'dist_sched'", "valid JSON"),
    "the_first_state_has_nan_in_its_text": ("StateError", "'dist_sched'", "NaN"),
    "the_first_state_has_a_wrong_type_in_its_text": ("StateError", "'dist_sched.config.max_lr'"),
    "the_first_state_has_a_negative_position_in_its_text": ("StateError", "'dist_sched.position'"),
    "the_first_state_has_an_unknown_entry_in_its_text": (
        "StateError",
        "dist_sched._config.entries.cool",
    ),
    "the_first_state_has_an_unknown_unit_in_its_text": ("StateError", "'dist_sched.unit'"),
    "the_first_state_has_an_illegal_late_change_in_its_text": (
        "StateError",
        "'dist_sched.lineage[0]'",
    ),
    "the_first_state_is_of_a_newer_version": ("StateError", "of version 2", "upgrade"),
    "the_first_state_is_of_no_version": ("StateError", "'dist_sched'", "no valid version"),
    "strict_and_different": (
        "ReconcileError",
        "max_lr is 1.0 in the config and 0.5 in the checkpoint",
        "lr_decay_steps is 136 in the config and 200 in the checkpoint",
        "end_wd is 0.5 in the config and 0.25 in the checkpoint",
    ),
    "strict_on_the_first_rank_alone": ("ReconcileError", "max_lr is 1.0 in the config and 0.5"),
    "the_outcome_is_no_legal_config": (
        "ReconcileError",
        "lr_warmup_steps=64: must be less than lr_decay_steps=32",
    ),
    "the_units_differ": ("ReconcileError", "unit is 'samples' in the config and 'steps' in the"),
    "the_position_is_not_the_trainers": ("StateError", "'num_steps'", "72", "71"),
    "the_trainers_position_is_no_number": ("ConfigError", "expected_position='seventy-two'"),
    "the_first_rank_has_an_illegal_group": ("ConfigError", "group 0: lr_mult=-1.0"),
    "decide_returns_what_cannot_be_unpickled": ("ValueError", "not a number"),
    "decide_raises_what_pickle_changes": ("", "cannot use lr"),
}

# By case, what is said of the last rank, before `synchronize`.
MISMATCHES = {
    "verify_with_another_config": [
        "max_lr is 0.5, rank 0 has 1.0",
        "lr_decay_style is 'cosine', rank 0 has 'linear'",
    ],
    "verify_with_another_position": ["position is 5, rank 0 has 72"],
    "verify_with_another_unit": ["unit is 'tokens', rank 0 has 'steps'"],
    "verify_with_another_policy": [
        "policy is {'*': 'strict'}, rank 0 has {'*': 'checkpoint'}",
    ],
    "verify_with_another_rule_for_ratios": ["keep_group_ratios is False, rank 0 has True"],
    "verify_with_another_first_group": ["reference lr is 0.5, rank 0 has 1.0"],
    "verify_with_an_lr_written_by_hand": ["group 1: lr holds 0.75 and should hold 0.25"],
    "verify_with_an_lr_of_nan": ["group 1: lr holds nan and should hold 0.25"],
    "verify_with_an_lr_of_text": ["group 1: lr holds '0.25' and should hold 0.25"],
    "verify_with_an_lr_tensor_written_by_hand": ["group 1: lr holds 0.75 and should hold 0.25"],
    "verify_with_a_weight_decay_written_by_hand": [
        "group 1: weight_decay holds 0.75 and should hold 0.28125",
    ],
    "verify_with_another_inner_optimizer": [
        "group 0: lr holds 0.125 and should hold 0.5",
        "group 0: weight_decay holds 0.0 and should hold 0.28125",
    ],
}


@pytest.mark.parametrize("case", SAME)
def test_every_rank_ends_with_the_same(world, case):
    for group in world.groups(case):
        assert [SAME[case]] * len(group) == ended(group)


@pytest.mark.parametrize("case", REFUSED)
def test_every_rank_raises_the_same_error(world, case):
    kind, *parts = REFUSED[case]
    for group in world.groups(case):
        first, *others = [error for (error,) in ended(group)]
        assert kind in first["error"]
        assert [] == [part for part in parts if part not in first["message"]]
        assert [first] * len(others) == others


@pytest.mark.parametrize("case", MISMATCHES)
def test_verify_names_rank_entry_and_both_values_on_all_ranks(world, case):
    for group in world.groups(case):
        if len(group) > 1:
            lines = [f"rank {len(group) - 1}: {line}" for line in MISMATCHES[case]]
            message = "\n".join(["ranks disagree:", *lines])
            expected = {"error": "RankMismatchError", "message": message}
            assert [expected] * len(group) == [before for before, _, _ in ended(group)]


@pytest.mark.parametrize("case", MISMATCHES)
def test_after_synchronize_all_ranks_have_what_the_first_had_and_verify_passes(world, case):
    for group in world.groups(case):
        first = ended(group)[0][1]
        assert 72 == first["state"]["num_steps"]
        assert 1.0 == first["state"]["max_lr"]
        assert [[first, first]] * len(group) == [after for _, *after in ended(group)]


def test_verify_names_an_illegal_multiplier_on_all_ranks(world):
    for group in world.groups("verify_with_an_illegal_multiplier"):
        if len(group) > 1:
            line = f"rank {len(group) - 1}: group 1: lr_mult=-1.0: must be a finite number >= 0"
            expected = {"error": "RankMismatchError", "message": f"ranks disagree:\n{line}"}
            assert [[expected]] * len(group) == ended(group)


def test_a_rank_mismatch_carries_what_each_rank_had(world):
    for group in world.groups("verify_tells_what_each_rank_had"):
        expected = {str(rank): 2.0**rank for rank in range(len(group))}
        assert [[expected]] * len(group) == ended(group) or [[]] == group


def test_a_good_load_follows_a_refused_one(world):
    for group in world.groups("a_good_load_follows_a_refused_one"):
        for refused, loaded, refused_again in ended(group):
            assert ("StateError", LOADED) == (refused["error"], loaded)
            assert "the trainer's is 1" in refused_again["message"]


def test_an_error_changes_nothing(world):
    failed = {key: it for key, it in world.records().items() if "error" in it["ended"]}
    assert {} == {key: it["changed"] for key, it in failed.items() if it.get("changed")}


def test_every_case_ends_within_10_seconds(world):
    seconds = {key: record.get("seconds", 0.0) for key, record in world.records().items()}
    assert {} == {key: taken for key, taken in seconds.items() if taken > 10}


# Ranks that differ


def test_ranks_with_other_groups_and_optimizers_have_the_same_config_and_position(world):
    for group in world.groups("ranks_have_different_numbers_of_groups_and_optimizers"):
        for rank, (loaded,) in enumerate(ended(group)):
            lrs, wds = LOADED["lr"] * (rank + 1) ** 2, LOADED["wd"] * (rank + 1) ** 2
            assert {"position": 72, "lr": lrs, "wd": wds} == loaded


@pytest.mark.parametrize("case", ["pipeline_stages_load", "pipeline_stages_synchronize"])
def test_pipeline_stages_have_the_ratios_of_one_process(world, case):
    for group in world.groups(case):
        for rank, (*_, verified) in enumerate(ended(group)):
            lrs = [(0.5 / 2**stage).hex() for stage in (rank, rank + 1)]
            assert {"position": 72, "lr": lrs, "wd": LOADED["wd"] * 2} == verified


def test_verify_names_the_reference_values_of_pipeline_stages(world):
    for group in world.groups("pipeline_stages_synchronize"):
        lines = [
            f"rank {rank}: reference lr is {0.5**rank}, rank 0 has 1.0"
            for rank in range(1, len(group))
        ]
        if lines:
            message = "\n".join(["ranks disagree:", *lines])
            assert [message] * len(group) == [before["message"] for before, *_ in ended(group)]


def test_a_later_stage_of_no_decay_groups_alone_keeps_its_zero(world):
    for group in world.groups("another_stage_has_no_decay_groups_alone"):
        *others, (synchronized, verified) = ended(group)
        assert [(0.0).hex()] == synchronized["wd"] == verified["wd"] or len(group) == 1
        for records in others:
            assert [[(0.28125).hex(), (0.5625).hex(), (0.0).hex()]] * 2 == [
                it["wd"] for it in records
            ]


def test_verify_passes_after_synchronize_where_the_first_stage_has_no_decay_alone(world):
    for group in world.groups("the_first_stage_has_no_decay_groups_alone"):
        assert [False] * len(group) == ["error" in verified for _, verified in ended(group)]


def test_verify_raises_where_stages_differ_and_the_first_has_no_groups(world):
    for group in world.groups("the_first_stage_has_no_groups"):
        if len(group) > 2:
            errors = [before.get("error") for before, _ in ended(group)]
            assert ["RankMismatchError"] * len(group) == errors


def test_a_rank_with_an_illegal_group_fails_alone_and_nobody_waits(world):
    for group in world.groups("another_rank_has_an_illegal_group"):
        *others, (last,) = ended(group)
        assert [[LOADED]] * len(others) == others
        assert last.get("error") == "ConfigError" or len(group) == 1


def test_ranks_that_disagreed_when_they_saved_load_what_one_of_them_had(world):
    for group in world.groups("ranks_that_disagreed_saved"):
        (first,), *others = ended(group)
        lrs = {72 + rank: (2.0**-rank * (64 - rank) / 128).hex() for rank in range(len(group))}
        assert [lrs[first["position"]]] == first["lr"]
        assert [[first]] * len(others) == others


# What is logged


@pytest.mark.parametrize(
    "case, level", [("the_checkpoint_differs", "WARNING"), ("the_checkpoint_is_equal", "INFO")]
)
def test_the_first_rank_alone_reports_a_load_once(world, case, level):
    for group in world.groups(case):
        (first,), *others = [record["log"] for (record,) in group]
        assert (level, "loaded the scheduler at position 72") == (first[0], first[1][:35])
        assert [[]] * len(others) == others


def test_a_rank_that_adopts_the_first_ranks_config_says_which_entries_differed(world):
    for group in world.groups("another_rank_has_another_config"):
        *others, last = [[log for record in rank for log in record["log"]] for rank in group]
        if others:
            message = f"rank {len(others)} adopts what rank 0 has: max_lr 1.0 instead of 0.5"
            assert [["WARNING", message]] == last
            assert [1] + [0] * (len(others) - 1) == [len(log) for log in others]


def test_a_warning_names_the_keys_of_a_torn_state(world):
    for group in world.groups("a_torn_state"):
        ((level, message),) = group[0][0]["log"]
        assert level == "WARNING"
        assert "the state is torn: max_lr, num_steps differ from its text" in message


def test_every_rank_keeps_the_reconciliation_and_has_it_in_a_refusal_too(world):
    for group in world.groups("every_rank_keeps_the_reconciliation"):
        (loaded, kept, refused), *others = ended(group)
        assert LOADED == loaded
        for told in (kept, refused):
            changed = [row for row in told["rows"] if row["changed"]]
            assert [("max_lr", 0.5, 1.0)] == [
                (row["name"], row["config"], row["checkpoint"]) for row in changed
            ]
        assert [[loaded, kept, refused]] * len(others) == others


# Collectives

SILENT = ["construction", "step", "seek", "num_steps", "state_dict", "get_last_lr", "repr"]
SILENT += ["check_position", "a local load", "an optimizer's load"]
COLLECTIVE = {
    "load": {"broadcast_object_list": 1},
    "synchronize": {"all_gather_object": 1},
    "verify": {"all_gather_object": 1},
}


def test_a_load_is_one_broadcast_and_nothing_but_checks_communicates(world):
    for group in world.groups("collectives"):
        for (counts,) in ended(group):
            assert dict.fromkeys(SILENT, 0) == {name: counts[name]["operations"] for name in SILENT}
            calls = {name: count["calls"] for name, count in counts.items() if count["calls"]}
            assert COLLECTIVE == calls


def test_a_local_load_on_one_rank_leaves_the_callers_broadcast_alone(world):
    for group in world.groups("one_rank_loads_locally"):
        assert [{"received": 7.0}] * len(group) == [rank[-1] for rank in ended(group)]
        assert LOADED == ended(group)[-1][0]


# Ranks that die, and groups that come and go

DEATHS = {
    "the_first_rank_dies_before_it_decides": lambda size: size - 1,
    "the_first_rank_dies_while_it_decides": lambda size: size - 1,
    "the_first_rank_dies_while_it_tells": lambda size: size - 1,
    "the_first_rank_never_decides": lambda size: size - 1,
    "the_first_rank_of_a_part_dies": lambda size: max(size - 2, 0),
    "the_first_rank_of_a_mesh_dimension_dies": lambda size: size - (2 if size % 4 == 0 else 1),
}


@pytest.mark.parametrize("life", DEATHS)
def test_when_the_first_rank_dies_the_others_fail_with_the_groups_own_error(world, life):
    ends = [record["ended"] for record in world.lives(life)]
    assert ["RuntimeError"] * DEATHS[life](world.size) == [end.get("error") for end in ends]
    assert [] == [end["message"] for end in ends if "gloo" not in end["message"]]


def test_when_another_rank_dies_nobody_holds_wrong_values(world):
    records = world.lives("another_rank_dies_before_it_hears")
    assert world.size - 1 == len(records)
    for record in records:
        assert record["ended"] == LOADED or "gloo" in record["ended"]["message"]


def test_a_process_group_may_come_after_the_scheduler(world):
    records = world.lives("the_process_group_comes_after_the_scheduler")
    assert [LOADED] * world.size == [record["ended"] for record in records]


def test_without_its_process_group_each_rank_loads_by_itself(world):
    records = world.lives("the_process_group_is_gone_before_the_load")
    assert [LOADED] * world.size == [record["ended"] for record in records]


def test_verify_names_an_integer_tensor_written_by_hand_on_all_ranks(world):
    ends = [record["ended"] for record in world.lives("another_rank_holds_an_integer_tensor")]
    if world.size > 1:
        assert ["RankMismatchError"] * world.size == [end.get("error") for end in ends]
        assert {f"ranks disagree:\nrank {world.size - 1}: group 0: lr holds 1 and should"} == {
            end["message"].rpartition(" hold ")[0] for end in ends
        }


# Other numbers of ranks, and real models


@pytest.mark.parametrize("kind", ["fsdp2", "ddp", "hsdp"])
def test_what_4_ranks_saved_goes_on_exactly_on_any_number_of_ranks(world, saved, kind):
    weights = saved[1].results[0]["models"][kind]["weights"]
    sequence = [[k / 8, k / 8, 0.0, k / 256] for k in range(3, 7)]
    expected = {"weights": weights, "values": [[it.hex() for it in row] for row in sequence]}
    assert [expected] * world.size == [found["models"][kind] for found in world.found]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_table_holds_on_nccl(torchrun):
    count = torch.cuda.device_count()
    world = World(torchrun("faults.py", count, "--device", "cuda", **LAUNCH))
    for case in SAME:
        test_every_rank_ends_with_the_same(world, case)
    for case in REFUSED:
        test_every_rank_raises_the_same_error(world, case)
    for case in MISMATCHES:
        test_verify_names_rank_entry_and_both_values_on_all_ranks(world, case)
        test_after_synchronize_all_ranks_have_what_the_first_had_and_verify_passes(world, case)
    test_an_error_changes_nothing(world)
    test_a_load_is_one_broadcast_and_nothing_but_checks_communicates(world)
