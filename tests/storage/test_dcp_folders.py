"""DCP folders: the index is a tree of items, each of which is read when it is asked for."""

from __future__ import annotations

import contextlib
import os
import pickle
import random

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from dist_sched import StateError
from dist_sched._storage import dcp_folders, isolated, trees
from dist_sched._storage.dcp_folders import read_folder
from dist_sched._storage.isolated import Limits
from dist_sched._storage.pickles import TruncatedError
from dist_sched._storage.places import Place
from helpers import Runs, save_dcp, state_at

STATE = state_at(60)


def read(folder, index=".metadata"):
    return trees.plain(read_folder(Place.at(folder / index)))


@pytest.fixture
def folder(tmp_path):
    return save_dcp({"scheduler": STATE, "step": 7}, tmp_path / "a")


def rewrite(folder, change):
    """Change the index of a folder."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def change_info(folder, name, value):
    """Change what the index says of each item's place."""

    def change(metadata):
        for info in metadata.storage_data.values():
            setattr(info, name, value)

    rewrite(folder, change)


def test_items_are_read_where_they_are_nested(folder):
    assert {"scheduler": STATE, "step": 7} == read(folder)


def test_no_item_is_read_before_it_is_asked_for(folder):
    (folder / "__0_0.distcp").unlink()
    found = read_folder(Place.at(folder / ".metadata"))
    assert {"scheduler", "step"} == found.keys()


def test_a_folder_saved_without_collectives_is_read(tmp_path):
    dcp.save({"scheduler": STATE}, checkpoint_id=tmp_path, use_collectives=False)
    assert {"scheduler": STATE} == read(tmp_path, "__0.metadata")


def test_a_folder_saved_without_flattening_is_read(tmp_path):
    planner = DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({"lr_scheduler": STATE}, checkpoint_id=tmp_path, planner=planner)
    assert {"lr_scheduler": STATE} == read(tmp_path)


def test_names_with_dots_that_were_saved_without_flattening_are_nested(tmp_path):
    planner = DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({"app.scheduler": STATE}, checkpoint_id=tmp_path, planner=planner)
    assert {"app": {"scheduler": STATE}} == read(tmp_path)


def test_a_list_whose_parts_were_stored_one_by_one_is_a_list(tmp_path):
    tree = {"a": [{"n": torch.tensor(1)}, {"n": torch.tensor(2)}]}
    assert {"a": [{"n": 1}, {"n": 2}]} == read(save_dcp(tree, tmp_path / "a"))


def test_numbers_in_tensors_and_numpy_scalars_are_numbers(tmp_path):
    tree = {"a": torch.tensor(60), "b": np.float64(0.1), "c": np.float32(0.5)}
    assert {"a": 60, "b": 0.1, "c": 0.5} == read(save_dcp(tree, tmp_path / "a"))


def test_a_tensor_of_more_numbers_is_not_read(tmp_path):
    folder = save_dcp({"w": torch.zeros(3)}, tmp_path / "a")
    (folder / "__0_0.distcp").unlink()
    assert "<torch.distributed.checkpoint.metadata.TensorStorageMetadata>" == repr(
        read(folder)["w"]
    )


def test_an_index_cut_anywhere_is_truncated(folder):
    whole = (folder / ".metadata").read_bytes()
    for end in range(0, len(whole), 17):
        (folder / ".metadata").write_bytes(whole[:end])
        with pytest.raises(TruncatedError, match=r"a/\.metadata"):
            read(folder)


def test_cut_data_are_truncated(folder):
    os.truncate(folder / "__0_0.distcp", 100)
    with pytest.raises(TruncatedError, match=r"__0_0\.distcp: ends before byte"):
        read(folder)


def test_missing_data_are_truncated(folder):
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(TruncatedError, match=r"__0_0\.distcp: is missing, but has item 'sch"):
        read(folder)


@pytest.mark.parametrize("pickled", [{"a": 1}, 7, None])
def test_another_pickle_is_no_index(folder, pickled):
    (folder / ".metadata").write_bytes(pickle.dumps(pickled))
    with pytest.raises(StateError, match="is not an index of a DCP folder"):
        read(folder)


def test_a_hostile_index_runs_nothing_and_is_refused(folder, tmp_path):
    (folder / ".metadata").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    with pytest.raises(StateError, match=r"a/\.metadata: .*could run code"):
        read(folder)
    assert not (tmp_path / "ran").exists()


def test_a_hostile_item_runs_nothing_and_is_refused(tmp_path):
    folder = save_dcp({"scheduler": {"num_steps": Runs(tmp_path / "ran")}}, tmp_path / "a")
    with pytest.raises(StateError, match=r"__0_0\.distcp: .*could run code"):
        read(folder)
    assert not (tmp_path / "ran").exists()


OUTSIDE = [
    *("../outside", "/etc/passwd", "a/../../outside", "a//b", "..\\outside", "c:outside", ""),
    *("./a", "a/.", 7, None),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_an_index_that_leads_out_of_its_folder_is_refused(folder, path):
    (folder.parent / "outside").write_bytes((folder / "__0_0.distcp").read_bytes())
    change_info(folder, "relative_path", path)
    with pytest.raises(StateError, match="has a file outside the folder"):
        read(folder)


@pytest.mark.parametrize("name", ["offset", "length"])
@pytest.mark.parametrize("value", [-1, 1.0, True, None, "1"])
def test_a_place_of_an_item_that_is_no_count_is_refused(folder, name, value):
    change_info(folder, name, value)
    with pytest.raises(StateError, match="declares"):
        read(folder)


def test_an_item_longer_than_any_state_is_not_read(folder):
    change_info(folder, "length", 2**26 + 1)
    os.truncate(folder / "__0_0.distcp", 2**27)
    with pytest.raises(StateError, match="declares 67108865 bytes"):
        read(folder)


def test_an_item_as_long_as_the_limit_is_read(folder, monkeypatch):
    metadata = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    longest = max(info.length for info in metadata.storage_data.values())
    monkeypatch.setattr(dcp_folders, "MAX_ITEM", longest)
    assert {"scheduler": STATE, "step": 7} == read(folder)


def test_an_item_without_bytes_is_truncated(folder):
    change_info(folder, "length", 0)
    with pytest.raises(TruncatedError, match="it ends within its first bytes"):
        read(folder)


def test_an_item_in_a_folder_below_is_read(folder):
    (folder / "below").mkdir()
    (folder / "__0_0.distcp").rename(folder / "below" / "a.distcp")
    change_info(folder, "relative_path", "below/a.distcp")
    assert {"scheduler": STATE, "step": 7} == read(folder)


def test_a_transformed_item_is_refused(folder):
    change_info(folder, "transform_descriptors", ["zstd"])
    with pytest.raises(StateError, match="compressed or encrypted"):
        read(folder)


def test_an_item_whose_place_is_not_in_the_index_is_refused(folder):
    rewrite(folder, lambda metadata: metadata.storage_data.clear())
    with pytest.raises(StateError, match=r"does not have the place of item 'scheduler\."):
        read(folder)


def test_an_index_longer_than_any_is_not_read(folder, monkeypatch):
    size = (folder / ".metadata").stat().st_size
    monkeypatch.setattr(dcp_folders, "MAX_INDEX", size)
    assert {"scheduler", "step"} == read_folder(Place.at(folder / ".metadata")).keys()
    monkeypatch.setattr(dcp_folders, "MAX_INDEX", size - 1)
    with pytest.raises(StateError, match=f"has {size} bytes; at most {size - 1} can be read"):
        read(folder)


def test_an_index_of_more_than_half_a_gigabyte_is_not_read(folder):
    os.truncate(folder / ".metadata", 2**29 + 1)
    with pytest.raises(StateError, match="has 536870913 bytes; at most 536870912 can be read"):
        read(folder)


@pytest.mark.parametrize("size, expected", [(2**20, "here"), (2**20 + 1, "in a child process")])
def test_an_index_of_more_than_a_megabyte_is_read_in_a_child_process(monkeypatch, size, expected):
    def read(data, limits):
        assert (size, Limits.of(size)) == (len(data), limits)
        return "in a child process"

    monkeypatch.setattr(isolated, "read", read)
    monkeypatch.setattr(dcp_folders, "read_here", lambda _: "here")
    assert expected == dcp_folders._items(bytes(size))


PATHS = [({}, "a"), "a", (10**20,), (-1,), (True,), ("a",) * 33]


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_a_path_that_is_no_short_tuple_of_names_is_refused(folder, path):
    rewrite(folder, lambda metadata: metadata.planner_data.update({"step": path}))
    with pytest.raises(StateError, match="not a short tuple of names"):
        read(folder)


def test_an_item_under_another_item_is_refused(folder):
    path = ("scheduler", "max_lr", "x")
    rewrite(folder, lambda metadata: metadata.planner_data.update({"step": path}))
    with pytest.raises(StateError, match=r"'x'\) is inside another item"):
        read(folder)


def garbled(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        place = draw.randrange(len(data))
        data[place : place + draw.choice([0, 1, 1, 9])] = draw.randbytes(draw.choice([0, 1, 1, 9]))
    return bytes(data)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_garbled_bytes_are_read_or_refused_and_nothing_else(folder, name):
    whole = (folder / name).read_bytes()
    draw = random.Random(name)
    for _ in range(300):
        (folder / name).write_bytes(garbled(whole, draw))
        with contextlib.suppress(StateError):
            read(folder)
