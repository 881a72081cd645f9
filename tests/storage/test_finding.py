"""A scheduler's state is found in whatever holds it: layouts, trackers, numbered checkpoints."""

from __future__ import annotations

import functools
import logging
import os
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from dist_sched import StateError, checkpoint
from dist_sched._storage import finding
from dist_sched._storage.finding import StateLocation
from dist_sched._storage.trees import MAX_DEPTH, Leaf
from helpers import Runs, save_dcp, save_torch, state_at

MODEL = {"layer.weight": torch.zeros(3, 4), "layer.bias": torch.zeros(3)}
STATE = state_at(60)


def nest(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return {"model": MODEL, **value}


@pytest.mark.parametrize("key", ["scheduler", "optim.sched", "a.b.c.d.e.whatever"])
@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_the_state_is_found_wherever_it_is_nested(tmp_path, save, key):
    path = save(nest(key, STATE), tmp_path / "a.pt")
    found, where = checkpoint.read_state(path)
    assert (STATE, key, "dist_sched") == (found, where.key, where.format)


@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_the_file_or_folder_may_be_the_state_itself(tmp_path, save):
    found, where = checkpoint.read_state(save(STATE, tmp_path / "a.pt"))
    assert (STATE, "") == (found, where.key)


def test_a_location_is_written_with_its_path_key_and_format(tmp_path):
    where = checkpoint.read_state(save_torch({"s": STATE}, tmp_path / "a.pt"))[1]
    path = str(tmp_path / "a.pt")
    expected = StateLocation(path=path, key="s", checkpoint=path, format="dist_sched")
    assert expected == where
    assert f"{tmp_path}/a.pt, key 's' (dist_sched)" == str(where)


@pytest.mark.parametrize(
    "saved, given, expected",
    [
        ("run/step-6", "run/step-6", "run/step-6"),
        ("run/step-6", "run/step-6/.metadata", "run/step-6"),
        ("run/step-6", "run", "run/step-6"),
        ("run/epoch_0_step_6/optim", "run", "run/epoch_0_step_6"),
    ],
)
def test_the_checkpoint_is_the_folder_that_a_run_resumes_from(tmp_path, saved, given, expected):
    save_dcp({"scheduler": STATE}, tmp_path / saved)
    assert str(tmp_path / expected) == checkpoint.read_state(tmp_path / given)[1].checkpoint


@pytest.mark.parametrize("given, expected", [("", ""), ("scheduler.pt", "scheduler.pt")])
def test_the_checkpoint_is_a_file_where_that_was_named(tmp_path, given, expected):
    save_torch(STATE, tmp_path / "scheduler.pt")
    assert str(tmp_path / expected) == checkpoint.read_state(tmp_path / given)[1].checkpoint


def test_a_folder_saved_without_collectives_is_read(tmp_path):
    dcp.save({"scheduler": STATE}, checkpoint_id=tmp_path / "a", use_collectives=False)
    assert STATE == checkpoint.read_state(tmp_path / "a")[0]


def test_a_state_saved_as_one_item_is_found(tmp_path):
    planner = DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({"lr_scheduler": STATE}, checkpoint_id=tmp_path / "a", planner=planner)
    assert STATE == checkpoint.read_state(tmp_path / "a")[0]


def test_items_that_are_read_and_dropped_are_not_taken_for_one_another():
    """What is read after another was dropped may get its id."""
    tree = {f"sched_{i}": Leaf(lambda: {"inner": dict(STATE)}) for i in range(50)}
    assert 50 == len(list(finding._states(tree)))


def test_a_list_that_is_there_twice_has_its_states_once():
    states = [STATE]
    states.append(states)
    found = [(key, node) for key, _, node in finding._states({"a": states, "b": states})]
    assert [("a.0", STATE)] == found


def test_a_state_is_looked_for_up_to_a_depth():
    deepest = functools.reduce(lambda node, _: [node], range(MAX_DEPTH), STATE)
    assert 1 == len(list(finding._states(deepest)))
    assert [] == list(finding._states([deepest]))


@pytest.mark.parametrize("name, expected", [("LR_Scheduler", 1), ("sched", 1), ("step", 0)])
def test_an_item_is_read_if_its_name_is_a_schedulers(name, expected):
    assert expected == len(list(finding._states({name: Leaf(lambda: STATE)})))


def test_a_list_of_states_is_found(tmp_path):
    path = save_torch({"lr_schedulers": [STATE]}, tmp_path / "a.ckpt")
    assert "lr_schedulers.0" == checkpoint.read_state(path)[1].key


@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_several_states_are_named_and_none_is_guessed(tmp_path, save):
    path = save({"a": {"sched": STATE}, "b": {"sched": STATE}}, tmp_path / "x.pt")
    message = r"2 scheduler states: .*'a\.sched'.*'b\.sched'.*choose one with its key"
    with pytest.raises(StateError, match=message):
        checkpoint.read_state(path)
    assert STATE == checkpoint.read_state(path, key="b.sched")[0]


@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_a_missing_state_says_what_is_there_and_what_to_do(tmp_path, save):
    path = save({"model": MODEL, "step": 7}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"it has: 'model', 'step'.*scheduler\.seek"):
        checkpoint.read_state(path)


def test_a_wrong_key_names_the_right_ones(tmp_path):
    path = save_torch({"app": {"sched": STATE}}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"no key 'sched'; .*'app\.sched'"):
        checkpoint.read_state(path, key="sched")


def test_a_key_of_something_else_says_what_it_is(tmp_path):
    path = save_torch({"app": {"sched": STATE}, "progress": {"step": 3}}, tmp_path / "x.pt")
    with pytest.raises(StateError, match="'progress' is not a scheduler's state: it has 'step'"):
        checkpoint.read_state(path, key="progress")
    with pytest.raises(StateError, match=r"'progress\.step' is not a .*: it has no names"):
        checkpoint.read_state(path, key="progress.step")


@pytest.mark.parametrize("count, more", [(12, False), (13, True)])
def test_of_very_many_names_the_first_twelve_are_listed(tmp_path, count, more):
    names = [f"k{i:02}" for i in range(count)]
    listed = ", ".join(map(repr, names[:12])) + (", ..." if more else "")
    path = save_torch(dict.fromkeys(names, 0), tmp_path / "a.pt")
    with pytest.raises(StateError, match=f"it has: {listed}; pass the key"):
        checkpoint.read_state(path)
    save_torch({name: {"sched": STATE} for name in names}, path)
    with pytest.raises(StateError, match=f"there are {count} scheduler states: ") as caught:
        checkpoint.read_state(path)
    assert 12 == str(caught.value).count(str(path))


@pytest.mark.parametrize("count, more", [(12, ""), (13, ", ...")])
def test_of_very_many_files_without_a_state_the_first_twelve_are_listed(tmp_path, count, more):
    files = [save_torch({}, tmp_path / f"scheduler_{i:02}.bin") for i in range(count)]
    listed = ", ".join(map(str, files[:12])) + more
    with pytest.raises(StateError, match="no known scheduler's state; it has: nothing") as caught:
        checkpoint.read_state(tmp_path)
    assert f"{listed}: no known" in str(caught.value)


def test_a_name_that_may_be_read_in_two_ways_is_ambiguous(tmp_path):
    path = save_torch({"a": {"b": STATE}, "a.b": STATE}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"2 scheduler states: .*'a\.b' \(unknown\); "):
        checkpoint.read_state(path, key="a.b")


def test_a_name_with_dots_is_found_by_its_key(tmp_path):
    path = save_torch({"optim.sched": STATE, "b": {"sched": STATE}}, tmp_path / "x.pt")
    assert STATE == checkpoint.read_state(path, key="optim.sched")[0]


def test_names_that_are_ambiguous_sixty_times_take_no_time(tmp_path):
    node = {"z": 1}
    for _ in range(60):
        node = {"a": node, "a.a": node}
    path = save_torch(node, tmp_path / "a.pt")
    with pytest.raises(StateError, match="60 scheduler states"):
        checkpoint.read_state(path, key=".".join(["a"] * 60))


NUMBERED = ["step-{}", "iter_{:07d}", "checkpoint-{}", "global_step{}", "{}", "epoch_1_step_{}"]


@pytest.mark.parametrize("name", NUMBERED)
def test_the_newest_of_numbered_folders_is_read(tmp_path, name):
    for position in (9, 10, 100):
        save_dcp({"scheduler": state_at(position)}, tmp_path / name.format(position))
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert 100 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_the_newest_of_numbered_files_is_read(tmp_path):
    for position in (9, 10, 100):
        save_torch({"scheduler": state_at(position)}, tmp_path / f"step_{position}.pt")
    assert 100 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def remove_index(newest):
    (newest / ".metadata").unlink()


def cut_index(newest):
    data = (newest / ".metadata").read_bytes()
    (newest / ".metadata").write_bytes(data[: len(data) // 2])


def cut_data(newest):
    data = (newest / "__0_0.distcp").read_bytes()
    (newest / "__0_0.distcp").write_bytes(data[:100])


def remove_data(newest):
    (newest / "__0_0.distcp").unlink()


@pytest.mark.parametrize("damage", [remove_index, cut_index, cut_data, remove_data])
def test_an_incomplete_newest_folder_is_skipped_and_named(tmp_path, damage, caplog):
    for position in (5, 6):
        save_dcp({"scheduler": state_at(position)}, tmp_path / f"step-{position}")
    damage(tmp_path / "step-6")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    [record] = [each for each in caplog.records if "skipped" in each.message]
    assert ("dist_sched", logging.WARNING) == (record.name, record.levelno)
    assert f"skipped an incomplete checkpoint: {tmp_path / 'step-6'}" in record.message
    with pytest.raises(StateError):
        checkpoint.read_state(tmp_path / "step-6")


def test_an_incomplete_newest_file_is_skipped_and_named(tmp_path, caplog):
    save_torch({"scheduler": state_at(5)}, tmp_path / "step-5.pt")
    whole = save_torch({"scheduler": state_at(6)}, tmp_path / "step-6.pt").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "step-6.pt").write_bytes(whole[:end])
        assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    assert "step-6.pt" in caplog.text


def test_a_complete_newest_checkpoint_without_a_state_is_never_skipped(tmp_path):
    save_dcp({"scheduler": state_at(5)}, tmp_path / "step-5")
    save_dcp({"model": MODEL}, tmp_path / "step-6")
    with pytest.raises(StateError, match="step-6"):
        checkpoint.read_state(tmp_path)


def test_a_hostile_newest_checkpoint_is_never_skipped(tmp_path):
    save_torch({"scheduler": state_at(5)}, tmp_path / "step-5.pt")
    save_torch({"scheduler": Runs(tmp_path / "ran")}, tmp_path / "step-6.pt")
    with pytest.raises(StateError, match="could run code"):
        checkpoint.read_state(tmp_path)


def test_names_numbered_in_two_ways_are_not_guessed_at(tmp_path):
    save_dcp({"scheduler": STATE}, tmp_path / "step-5000")
    save_dcp({"scheduler": STATE}, tmp_path / "epoch-6")
    with pytest.raises(StateError, match="several ways, 'epoch-#', 'step-#', so the newest"):
        checkpoint.read_state(tmp_path)


def test_an_unfinished_folder_under_another_name_is_not_looked_at(tmp_path):
    save_dcp({"scheduler": state_at(5)}, tmp_path / "step-5")
    save_dcp({"scheduler": state_at(6)}, tmp_path / "step-6.tmp")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_a_name_of_many_digits_takes_no_time(tmp_path):
    save_dcp({"scheduler": STATE}, tmp_path / "step-60")
    (tmp_path / f"{'1' * 100}-final").mkdir()
    assert STATE == checkpoint.read_state(tmp_path)[0]


def test_an_unfinished_folder_alone_is_no_checkpoint(tmp_path):
    save_dcp({"scheduler": state_at(6)}, tmp_path / "step-6.tmp")
    with pytest.raises(StateError, match=r"no complete checkpoint.*'step-6\.tmp'"):
        checkpoint.read_state(tmp_path)


TRACKERS = [
    ("latest_checkpointed_iteration.txt", "5\n", "iter_{:07d}"),
    ("latest", "step5", "step{}"),
]


@pytest.mark.parametrize("tracker, text, name", TRACKERS)
def test_the_tracker_of_a_framework_names_the_newest(tmp_path, tracker, text, name):
    for position in (5, 6):
        save_torch({"s": state_at(position)}, tmp_path / name.format(position) / "common.pt")
    (tmp_path / tracker).write_text(text)
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    (tmp_path / tracker).write_text("../elsewhere")
    with pytest.raises(StateError, match="elsewhere"):
        checkpoint.read_state(tmp_path)


@pytest.mark.parametrize("name", ["5", "step_5"])
def test_a_tracker_of_deepspeed_has_the_very_name(tmp_path, name):
    save_torch({"s": STATE}, tmp_path / name / "common.pt")
    (tmp_path / "latest").write_text(name)
    assert STATE == checkpoint.read_state(tmp_path)[0]


def test_a_tracker_and_a_number_lead_to_a_key(tmp_path):
    save_torch({"a": STATE, "b": STATE}, tmp_path / "step5.pt")
    assert STATE == checkpoint.read_state(tmp_path, key="b")[0]
    (tmp_path / "latest").write_text("step5.pt")
    assert STATE == checkpoint.read_state(tmp_path, key="b")[0]


def test_a_tracker_that_is_no_text_is_refused(tmp_path):
    save_torch({"s": STATE}, tmp_path / "step5.pt")
    (tmp_path / "latest").write_bytes(b"step\xff")
    with pytest.raises(StateError, match="latest: has 'step\ufffd', which is not in the folder"):
        checkpoint.read_state(tmp_path)


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_tracker_that_is_a_folder_or_a_broken_link_is_passed_over(tmp_path, is_folder):
    save_dcp({"scheduler": STATE}, tmp_path / "step-60")
    latest = tmp_path / "latest"
    latest.mkdir() if is_folder else latest.symlink_to(tmp_path / "gone")
    assert STATE == checkpoint.read_state(tmp_path)[0]


LAYOUTS = {
    "scheduler.pt": "",
    "scheduler.bin": "",
    "common.pt": "opt_param_scheduler",
    "mp_rank_00/model_optim_rng.pt": "opt_param_scheduler",
    "mp_rank_00_000/model_optim_rng.pt": "opt_param_scheduler",
    "mp_rank_00_model_states.pt": "lr_scheduler",
    "zero_pp_rank_0_mp_rank_00_model_states.pt": "lr_scheduler",
}


@pytest.mark.parametrize("file", LAYOUTS)
def test_the_files_of_frameworks_are_known(tmp_path, file):
    key = LAYOUTS[file]
    save_torch(nest(key, STATE) if key else STATE, tmp_path / "run" / file)
    save_torch(MODEL, tmp_path / "run" / "model.pt")
    found, where = checkpoint.read_state(tmp_path / "run")
    assert (STATE, key) == (found, where.key)


def test_a_file_beside_a_dcp_folders_own_is_found(tmp_path):
    save_dcp({"model": MODEL}, tmp_path / "a")
    save_torch(STATE, tmp_path / "a" / "scheduler.pt")
    assert STATE == checkpoint.read_state(tmp_path / "a")[0]


def test_of_the_files_of_many_ranks_the_first_is_read(tmp_path):
    for rank in range(3):
        file = tmp_path / f"mp_rank_00_00{rank}" / "model_optim_rng.pt"
        save_torch({"opt_param_scheduler": STATE}, file)
    assert "mp_rank_00_000" in checkpoint.read_state(tmp_path)[1].path


@pytest.mark.parametrize(
    "files",
    [
        [f"{part}mp_rank_00_model_states.pt" for part in ("", "zero_pp_rank_0_")],
        ["common.pt", "scheduler.pt"],
        ["scheduler.pt", "mp_rank_00/model_optim_rng.pt"],
    ],
)
def test_of_files_with_a_state_the_most_likely_is_read(tmp_path, files):
    for position, file in enumerate(files):
        save_torch({"scheduler": state_at(position)}, tmp_path / file)
    assert 0 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_of_the_indexes_of_many_ranks_the_first_is_read(tmp_path):
    for position, index in enumerate((".metadata", "__0.metadata")):
        folder = save_dcp({"scheduler": state_at(position)}, tmp_path / str(position))
        (folder / ".metadata").rename(tmp_path / index)
    (tmp_path / "0" / "__0_0.distcp").rename(tmp_path / "__0_0.distcp")
    for position in range(2):
        shutil.rmtree(tmp_path / str(position))
    assert 0 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_a_folder_within_a_checkpoint_that_has_files_of_its_own_is_not_looked_at(tmp_path):
    save_dcp({"model": MODEL}, tmp_path)
    save_dcp({"scheduler": STATE}, tmp_path / "optim")
    with pytest.raises(StateError, match="no known scheduler's state"):
        checkpoint.read_state(tmp_path)


def test_a_dcp_folder_within_a_checkpoint_is_found(tmp_path):
    save_dcp({"optim": {"step": 1}, "sched": STATE}, tmp_path / "epoch_0_step_10" / "optim")
    (tmp_path / "epoch_0_step_10" / "model").mkdir()
    assert "sched" == checkpoint.read_state(tmp_path)[1].key


def test_several_files_of_one_kind_are_named(tmp_path):
    for name in ("scheduler.bin", "scheduler_1.bin"):
        save_torch(STATE, tmp_path / name)
    with pytest.raises(StateError, match=r"scheduler\.bin.*scheduler_1\.bin"):
        checkpoint.read_state(tmp_path)


def test_a_begun_megatron_checkpoint_is_skipped(tmp_path):
    for position in (5, 6):
        save_torch({"s": state_at(position)}, tmp_path / f"iter_{position}" / "common.pt")
    (tmp_path / "iter_5" / "metadata.json").write_text("{}")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["latest", "latest_checkpointed_iteration.txt"])
def test_a_tracker_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    save_dcp({"scheduler": STATE}, tmp_path / "step-60")
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(StateError, match=f"{name}: is n"):
            checkpoint.read_state(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("is_pipe", [True, False])
def test_a_pipe_or_device_in_a_folder_is_refused_and_not_waited_for(tmp_path, name, is_pipe):
    file = save_dcp({"scheduler": STATE}, tmp_path) / name
    file.unlink()
    os.mkfifo(file) if is_pipe else file.symlink_to("/dev/zero")
    with pytest.raises(StateError, match=rf"{name}: is n"):
        checkpoint.read_state(tmp_path)


@pytest.mark.timeout(20)
def test_an_address_that_leads_through_a_device_is_refused():
    with pytest.raises(StateError, match="'/dev/zero' is not a file"):
        checkpoint.read_state("zip://state.pt::/dev/zero")


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "x" * 10**6])
def test_a_path_that_can_be_none_is_refused_shortly(path):
    with pytest.raises(StateError) as refused:
        checkpoint.read_state(path)
    assert 4_000 >= len(str(refused.value))
