"""A scheduler's state is found in whatever holds it, and nothing else is touched."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
import torch
import torch.distributed.checkpoint as dcp

from dist_sched import ConfigError, ReconcileError, StateError, checkpoint

MODEL = {"layer.weight": torch.zeros(3, 4), "layer.bias": torch.zeros(3)}


class Runs:
    """Pickles as code that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def scheduler(floats):
    built = floats.scheduler()
    built.seek(60)
    return built


@pytest.fixture
def state(scheduler):
    return scheduler.state_dict()


def save_dcp(tree, folder):
    dcp.save(tree, checkpoint_id=folder)
    return folder


def save_torch(tree, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tree, path)
    return path


def at(position, state):
    text = json.loads(state["dist_sched"])
    return {
        **state,
        "num_steps": position,
        "dist_sched": json.dumps({**text, "position": position}),
    }


NESTED = [
    "scheduler",
    "sched",
    "app.scheduler",
    "opt_param_scheduler",
    "lr_scheduler",
    "optim.sched",
    "a.b.c.d.e.whatever",
]


def nest(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return {"model": MODEL, **value}


@pytest.mark.parametrize("key", NESTED)
def test_the_state_is_found_wherever_it_is_nested_in_a_folder(tmp_path, state, key):
    folder = save_dcp(nest(key, state), tmp_path / "a")
    found, where = checkpoint.read_state(folder)
    assert (state, key, "dist_sched") == (found, where.key, where.format)
    assert str(folder) in str(where)


@pytest.mark.parametrize("key", NESTED)
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt"])
def test_the_state_is_found_wherever_it_is_nested_in_a_file(tmp_path, state, key, name):
    path = save_torch(nest(key, state), tmp_path / name)
    found, where = checkpoint.read_state(path)
    assert (state, key, str(path)) == (found, where.key, where.path)


def test_a_file_may_be_the_state_itself(tmp_path, state):
    found, where = checkpoint.read_state(save_torch(state, tmp_path / "a.pt"))
    assert (state, "") == (found, where.key)


def test_a_folder_may_be_the_state_itself(tmp_path, state):
    found, where = checkpoint.read_state(save_dcp(state, tmp_path / "a"))
    assert (state, "") == (found, where.key)


def test_a_stateful_saved_by_dcp_is_found(tmp_path, scheduler):
    folder = save_dcp({"scheduler": scheduler}, tmp_path / "a")
    assert scheduler.state_dict() == checkpoint.read_state(folder)[0]


def test_a_folder_saved_without_collectives_is_read(tmp_path, state):
    dcp.save({"scheduler": state}, checkpoint_id=tmp_path / "a", use_collectives=False)
    assert state == checkpoint.read_state(tmp_path / "a")[0]


def test_a_state_saved_as_one_item_is_found(tmp_path, state):
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

    dcp.save(
        {"lr_scheduler": state, "weight": torch.zeros(2)},
        checkpoint_id=tmp_path / "a",
        planner=DefaultSavePlanner(flatten_state_dict=False),
    )
    assert state == checkpoint.read_state(tmp_path / "a")[0]


def test_a_file_of_old_torch_releases_is_read(tmp_path, state):
    path = tmp_path / "old.pt"
    torch.save({"model": MODEL, "s": state}, path, _use_new_zipfile_serialization=False)
    assert state == checkpoint.read_state(path)[0]


def test_a_list_of_states_is_found(tmp_path, state):
    path = save_torch({"lr_schedulers": [state]}, tmp_path / "a.ckpt")
    assert "lr_schedulers.0" == checkpoint.read_state(path)[1].key


@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_several_states_are_named_and_none_is_guessed(tmp_path, state, save):
    path = save({"a": {"sched": state}, "b": {"sched": state}}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"2 scheduler states: .*'a\.sched'.*'b\.sched'.*key="):
        checkpoint.read_state(path)
    assert state == checkpoint.read_state(path, key="b.sched")[0]


@pytest.mark.parametrize("save", [save_dcp, save_torch])
def test_a_missing_state_says_what_is_there_and_what_to_do(tmp_path, save):
    path = save({"model": MODEL, "step": 7}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"it holds: 'model', 'step'.*scheduler\.seek"):
        checkpoint.read_state(path)


def test_a_wrong_key_names_the_right_ones(tmp_path, state):
    path = save_torch({"app": {"sched": state}}, tmp_path / "x.pt")
    with pytest.raises(StateError, match=r"no key 'sched'; .*'app\.sched'"):
        checkpoint.read_state(path, key="sched")


def test_a_key_of_something_else_says_what_it_is(tmp_path, state):
    path = save_torch({"app": {"sched": state}, "progress": {"step": 3}}, tmp_path / "x.pt")
    with pytest.raises(StateError, match="'progress' is no scheduler's state: it holds 'step'"):
        checkpoint.read_state(path, key="progress")


def test_a_name_with_dots_is_found_by_its_key(tmp_path, state):
    path = save_torch({"optim.sched": state, "b": {"sched": state}}, tmp_path / "x.pt")
    assert state == checkpoint.read_state(path, key="optim.sched")[0]


@pytest.mark.parametrize("path", ["nothing", "nothing.pt"])
def test_a_missing_path_is_a_state_error(tmp_path, path):
    with pytest.raises(StateError, match="nothing is there"):
        checkpoint.read_state(tmp_path / path)


@pytest.mark.parametrize("path", [None, 3, "nowhere://a/b"])
def test_what_is_no_path_is_a_state_error(path):
    with pytest.raises(StateError, match="path="):
        checkpoint.read_state(path)


def test_an_address_is_read_as_a_path_is(tmp_path, state):
    folder = save_dcp({"app": {"scheduler": state}}, tmp_path / "a")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/bucket/run/step-6", recursive=True)
    memory.makedirs("/bucket/run/step-7")
    for address in ("memory://bucket/run/step-6", "memory://bucket/run"):
        found, where = checkpoint.read_state(address)
        assert (state, "app.scheduler") == (found, where.key)
    assert where.path.startswith("memory://")


class Remembering(type(fsspec.filesystem("memory"))):
    """Remembers what it listed, as the file systems of object stores do."""

    protocol = "remembering"
    listed: ClassVar[dict] = {}

    def ls(self, path, detail=True, **options):
        key = path, detail
        if key not in self.listed:
            self.listed[key] = super().ls(path, detail=detail, **options)
        return self.listed[key]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("remembering://"))

    def invalidate_cache(self, path=None):
        del path
        self.listed.clear()


def test_a_checkpoint_that_came_after_a_listing_is_seen(tmp_path, state):
    fsspec.register_implementation("remembering", Remembering, clobber=True)
    for position in (5, 6):
        path = save_torch({"s": at(position, state)}, tmp_path / f"step-{position}.pt")
        fsspec.filesystem("memory").put(str(path), f"/grows/step-{position}.pt")
        assert position == checkpoint.read_state("remembering://grows")[0]["num_steps"]


def test_relative_paths_and_trailing_slashes_are_the_same_folder(tmp_path, monkeypatch, state):
    save_dcp({"scheduler": state}, tmp_path / "run" / "step-3")
    monkeypatch.chdir(tmp_path)
    for path in ("run/step-3", "run/step-3/", "./run", Path("run")):
        assert state == checkpoint.read_state(path)[0]


NUMBERED = ["step-{}", "iter_{:07d}", "checkpoint-{}", "global_step{}", "{}", "epoch_1_step_{}"]


@pytest.mark.parametrize("name", NUMBERED)
def test_the_newest_of_numbered_folders_is_read(tmp_path, state, name):
    for position in (9, 10, 100):
        save_dcp({"scheduler": at(position, state)}, tmp_path / name.format(position))
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    assert 100 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_the_newest_of_numbered_files_is_read(tmp_path, state):
    for position in (9, 10, 100):
        save_torch({"scheduler": at(position, state)}, tmp_path / f"step_{position}.pt")
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
def test_an_incomplete_newest_folder_is_skipped_and_named(tmp_path, state, damage, caplog):
    for position in (5, 6):
        save_dcp({"scheduler": at(position, state)}, tmp_path / f"step-{position}")
    damage(tmp_path / "step-6")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    assert "skipped an incomplete checkpoint" in caplog.text
    assert "step-6" in caplog.text
    with pytest.raises(StateError):
        checkpoint.read_state(tmp_path / "step-6")


def test_an_incomplete_newest_file_is_skipped_and_named(tmp_path, state, caplog):
    save_torch({"scheduler": at(5, state)}, tmp_path / "step-5.pt")
    whole = save_torch({"scheduler": at(6, state)}, tmp_path / "step-6.pt").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "step-6.pt").write_bytes(whole[:end])
        assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    assert "step-6.pt" in caplog.text


def test_a_complete_newest_checkpoint_without_a_state_is_never_skipped(tmp_path, state):
    save_dcp({"scheduler": at(5, state)}, tmp_path / "step-5")
    save_dcp({"model": MODEL}, tmp_path / "step-6")
    with pytest.raises(StateError, match="step-6"):
        checkpoint.read_state(tmp_path)


def test_a_hostile_newest_checkpoint_is_never_skipped(tmp_path, state):
    save_torch({"scheduler": at(5, state)}, tmp_path / "step-5.pt")
    save_torch({"scheduler": Runs(tmp_path / "ran")}, tmp_path / "step-6.pt")
    with pytest.raises(StateError, match="could run code"):
        checkpoint.read_state(tmp_path)


def test_names_numbered_in_two_ways_are_not_guessed_at(tmp_path, state):
    save_dcp({"scheduler": state}, tmp_path / "step-5000")
    save_dcp({"scheduler": state}, tmp_path / "epoch-6")
    with pytest.raises(StateError, match="several ways"):
        checkpoint.read_state(tmp_path)


def test_an_unfinished_folder_under_another_name_is_not_looked_at(tmp_path, state):
    save_dcp({"scheduler": at(5, state)}, tmp_path / "step-5")
    save_dcp({"scheduler": at(6, state)}, tmp_path / "step-6.tmp")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_names_that_are_ambiguous_sixty_times_take_no_time(tmp_path):
    node = {"z": 1}
    for _ in range(60):
        node = {"a": node, "a.a": node}
    path = save_torch(node, tmp_path / "a.pt")
    with pytest.raises(StateError):
        checkpoint.read_state(path, key=".".join(["a"] * 60))


def test_a_number_too_long_to_be_written_is_refused(tmp_path, floats):
    path = save_torch({"a": {10**5000: {}}}, tmp_path / "a.pt")
    with pytest.raises(StateError):
        checkpoint.read_state(path)
    for state in ({"last_epoch": 10**5000}, {"max_lr": 1.0, "num_steps": 10**5000}):
        with pytest.raises(StateError):
            checkpoint.load(floats.scheduler(), save_torch({"sched": state}, tmp_path / "a.pt"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(StateError, match="neither a file nor a folder"):
        checkpoint.read_state(tmp_path / "a.pt")


def test_a_name_of_many_digits_takes_no_time(tmp_path, state):
    save_dcp({"scheduler": state}, tmp_path / "step-60")
    (tmp_path / f"{'1' * 100}-final").mkdir()
    assert state == checkpoint.read_state(tmp_path)[0]


def test_an_unfinished_folder_alone_is_no_checkpoint(tmp_path, state):
    save_dcp({"scheduler": at(6, state)}, tmp_path / "step-6.tmp")
    with pytest.raises(StateError, match=r"no complete checkpoint.*'step-6\.tmp'"):
        checkpoint.read_state(tmp_path)


TRACKERS = [
    ("latest_checkpointed_iteration.txt", "5\n", "iter_{:07d}"),
    ("latest", "step5", "step{}"),
]


@pytest.mark.parametrize("tracker, told, name", TRACKERS)
def test_the_tracker_of_a_framework_names_the_newest(tmp_path, state, tracker, told, name):
    for position in (5, 6):
        save_torch({"s": at(position, state)}, tmp_path / name.format(position) / "common.pt")
    (tmp_path / tracker).write_text(told)
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]
    (tmp_path / tracker).write_text("../elsewhere")
    with pytest.raises(StateError, match="elsewhere"):
        checkpoint.read_state(tmp_path)


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
def test_the_files_of_frameworks_are_known(tmp_path, state, file):
    key = LAYOUTS[file]
    save_torch(nest(key, state) if key else state, tmp_path / "run" / file)
    save_torch(MODEL, tmp_path / "run" / "model.pt")
    found, where = checkpoint.read_state(tmp_path / "run")
    assert (state, key) == (found, where.key)


def test_a_file_beside_a_dcp_folders_own_is_found(tmp_path, state):
    save_dcp({"model": MODEL}, tmp_path / "a")
    save_torch(state, tmp_path / "a" / "scheduler.pt")
    assert state == checkpoint.read_state(tmp_path / "a")[0]


def test_of_the_files_of_many_ranks_the_first_is_read(tmp_path, state):
    for rank in range(3):
        file = tmp_path / f"mp_rank_00_00{rank}" / "model_optim_rng.pt"
        save_torch({"opt_param_scheduler": state}, file)
    assert "mp_rank_00_000" in checkpoint.read_state(tmp_path)[1].path


def test_a_dcp_folder_within_a_checkpoint_is_found(tmp_path, state):
    save_dcp({"optim": {"step": 1}, "sched": state}, tmp_path / "epoch_0_step_10" / "optim")
    (tmp_path / "epoch_0_step_10" / "model").mkdir()
    assert "sched" == checkpoint.read_state(tmp_path)[1].key


def test_several_files_of_one_kind_are_named(tmp_path, state):
    for name in ("scheduler.bin", "scheduler_1.bin"):
        save_torch(state, tmp_path / name)
    with pytest.raises(StateError, match=r"scheduler\.bin.*scheduler_1\.bin"):
        checkpoint.read_state(tmp_path)


def test_a_begun_megatron_checkpoint_is_skipped(tmp_path, state):
    for position in (5, 6):
        save_torch({"s": at(position, state)}, tmp_path / f"iter_{position}" / "common.pt")
    (tmp_path / "iter_5" / "metadata.json").write_text("{}")
    assert 5 == checkpoint.read_state(tmp_path)[0]["num_steps"]


def test_of_a_large_folder_only_the_index_and_the_states_bytes_are_read(
    tmp_path, state, monkeypatch
):
    big = {"model": {f"w{i}": torch.zeros(2**18) for i in range(8)}}
    folder = save_dcp({**big, "app": {"scheduler": state}}, tmp_path / "a")
    read = []
    local = type(fsspec.filesystem("file"))
    cat = local.cat_file

    def counted(self, path, **options):
        data = cat(self, path, **options)
        read.append((Path(path).name, len(data)))
        return data

    monkeypatch.setattr(local, "cat_file", counted)
    checkpoint.read_state(folder)
    assert {".metadata", "__0_0.distcp"} == {name for name, _ in read}
    assert sum(size for name, size in read if name != ".metadata") < 11 * 3000


def test_the_tensors_of_a_file_are_not_read(tmp_path, state):
    """What stands where the tensors were could not even be read."""
    path = save_torch({"w": torch.zeros(2**20), "scheduler": state}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        tensor = archive.getinfo("a/data/0")
    data = bytearray(path.read_bytes())
    start = tensor.header_offset + 1000
    data[start : start + 2**20] = b"\xff" * 2**20
    path.write_bytes(data)
    assert state == checkpoint.read_state(path)[0]


def hostile_index(folder, ran):
    (folder / ".metadata").write_bytes(pickle.dumps(Runs(ran)))


def hostile_value(folder, ran):
    """Put code where the index says that the position is."""
    dcp.save({"scheduler": {"max_lr": 1.0, "num_steps": Runs(ran)}}, checkpoint_id=folder)


def leading_out(folder, _):
    (folder.parent / "outside").write_bytes((folder / "__0_0.distcp").read_bytes())
    change_info(folder, "relative_path", "../outside")


def long_item(folder, _):
    change_info(folder, "length", 2**60)


def far_item(folder, _):
    change_info(folder, "offset", 2**60)


def change_info(folder, name, value):
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    for info in metadata.storage_data.values():
        setattr(info, name, value)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def no_index(folder, _):
    (folder / ".metadata").write_bytes(pickle.dumps({"a": 1}))


def change_path(folder, _):
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    metadata.planner_data["scheduler.max_lr"] = ({}, "max_lr")
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def no_pickle(folder, _):
    (folder / ".metadata").write_bytes(b"\x00" * 1000)


@pytest.mark.filterwarnings("ignore:Detected an existing checkpoint")
@pytest.mark.parametrize(
    "harm",
    [
        hostile_index,
        hostile_value,
        leading_out,
        long_item,
        far_item,
        no_index,
        no_pickle,
        change_path,
    ],
)
def test_a_hostile_folder_runs_nothing_and_is_refused(tmp_path, state, harm):
    folder = save_dcp({"scheduler": state}, tmp_path / "a")
    harm(folder, tmp_path / "ran")
    with pytest.raises(StateError):
        checkpoint.read_state(folder)
    assert not (tmp_path / "ran").exists()


def archive_of(tmp_path, pickled, **options):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
    return path


def test_an_item_longer_than_any_state_is_not_read(tmp_path, state):
    folder = save_dcp({"scheduler": state}, tmp_path / "a")
    change_info(folder, "length", 2**26 + 1)
    os.truncate(folder / "__0_0.distcp", 2**27)
    with pytest.raises(StateError, match="declares 67108865 bytes"):
        checkpoint.read_state(folder)


def test_a_hostile_file_runs_nothing_and_is_refused(tmp_path, state):
    path = save_torch({"scheduler": state, "x": Runs(tmp_path / "ran")}, tmp_path / "a.pt")
    with pytest.raises(StateError, match=r"a\.pt: it names 'posix\.system'"):
        checkpoint.read_state(path)
    assert not (tmp_path / "ran").exists()


def test_a_compressed_record_is_refused_because_it_could_be_of_any_length(tmp_path):
    path = archive_of(tmp_path, b"N" * 2**24 + b".", compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(StateError, match="more than can be meant"):
        checkpoint.read_state(path)


def test_shared_parts_are_looked_at_once(tmp_path):
    """Forty lists, each holding the one before twice, are two to the fortieth if looked at so."""
    nested = []
    for _ in range(40):
        nested = [nested, nested]
    path = save_torch({"scheduler": {"last_epoch": 1, "base_lrs": nested}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="too large, or nested too deeply"):
        checkpoint.read_state(path)


def test_a_list_in_itself_is_refused(tmp_path):
    nested = []
    nested.append(nested)
    path = save_torch({"scheduler": {"last_epoch": 1, "base_lrs": nested}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="nested too deeply"):
        checkpoint.read_state(path)


@pytest.mark.parametrize(
    "data", [b"", b"P", b"\x00" * 64, b"hello world\n", pickle.dumps({"a": 1})]
)
def test_a_file_of_another_format_is_refused(tmp_path, data):
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(StateError, match=r"a\.pt"):
        checkpoint.read_state(tmp_path / "a.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path, state, legacy):
    buffer = io.BytesIO()
    torch.save({"scheduler": state}, buffer, _use_new_zipfile_serialization=not legacy)
    whole = buffer.getvalue()
    path = tmp_path / "a.pt"
    refused = 0
    for end in range(0, len(whole), 13):
        path.write_bytes(whole[:end])
        try:
            assert state == checkpoint.read_state(path)[0]
        except StateError:
            refused += 1
    assert refused > 50


def garbled(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        place = draw.randrange(len(data))
        data[place : place + draw.choice([0, 1, 1, 9])] = draw.randbytes(draw.choice([0, 1, 1, 9]))
    return bytes(data)


@pytest.mark.parametrize("name", ["a/.metadata", "a/__0_0.distcp", "b.pt", "c.pt"])
def test_garbled_bytes_are_read_or_refused_and_nothing_else(tmp_path, state, name):
    save_dcp({"scheduler": state}, tmp_path / "a")
    save_torch({"scheduler": state}, tmp_path / "b.pt")
    torch.save({"s": state}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    file = tmp_path / name
    whole = file.read_bytes()
    draw = random.Random(name)
    for _ in range(500):
        file.write_bytes(garbled(whole, draw))
        with contextlib.suppress(StateError):
            checkpoint.read_state(tmp_path / name.removesuffix("/.metadata").split("/")[0])


def test_a_tensor_of_one_number_costs_nothing_unless_it_is_asked_for(tmp_path, state):
    """Its data are garbage, as those of any other tensor may be."""
    path = save_torch({"step": torch.tensor(7.0), "scheduler": state}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("a/data/0").header_offset
    data = bytearray(path.read_bytes())
    data[start : start + 4] = b"none"
    path.write_bytes(data)
    assert state == checkpoint.read_state(path)[0]


def test_numbers_in_tensors_and_numpy_scalars_are_numbers(tmp_path, state):
    import numpy as np

    seeds = {key: value for key, value in state.items() if key != "dist_sched"}
    strange = {
        **seeds,
        "num_steps": torch.tensor(60),
        "max_lr": np.float64(1.0),
        "min_lr": np.float32(0.5),
    }
    expected = {**seeds, "min_lr": 0.5}
    assert expected == checkpoint.read_state(save_torch(strange, tmp_path / "a.pt"))[0]
    assert expected == checkpoint.read_state(save_dcp({"sched": strange}, tmp_path / "a"))[0]


def test_load_takes_up_a_checkpoint_and_says_from_where(tmp_path, floats, state, caplog):
    caplog.set_level(logging.INFO)
    folder = save_dcp({"app": {"scheduler": state}}, tmp_path / "a")
    fresh = floats.scheduler()
    where = checkpoint.load(fresh, folder, expected_position=60)
    assert (60, [0.55]) == (fresh.num_steps, fresh.get_last_lr())
    assert f"loaded the scheduler from {where} at position 60" in caplog.text


def test_load_refuses_another_position_and_changes_nothing(tmp_path, floats, state):
    folder = save_dcp({"app": {"scheduler": state}}, tmp_path / "a")
    fresh = floats.scheduler()
    with pytest.raises(StateError, match="position is 60, the trainer's is 61"):
        checkpoint.load(fresh, folder, expected_position=61)
    assert 0 == fresh.num_steps


def test_load_follows_the_policy(tmp_path, floats, state):
    path = save_torch(state, tmp_path / "a.pt")
    with pytest.raises(ReconcileError, match=r"max_lr is 2\.0 in the config and 1\.0"):
        checkpoint.load(floats.scheduler(max_lr=2.0, policy="strict"), path)
    fresh = floats.scheduler(max_lr=2.0, policy="config")
    checkpoint.load(fresh, path)
    assert (60, 2.0) == (fresh.num_steps, fresh.max_lr)


def test_a_torn_state_is_read_as_it_is_and_mended_by_the_load(tmp_path, floats, state, caplog):
    path = save_torch({"s": {**state, "num_steps": 61}}, tmp_path / "a.pt")
    assert 61 == checkpoint.read_state(path)[0]["num_steps"]
    fresh = floats.scheduler(max_lr=0.5)
    checkpoint.load(fresh, path)
    assert 60 == fresh.num_steps
    assert "torn: num_steps" in caplog.text


def test_a_newer_version_is_refused(tmp_path, floats, state):
    text = {**json.loads(state["dist_sched"]), "version": 2}
    path = save_torch({"s": {**state, "dist_sched": json.dumps(text)}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="version 2"):
        checkpoint.load(floats.scheduler(), path)


def test_the_export_is_the_seeds_ten_keys_and_names_what_they_cannot_carry(state, caplog):
    exported = checkpoint.to_megatron_state(state)
    assert {key: value for key, value in state.items() if key != "dist_sched"} == exported
    assert "do not carry init_lr=0.0, unit='steps'" in caplog.text


def test_the_export_of_a_torn_state_is_what_its_text_says(state):
    assert 60 == checkpoint.to_megatron_state({**state, "num_steps": 61})["num_steps"]


def test_what_does_not_tell_the_ten_keys_cannot_be_exported():
    with pytest.raises(StateError, match="min_lr"):
        checkpoint.to_megatron_state({"last_batch_iteration": 7})


def test_reading_starts_neither_torch_nor_a_process_group(tmp_path, state):
    path = save_dcp({"scheduler": state}, tmp_path / "a")
    program = (
        "import sys; from dist_sched import checkpoint\n"
        f"print(checkpoint.read_state({str(path)!r})[0]['num_steps'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "60 False\n" == done.stdout


SAVES = """
import sys, torch, warnings
warnings.simplefilter("ignore")
import torch.distributed.checkpoint as dcp
from dist_sched import OptimizerParamScheduler
kind, folder, config = sys.argv[1], sys.argv[2], eval(sys.argv[3])
optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
scheduler = OptimizerParamScheduler(optimizer, **config)
weight = torch.zeros(2**20)
for position in range(1, 10**6):
    scheduler.step()
    if kind == "dcp":
        dcp.save({"w": weight, "scheduler": scheduler}, checkpoint_id=f"{folder}/step-{position}")
    else:
        torch.save({"w": weight, "s": scheduler.state_dict()}, f"{folder}/step-{position}.pt")
    print(position, flush=True)
"""


@pytest.mark.parametrize("kind", ["dcp", "file"])
def test_after_a_kill_at_any_moment_the_last_complete_state_is_read(tmp_path, config, kind):
    command = [sys.executable, "-c", SAVES, kind, str(tmp_path), repr(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for moment in range(12):
                told = int(process.stdout.readline())
                time.sleep(moment / 1000)
                process.send_signal(signal.SIGSTOP)  # what a kill now would leave behind
                assert_complete(checkpoint.read_state(tmp_path)[0], told)
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()
        told = max([told, *map(int, process.stdout.read().split())])
    state, _ = checkpoint.read_state(tmp_path)
    assert_complete(state, told)
    assert state["num_steps"] <= told + 1


def assert_complete(state, told):
    assert state["num_steps"] == json.loads(state["dist_sched"])["position"]
    assert told <= state["num_steps"]


def test_an_illegal_expected_position_is_a_config_error(tmp_path, floats, state):
    path = save_torch(state, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="expected_position"):
        checkpoint.load(floats.scheduler(), path, expected_position=-1)
