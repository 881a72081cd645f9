"""The fault table: whatever goes wrong on one rank, all ranks end alike, and soon.

One launch a world size runs every case of `programs/*_cases.py` on all ranks, on a part of them,
and along a mesh dimension. The tests read what each rank wrote.
"""

from __future__ import annotations

import pytest
import torch

from peers_table import cell

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

LAUNCH = {"timeout": 100}


class World:
    """What the ranks of one launch wrote."""

    def __init__(self, results):
        self.results = results
        self.size = len(results)

    def groups(self, case):
        """Return a case's records for each process group: a list of ranks, each of attempts."""
        groups = {}
        for result in self.results:
            for name, group in result["groups"].items():
                records = groups.setdefault((name, *group["ranks"]), [])
                records.append(group["cases"][case])
        return list(groups.values())

    def lifecycle(self, case):
        """Return the record of each rank that did not die in a case."""
        records = [result["lifecycle"][case] for result in self.results]
        return [record for record in records if record is not None]

    def records(self):
        """Return all records, by case and place."""
        return {
            (case, name, rank, index): record
            for rank, result in enumerate(self.results)
            for name, group in result["groups"].items()
            for case, records in group["cases"].items()
            for index, record in enumerate(records)
        } | {
            (case, rank): record
            for rank, result in enumerate(self.results)
            for case, record in result["lifecycle"].items()
            if record is not None
        }


@pytest.fixture(scope="module")
def saved(torchrun, tmp_path_factory):
    """Save models on 4 ranks, for the other world sizes to load."""
    folder = tmp_path_factory.mktemp("models")
    return folder, torchrun("faults.py", 4, "--save", folder, **LAUNCH)


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 8], ids="{} ranks".format)
def world(request, torchrun, saved):
    folder, on_four = saved
    if request.param == 4:
        return World(on_four)
    return World(torchrun("faults.py", request.param, "--load", folder, **LAUNCH))


def ended(group):
    return [[record["ended"] for record in rank] for rank in group]


def error_of(record):
    return record if "error" in record else None


def mismatch(lines):
    """Return the error that names these lines, None where there are none."""
    message = "\n".join(["ranks disagree:", *lines])
    return {"error": "RankMismatchError", "message": message} if lines else None


def is_another(rank, group):
    """Whether this rank has the fault; a group of one has no such rank."""
    return 0 < rank == len(group) - 1


def at(position, lr, wd):
    """Return the values of a rank with one group."""
    return {"position": position, "lr": [lr.hex()], "wd": [wd.hex()]}


LOADED = at(72, 0.5, 0.28125)

# By case, how each attempt ends on every rank.
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
    "a_reader_returns": [{"returned": "{'a': [1.0, None, 'b']}"}],
    "a_reader_raises": [{"error": "KeyError", "message": "'lr'"}],
    "a_reader_returns_what_cannot_be_pickled": [
        {"error": "TypeError", "message": "cannot pickle '_thread.lock' object"}
    ],
    "a_reader_raises_what_cannot_be_unpickled": [
        {"error": "RuntimeError", "message": "TwoPartError: lr is 1.0"}
    ],
}

# By case, the error on every rank, and parts of its message.
REFUSED = {
    "the_first_ranks_state_is_empty": ("StateError", "'state'", "is empty"),
    "the_first_ranks_state_is_none": ("StateError", "'state'", "must be a dict, not NoneType"),
    "the_first_ranks_state_is_a_list": ("StateError", "'state'", "must be a dict, not list"),
    "the_first_ranks_state_is_unreadable": ("StateError", "the disk is gone"),
    "the_first_ranks_state_lacks_a_key": ("StateError", "'max_lr'", "is missing"),
    "the_first_ranks_state_lacks_its_position": ("StateError", "'num_steps'", "is missing"),
    "the_first_ranks_state_lacks_all_but_its_text": (
        "StateError",
        "'max_lr'",
        "is missing",
        "end_wd",
    ),
    "the_first_ranks_state_has_a_string_for_a_number": ("StateError", "'max_lr'", "max_lr='1.0'"),
    "the_first_ranks_state_has_a_number_for_a_style": (
        "StateError",
        "'lr_decay_style'",
        "'cosine'",
    ),
    "the_first_ranks_state_has_a_fraction_for_a_position": ("StateError", "'num_steps'", "72.5"),
    "the_first_ranks_state_has_a_bool_for_a_position": ("StateError", "'num_steps'", "True"),
    "the_first_ranks_state_has_a_tensor_of_two": ("StateError", "'max_lr'", "must be a number"),
    "the_first_ranks_state_has_a_tensor_without_data": ("StateError", "'max_lr'"),
    "the_first_ranks_state_has_nan": ("StateError", "'max_lr'", "max_lr=nan"),
    "the_first_ranks_state_has_infinity": ("StateError", "'lr_decay_steps'", "lr_decay_steps=inf"),
    "the_first_ranks_state_has_a_negative_position": ("StateError", "'num_steps'", "num_steps=-1"),
    "the_first_ranks_state_has_a_negative_rate": ("StateError", "'min_lr'", "min_lr=-0.5"),
    "the_first_ranks_state_has_a_huge_position": ("StateError", "'num_steps'", "9007199254740993"),
    "the_first_ranks_state_has_a_huge_length": ("StateError", "'wd_incr_steps'", "at most 2**53"),
    "the_first_ranks_state_has_a_huge_rate": ("StateError", "'max_lr'", "a finite number"),
    "the_first_ranks_state_has_a_position_of_5000_digits": ("StateError", "'num_steps'", "2**53"),
    "the_first_ranks_state_contradicts_itself": (
        "StateError",
        "'start_lr'",
        "max_lr",
        "0.25",
        "1.0",
    ),
    "the_first_ranks_state_has_a_text_that_is_garbage": (
        "StateError",
        "'dist_sched'",
        "valid JSON",
    ),
    "the_first_ranks_state_has_a_text_that_is_a_number": ("StateError", "'dist_sched'", "not int"),
    "the_first_ranks_state_has_a_text_too_deep": ("StateError", "'dist_sched'", "valid JSON"),
    "the_first_ranks_state_has_nan_in_its_text": ("StateError", "'dist_sched'", "NaN"),
    "the_first_ranks_state_has_a_wrong_type_in_its_text": (
        "StateError",
        "'dist_sched.config.max_lr'",
    ),
    "the_first_ranks_state_has_a_negative_position_in_its_text": (
        "StateError",
        "'dist_sched.position'",
    ),
    "the_first_ranks_state_has_an_unknown_entry_in_its_text": (
        "StateError",
        "dist_sched.config.cool",
    ),
    "the_first_ranks_state_has_an_unknown_unit_in_its_text": ("StateError", "'dist_sched.unit'"),
    "the_first_ranks_state_has_an_illegal_late_change_in_its_text": (
        "StateError",
        "'dist_sched.lineage[0]'",
    ),
    "the_first_ranks_state_is_of_a_newer_version": ("StateError", "has version 3", "upgrade"),
    "the_first_ranks_state_is_of_no_version": ("StateError", "'dist_sched'", "no valid version"),
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
    "a_reader_returns_what_cannot_be_unpickled": ("ValueError", "not a number"),
    "a_reader_raises_what_pickle_changes": ("", "cannot use lr"),
}

# By case, what `verify` names on the last rank.
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
    "verify_with_an_lr_written_by_hand": ["group 1: lr is 0.75 and should be 0.25"],
    "verify_with_an_lr_of_nan": ["group 1: lr is nan and should be 0.25"],
    "verify_with_an_lr_of_text": ["group 1: lr is '0.25' and should be 0.25"],
    "verify_with_an_lr_tensor_written_by_hand": ["group 1: lr is 0.75 and should be 0.25"],
    "verify_with_a_weight_decay_written_by_hand": [
        "group 1: weight_decay is 0.75 and should be 0.28125",
    ],
    "verify_with_another_inner_optimizer": [
        "group 0: lr is 0.125 and should be 0.5",
        "group 0: weight_decay is 0.0 and should be 0.28125",
    ],
}


# By case, the error of the attempts on every rank of a group that has another rank.
UNAPPLIED = {
    "another_ranks_mean_would_reach_1": ("ConfigError", "momentum would reach 1.08", "ratio 1.8"),
    "another_ranks_reference_brings_a_mean_to_1": (
        "ConfigError",
        "group 0: momentum would reach 1.08",
        "must be below 1",
    ),
    "another_rank_has_lost_a_part": ("ConfigError", "group 0: betas[1] was removed"),
    "another_rank_has_lost_its_tuple": ("ConfigError", "group 0: betas[1] was removed"),
    "another_rank_has_lost_its_value": ("ConfigError", "group 0: lr was removed"),
    "another_ranks_scheduler_was_replaced": ("ConfigError", "a newer scheduler"),
    "another_rank_synchronizes_in_another_order_what_schedules_other_fields": (
        "RankMismatchError",
        "same order",
    ),
    "a_shape_is_registered_on_the_first_rank_alone": ("ConfigError", "'only_here'", "register"),
    "another_rank_has_the_other_class": (
        "RankMismatchError",
        "ParamScheduler",
        "OptimizerParamScheduler",
    ),
    "two_patterns_match_one_group_once_ranks_are_united": ("ConfigError", "'ab'", "'a*'", "'*b'"),
    "another_rank_has_an_illegal_multiplier": ("ConfigError", "group 0: wd_mult=-1.0"),
    "another_rank_has_an_illegal_bound": ("ConfigError", "group 0: max_lr='high'"),
    "another_rank_has_an_illegal_upper_bound": ("ConfigError", "group 0: end_wd=-1.0"),
    "a_reader_returns_what_only_the_first_rank_can_import": ("", "only_on_the_first_rank"),
    "another_rank_loads_in_another_order_with_other_configs": ("RankMismatchError", "same order"),
    "another_rank_loads_in_another_order_with_equal_configs_and_names": (
        "RankMismatchError",
        "same order",
        "'generator'",
        "'discriminator'",
    ),
    "another_rank_has_another_name": ("RankMismatchError", "name is 'b'", "'a'"),
    "a_pattern_of_the_table_is_misspelt": ("ConfigError", "stgae0", "did you mean 'stage"),
    "no_rank_has_the_reference": ("ConfigError", "reference='haed'"),
}


@pytest.mark.parametrize("case", UNAPPLIED)
def test_what_one_rank_cannot_apply_no_rank_applies(world, case):
    kind, *parts = UNAPPLIED[case]
    is_local = case == "a_pattern_of_the_table_is_misspelt"  # its last attempts do not communicate
    for group in world.groups(case):
        first, *others = ended(group)
        if len(group) == 1:
            assert [] == [end for end in first if "error" in end]
            continue
        for errors in zip(first, *others, strict=True):
            assert [kind in error["error"] for error in errors] == [True] * len(group)
            assert [] == [part for part in parts if part not in errors[0]["message"]]
            assert is_local or [errors[0]] * len(group) == list(errors)


@pytest.mark.parametrize(
    "case",
    [
        "a_group_of_another_rank_has_lost_its_lr",
        "another_rank_has_a_replaced_scheduler_of_the_first_ranks_config",
        "the_first_rank_has_a_scheduler_more",
    ],
)
def test_what_is_no_fault_of_another_rank_is_none(world, case):
    for group in world.groups(case):
        assert [[LOADED]] * len(group) == ended(group)


@pytest.mark.parametrize("case", ["stages_share_one_table", "stages_share_one_table_and_load"])
def test_stages_that_share_one_table_have_the_values_of_one_process(world, case):
    for group in world.groups(case):
        is_load = case.endswith("load")
        for rank, ends in enumerate(ended(group)):
            reference = 2.0 ** -(len(group) - 1) if is_load else 1.0
            assert 0.5 * 2.0**-rank / reference == float.fromhex(ends[-1]["lr"][0])


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
        named = MISMATCHES[case] if len(group) > 1 else []
        expected = mismatch([f"rank {len(group) - 1}: {line}" for line in named])
        assert [expected] * len(group) == [error_of(before) for before, _, _ in ended(group)]


@pytest.mark.parametrize("case", MISMATCHES)
def test_after_synchronize_all_ranks_have_what_the_first_had_and_verify_passes(world, case):
    for group in world.groups(case):
        first = ended(group)[0][1]
        assert 72 == first["state"]["num_steps"]
        assert 1.0 == first["state"]["max_lr"]
        assert [[first, first]] * len(group) == [after for _, *after in ended(group)]


def test_verify_names_an_illegal_multiplier_on_all_ranks(world):
    line = "group 1: lr_mult=-1.0: must be a finite number >= 0"
    for group in world.groups("verify_with_an_illegal_multiplier"):
        last = len(group) - 1
        expected = mismatch([f"rank {last}: {line}"] if last else [])
        assert [expected] * len(group) == [error_of(record) for (record,) in ended(group)]


def test_a_rank_mismatch_carries_what_each_rank_had(world):
    for group in world.groups("verify_reports_what_each_rank_had"):
        ranks = {str(rank): 2.0**rank for rank in range(len(group))}
        expected = [ranks] if len(group) > 1 else []  # one rank alone has no mismatch
        assert [expected] * len(group) == ended(group)


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


def test_a_rank_that_declares_other_extras_adopts_what_the_first_has(world):
    for group in world.groups("another_rank_declares_other_extras"):
        values = [last for _, last in ended(group)]
        assert [{"returned": {"batch_size": 64.0}}] * len(group) == values


@pytest.mark.parametrize("case", ["pipeline_stages_load", "pipeline_stages_synchronize"])
def test_pipeline_stages_have_the_ratios_of_one_process(world, case):
    for group in world.groups(case):
        for rank, (*_, verified) in enumerate(ended(group)):
            lrs = [(0.5 / 2**stage).hex() for stage in (rank, rank + 1)]
            assert {"position": 72, "lr": lrs, "wd": LOADED["wd"] * 2} == verified


def test_a_failed_verify_leaves_each_stage_its_own_ratios(world):
    for group in world.groups("pipeline_stages_synchronize"):
        lrs = [(0.5).hex(), (0.25).hex()]
        assert [lrs] * len(group) == [sought["lr"] for _, sought, *_ in ended(group)]


def test_verify_names_the_reference_values_of_pipeline_stages(world):
    for group in world.groups("pipeline_stages_synchronize"):
        others = range(1, len(group))
        expected = mismatch(
            [f"rank {it}: reference lr is {0.5**it}, rank 0 has 1.0" for it in others]
        )
        assert [expected] * len(group) == [error_of(before) for before, *_ in ended(group)]


def test_a_later_stage_of_no_decay_groups_alone_keeps_its_zero(world):
    for group in world.groups("another_stage_has_no_decay_groups_alone"):
        for rank, (synchronized, verified) in enumerate(ended(group)):
            wds = [0.0] if is_another(rank, group) else [0.28125, 0.5625, 0.0]
            assert [wd.hex() for wd in wds] == synchronized["wd"] == verified["wd"]


def test_verify_passes_after_synchronize_where_the_first_stage_has_no_decay_alone(world):
    for group in world.groups("the_first_stage_has_no_decay_groups_alone"):
        assert [False] * len(group) == ["error" in verified for _, verified in ended(group)]


def test_verify_raises_where_stages_differ_and_the_first_has_no_groups(world):
    for group in world.groups("the_first_stage_has_no_groups"):
        expected = "RankMismatchError" if len(group) > 2 else None  # two stages have to differ
        assert [expected] * len(group) == [before.get("error") for before, _ in ended(group)]


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


@cell("Ranks resume with different configs", "dist_sched", "all follow rank 0; the log says so")
def test_a_rank_that_adopts_the_first_ranks_config_says_which_entries_differed(world):
    adopted = "adopts rank 0's config: max_lr 1.0 instead of 0.5"
    for group in world.groups("another_rank_has_another_config"):
        for rank, (record,) in enumerate(group):
            lines = [message for level, message in record["log"] if level == "WARNING"]
            expected = [f"rank {rank} {adopted}"] if is_another(rank, group) else []
            assert expected == [line for line in lines if "adopts" in line]
            assert (1 if rank == 0 else len(expected)) == len(record["log"])


def test_a_warning_names_the_keys_of_a_torn_state(world):
    for group in world.groups("a_torn_state"):
        ((level, message),) = group[0][0]["log"]
        assert level == "WARNING"
        assert "the state is inconsistent: max_lr, num_steps differ from its text" in message


def test_every_rank_keeps_the_reconciliation_and_has_it_in_a_refusal_too(world):
    for group in world.groups("every_rank_keeps_the_reconciliation"):
        (loaded, kept, refused), *others = ended(group)
        assert LOADED == loaded
        for reconciliation in (kept, refused):
            changed = [row for row in reconciliation["rows"] if row["changed"]]
            assert [("max_lr", 0.5, 1.0)] == [
                (row["name"], row["config"], row["checkpoint"]) for row in changed
            ]
        assert [[loaded, kept, refused]] * len(others) == others


# Collectives

SILENT = ["construction", "step", "seek", "num_steps", "state_dict", "get_last_lr", "repr"]
SILENT += ["check_position", "a local load", "an optimizer's load"]
COLLECTIVE = {
    "load": {"broadcast_object_list": 1, "all_gather_object": 1},
    "synchronize": {"all_gather_object": 2},
    "verify": {"all_gather_object": 1},
}


def test_a_load_is_one_broadcast_and_one_gather_and_little_else_communicates(world):
    for group in world.groups("collectives"):
        for (counts,) in ended(group):
            assert dict.fromkeys(SILENT, 0) == {name: counts[name]["operations"] for name in SILENT}
            calls = {name: count["calls"] for name, count in counts.items() if count["calls"]}
            assert COLLECTIVE == calls


def test_a_local_load_on_one_rank_leaves_the_callers_broadcast_alone(world):
    for group in world.groups("one_rank_loads_locally"):
        assert [{"received": 7.0}] * len(group) == [rank[-1] for rank in ended(group)]
        assert LOADED == ended(group)[-1][0]


# Ranks that die, and process groups that come late or go early

# By case, how many ranks of a world see the death.
DEATHS = {
    "the_first_rank_dies_before_it_decides": lambda size: size - 1,
    "the_first_rank_dies_while_it_decides": lambda size: size - 1,
    "the_first_rank_dies_while_it_sends": lambda size: size - 1,
    "the_first_rank_never_decides": lambda size: size - 1,
    "the_first_rank_of_a_part_dies": lambda size: max(size - 2, 0),
    "the_first_rank_of_a_mesh_dimension_dies": lambda size: size - (2 if size % 4 == 0 else 1),
}


@pytest.mark.parametrize("case", DEATHS)
def test_when_the_first_rank_dies_the_others_fail_with_the_groups_own_error(world, case):
    ends = [record["ended"] for record in world.lifecycle(case)]
    assert ["RuntimeError"] * DEATHS[case](world.size) == [end.get("error") for end in ends]
    parts = ("gloo", "dist_sched: the load of OptimizerParamScheduler: its collective over")
    messages = [end["message"] for end in ends]
    assert [] == [one for one in messages for part in parts if part not in one]


def test_when_another_rank_dies_nobody_holds_wrong_values(world):
    records = world.lifecycle("another_rank_dies_before_it_receives")
    assert world.size - 1 == len(records)
    for record in records:
        assert record["ended"] == LOADED or "gloo" in record["ended"]["message"]


def test_a_process_group_may_come_after_the_scheduler(world):
    records = world.lifecycle("the_process_group_comes_after_the_scheduler")
    assert [LOADED] * world.size == [record["ended"] for record in records]


def test_without_its_process_group_each_rank_loads_by_itself(world):
    records = world.lifecycle("the_process_group_is_gone_before_the_load")
    assert [LOADED] * world.size == [record["ended"] for record in records]


def test_verify_names_an_integer_tensor_written_by_hand_on_all_ranks(world):
    last = world.size - 1
    line = f"rank {last}: group 0: lr is 1 and should be 0.0"
    expected = mismatch([line] if last else [])
    records = world.lifecycle("another_rank_holds_an_integer_tensor")
    assert [expected] * world.size == [error_of(record["ended"]) for record in records]


# Other numbers of ranks, and real models


@pytest.mark.parametrize("kind", ["fsdp2", "ddp", "hsdp"])
def test_what_4_ranks_saved_goes_on_exactly_on_any_number_of_ranks(world, saved, kind):
    weights = saved[1][0]["models"][kind]["weights"]
    sequence = [[k / 8, k / 8, 0.0, k / 256] for k in range(3, 7)]
    expected = {"weights": weights, "values": [[it.hex() for it in row] for row in sequence]}
    assert [expected] * world.size == [result["models"][kind] for result in world.results]


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
    test_a_load_is_one_broadcast_and_one_gather_and_little_else_communicates(world)
