"""A large index is read in a child process, within limits, with the same result as in this one."""

from __future__ import annotations

import json
import logging
import pickle
import random
import struct
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from dist_sched import StateError, checkpoint
from dist_sched._storage import dcp_folders, index_items, isolated
from dist_sched._storage.isolated import Limits
from dist_sched._storage.pickles import TruncatedError
from helpers import save_dcp, state_at
from hostile_pickles import HOSTILE, READ, REFUSED, Calls, long
from page_helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")

STATE = state_at(60)
LIMITS = Limits.of(10**6)


def limited(**changes):
    limits = {"memory": 2**28, "seconds": 10, "timeout": 30, "longest": 10**6}
    return Limits(**{**limits, **changes})


def in_child(data, limits=LIMITS):
    return isolated.read(data, limits)


def outcome(read, data):
    """Return what a reader returns, or the class of its error."""
    try:
        return read(data)
    except StateError as error:
        return type(error)


def saved(tmp_path):
    """Yield the indexes of folders of several kinds."""
    yield ROOT / "tests/data/v1/dcp/.metadata"
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    tree = {"model": model.state_dict(), "optim": optimizer.state_dict(), "scheduler": STATE}
    tree["list"] = [{"n": torch.tensor(1)}, {"a.b": "x"}, 7, {3: torch.ones(2)}]
    yield save_dcp(tree, tmp_path / "a") / ".metadata"
    planner = DefaultSavePlanner(flatten_state_dict=False)
    dcp.save({"lr_scheduler": STATE}, checkpoint_id=tmp_path / "b", planner=planner)
    yield tmp_path / "b" / ".metadata"
    dcp.save({"scheduler": STATE}, checkpoint_id=tmp_path / "c", use_collectives=False)
    yield tmp_path / "c" / "__0.metadata"


def test_both_readers_return_the_same_items(tmp_path):
    for path in saved(tmp_path):
        data = path.read_bytes()
        assert dcp_folders.read_here(data) == in_child(data), path


@pytest.mark.parametrize("protocol", range(2, 6))
def test_both_readers_return_the_same_items_in_every_protocol(tmp_path, protocol):
    index = save_dcp({"scheduler": STATE, "w": torch.ones(2)}, tmp_path / "a") / ".metadata"
    data = pickle.dumps(pickle.loads(index.read_bytes()), protocol)  # noqa: S301 - just written
    assert dcp_folders.read_here(data) == in_child(data)


def test_a_state_is_found_through_a_child_process(tmp_path, monkeypatch):
    folder = save_dcp({"app": {"scheduler": STATE}}, tmp_path / "a")
    expected = checkpoint.read_state(folder)
    monkeypatch.setattr(dcp_folders, "LARGE_INDEX", 0)
    monkeypatch.setattr(dcp_folders, "read_here", None)
    assert expected == checkpoint.read_state(folder)


def test_a_usual_index_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    folder = save_dcp({"scheduler": STATE}, tmp_path / "a")
    assert STATE == checkpoint.read_state(folder)[0]


def test_both_readers_end_alike_on_bytes_that_were_cut_or_changed(tmp_path):
    data = (save_dcp({"scheduler": STATE}, tmp_path / "a") / ".metadata").read_bytes()
    draw = random.Random(1)
    for _ in range(8):
        cut = data[: draw.randrange(len(data))]
        assert TruncatedError is outcome(in_child, cut) is outcome(dcp_folders.read_here, cut)
    for _ in range(8):
        place = draw.randrange(len(data))
        changed = data[:place] + draw.randbytes(1) + data[place + 1 :]
        assert outcome(dcp_folders.read_here, changed) == outcome(in_child, changed)


def test_an_error_names_the_file(tmp_path, monkeypatch):
    folder = save_dcp({"scheduler": STATE}, tmp_path / "a")
    (folder / ".metadata").write_bytes(pickle.dumps(7))
    monkeypatch.setattr(dcp_folders, "LARGE_INDEX", 0)
    with pytest.raises(StateError, match=r"a/\.metadata: is not an index of a DCP folder"):
        checkpoint.read_state(folder)


@pytest.mark.parametrize(
    "attribute, value",
    [
        ("state_dict_metadata", 7),
        ("state_dict_metadata", {"a": 7}),
        ("storage_data", [7]),
        ("storage_data", {("a",): 7}),
        ("planner_data", 7),
        ("planner_data", {"scheduler.num_steps": 7}),
        ("planner_data", {"scheduler.num_steps": ("a", -1)}),
    ],
)
def test_both_readers_refuse_plain_data_where_records_belong(tmp_path, attribute, value):
    folder = save_dcp({"scheduler": STATE}, tmp_path / "a")
    index = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    setattr(index, attribute, value)
    data = pickle.dumps(index)
    for read in (dcp_folders.read_here, in_child):
        with pytest.raises(StateError, match=r"is not an index of a DCP folder|has an item whose"):
            read(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_could_run_code_is_refused_and_runs_nothing(tmp_path, name):
    data = pickle.dumps({"x": HOSTILE[name](tmp_path / "ran")}, 2)
    with pytest.raises(StateError, match="could run code"):
        in_child(data)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*REFUSED, *READ])
def test_bytes_that_declare_or_name_much_are_refused(name):
    limits = limited(seconds=1)
    with pytest.raises(StateError):
        in_child({**REFUSED, **READ}[name], limits)


def sizes_of_a_long_text():
    text = b"X" + long(10**6) + b"a" * 10**6
    return b"\x80\x02" + text + b"\x85q\x00ctorch\nSize\nq\x01(" + b"h\x01h\x00R" * 1000 + b"l."


def test_what_takes_too_much_memory_is_stopped():
    with pytest.raises(StateError, match="takes more than 256 MiB; the file is damaged or hostile"):
        in_child(sizes_of_a_long_text(), limited())


def keys_of_one_hash():
    keys = (k * (2**61 - 1) for k in range(1, 60000))
    pairs = (b"\x8a\x0b" + key.to_bytes(11, "little") + b"N" for key in keys)
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def test_what_takes_too_long_is_stopped():
    with pytest.raises(StateError, match="took more than 1 s of CPU time; the file is damaged"):
        in_child(keys_of_one_hash(), limited(seconds=1))


def test_a_child_process_that_hangs_is_stopped(monkeypatch):
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(isolated, "_command", lambda _: waits)
    with pytest.raises(StateError, match=r"took more than 0\.3 s"):
        in_child(b"", limited(timeout=0.3))


def test_a_crash_of_the_child_process_is_an_error():
    deep = b"\x80\x02})" + b"\x85" * 10**6 + b"Ns."  # hashing it overflows the stack of C
    with pytest.raises(StateError, match="ended a child process with status -11; the file is dam"):
        in_child(deep)


@pytest.mark.parametrize(
    "answer",
    [
        7,
        [],
        {},
        {"error": "other"},
        {"error": "pickle", "text": 7},
        {"items": [7]},
        {"items": [[]]},
        {"items": [[["a"], 7, True, "a", None]]},
        {"items": [[[[]], "kind", True, "a", None]]},
        {"items": [[["a"], "kind", True, "a", 7]]},
        {"items": [[["a"], "kind", True, "a", ["file", 0]]]},
    ],
    ids=str,
)
def test_an_answer_that_no_program_of_ours_gives_is_an_error(answer, monkeypatch):
    said = index_items.READY + json.dumps(answer).encode()
    program = f"import sys; sys.stdin.buffer.read(); sys.stdout.buffer.write({said!r})"
    monkeypatch.setattr(isolated, "_command", lambda _: [sys.executable, "-c", program])
    with pytest.raises(StateError, match="use another checkpoint"):
        isolated.read(b"", Limits.of(0))


def test_an_answer_that_is_too_long_is_refused(tmp_path):
    data = (save_dcp({"scheduler": STATE}, tmp_path / "a") / ".metadata").read_bytes()
    with pytest.raises(StateError, match="takes more than"):
        in_child(data, limited(longest=100))


def test_what_follows_the_pickle_is_ignored(tmp_path):
    data = (save_dcp({"scheduler": STATE}, tmp_path / "a") / ".metadata").read_bytes()
    assert in_child(data) == in_child(data + bytes(10**6))


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/true"])
def test_without_a_child_process_the_index_is_read_here(tmp_path, monkeypatch, caplog, executable):
    monkeypatch.setattr(dcp_folders, "LARGE_INDEX", 0)
    monkeypatch.setattr(sys, "executable", executable)
    caplog.set_level(logging.INFO, "dist_sched")
    folder = save_dcp({"scheduler": STATE}, tmp_path / "a")
    assert STATE == checkpoint.read_state(folder)[0]
    assert "read a large index in this process, which is slow" in caplog.text


LIMITED = """
import os, runpy, sys
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import index_items
index_items._limit(2**28, 10)
for attempt in (lambda: open(sys.argv[1]), os.pipe, os.fork, lambda: bytearray(2**28)):
    try:
        attempt()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""


def test_a_child_process_can_open_nothing_and_start_nothing():
    command = [sys.executable, "-I", "-S", "-c", LIMITED, index_items.__file__]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    # Root may start processes whatever their limit is.
    assert ["OSError", "OSError", "MemoryError"] == [s for s in said if s != "BlockingIOError"][:3]


def test_a_class_that_is_set_up_by_the_pickle_stays_inert(tmp_path):
    """BUILD on a class, not on an object, must not change the class."""
    name = b"cargparse\nNamespace\n"
    data = b"\x80\x02" + name + b"}X" + long(8) + b"__init__K\x01sb."
    with pytest.raises(StateError):
        in_child(data)
    with pytest.raises(StateError):
        in_child(pickle.dumps(Calls(dict, [("a", struct.pack("<I", 1))]), 2))
    assert [] == list(tmp_path.iterdir())
