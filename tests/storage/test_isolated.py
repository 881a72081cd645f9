"""A large index is read in a child process, within limits, with the same result as in this one."""

from __future__ import annotations

import io
import json
import logging
import pickle
import random
import re
import signal
import struct
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from dist_sched import StateError, checkpoint
from dist_sched._storage import dcp_folders, index_items, isolated
from dist_sched._storage.index_items import Item
from dist_sched._storage.isolated import Limits
from dist_sched._storage.pickles import Inert, TruncatedError
from helpers import save_dcp, state_at
from hostile_pickles import HOSTILE, READ, REFUSED, Calls, long
from page_helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")

STATE = state_at(60)
METADATA = "torch.distributed.checkpoint.metadata"
LIMITS = Limits.of(10**6)


def limited(**changes):
    limits = {"memory": 2**28, "seconds": 10, "timeout": 30, "longest": 10**6}
    return Limits(**{**limits, **changes})


@pytest.mark.parametrize(
    "size, expected",
    [
        (0, Limits(memory=2**29, seconds=20, timeout=60, longest=2**24)),
        (2**21 - 1, Limits(memory=557842422, seconds=20, timeout=60, longest=20971518)),
        (2**22, Limits(memory=578813952, seconds=22, timeout=66, longest=25165824)),
    ],
)
def test_a_child_process_may_use_more_for_a_larger_index(size, expected):
    assert expected == Limits.of(size)


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


def with_attribute(tmp_path, name, value):
    """Return an index one of whose attributes is another pickled value."""
    folder = save_dcp({"scheduler": {"num_steps": 7}}, tmp_path / "a")
    index = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    setattr(index, name, "a mark")
    whole = pickle.dumps(index, 2)
    mark = b"X" + long(6) + b"a mark"
    assert 1 == whole.count(mark)
    return whole.replace(mark, value)


def test_both_readers_refuse_data_of_another_file_as_paths(tmp_path):
    data = with_attribute(tmp_path, "planner_data", b"K\x01Q")
    for read in (dcp_folders.read_here, in_child):
        with pytest.raises(StateError, match="is not an index of a DCP folder"):
            read(data)


def test_both_readers_read_an_index_without_paths(tmp_path):
    data = with_attribute(tmp_path, "planner_data", b"N")
    for read in (dcp_folders.read_here, in_child):
        assert ("scheduler", "num_steps") == read(data)[0].path


@pytest.mark.parametrize(
    "attribute, value, expected",
    [
        ("relative_path", ["a"], ("<class 'list'>", 0, True, False)),
        ("length", {}, ("__0_0.distcp", 0, "<class 'dict'>", False)),
        ("offset", None, ("__0_0.distcp", None, True, False)),
        ("offset", 0.5, ("__0_0.distcp", 0.5, True, False)),
        ("transform_descriptors", ["zstd"], ("__0_0.distcp", 0, True, True)),
    ],
)
def test_both_readers_say_what_an_index_has_as_the_place_of_an_item(
    tmp_path, attribute, value, expected
):
    folder = save_dcp({"a": 7}, tmp_path / "a")
    index = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    [info] = index.storage_data.values()
    info.length = True
    setattr(info, attribute, value)
    data = pickle.dumps(index)
    for read in (dcp_folders.read_here, in_child):
        assert [expected] == [item.place for item in read(data)]


def test_both_readers_find_no_place_where_plain_data_belong(tmp_path):
    folder = save_dcp({"a": 7}, tmp_path / "a")
    index = pickle.loads((folder / ".metadata").read_bytes())  # noqa: S301 - just written
    index.storage_data = dict.fromkeys(index.storage_data, 7)
    data = pickle.dumps(index)
    for read in (dcp_folders.read_here, in_child):
        assert [("a", None)] == [(item.name, item.place) for item in read(data)]


def test_a_name_of_an_item_that_is_no_text_is_passed_over():
    kind, shard = (Inert(f"{METADATA}.{name}") for name in ("BytesStorageMetadata", "Shard"))
    shard.state = {"fqn": ["a"]}
    assert [Item(("a",), kind.name, True, "a")] == index_items._items({"a": kind}, {shard: 7}, {})


@pytest.mark.parametrize("path", [("a",), (0,), ("a", 2**60 - 1), ("",), ("a",) * 32], ids=str)
def test_a_short_tuple_of_names_and_indices_is_a_path(path):
    assert path == index_items.checked(path)


@pytest.mark.parametrize("path", [(), ("a", 2**60), (-1,), (True,), ("a",) * 33, ["a"]], ids=str)
def test_what_is_no_short_tuple_of_names_and_indices_is_no_path(path):
    with pytest.raises(index_items.InvalidIndexError, match="not a short tuple of names"):
        index_items.checked(path)


@pytest.mark.parametrize("make", [lambda: Inert("a"), index_items._Record, index_items._Shard])
def test_a_record_without_attributes_has_none(make):
    assert make().attribute("fqn") is None
    assert make().append(1) is None


@pytest.mark.parametrize("state, expected", [({"a": 7}, 7), ({"b": 7}, None), (("a", 7), None)])
def test_a_record_has_the_attributes_of_its_state(state, expected):
    record = index_items._Record("an argument")
    record.__setstate__(state)
    assert expected == record.attribute("a")


def test_a_record_of_a_shard_keeps_its_name_alone():
    record, state = index_items._Shard(), {"fqn": "a", "offset": (1, 2)}
    record.__setstate__(state)
    assert ("a", None, {}) == (record.attribute("fqn"), record.attribute("offset"), state)


@pytest.mark.parametrize("name", ["MetadataIndex", "ChunkStorageMetadata", "Metadata"])
def test_a_record_takes_little_memory(name):
    """Because an index may have millions of them."""
    reader = index_items._Unpickler(io.BytesIO(), re.compile(r"torch\..*"), [])
    assert not hasattr(reader.find_class(METADATA, name)(), "__dict__")


def test_dicts_of_other_classes_are_dicts():
    given = {"a": 1}
    assert given is index_items._Dict(given)
    assert [{}, {}] == [index_items._Dict(), index_items._Dict(int)]
    assert [{}, {}] == [index_items._Dict(), index_items._Dict([("a", 1)])]


class TestReadingToTheEnd:
    """Of the file that an unpickler reads."""

    def test_what_is_there_is_read(self):
        file = index_items._Whole(io.BytesIO(b"ab\ncd\nef"))
        assert (b"a", b"b\n", b"cd\n") == (file.read(1), file.readline(), file.readline())
        buffer = bytearray(2)
        assert (2, b"ef") == (file.readinto(buffer), buffer)
        assert (b"", b"", b"", 0) == (
            file.read(0),
            file.read(None),
            file.read(),
            file.readinto(bytearray()),
        )

    def test_without_a_size_all_is_read(self):
        assert b"abc" == index_items._Whole(io.BytesIO(b"abc")).read()

    @pytest.mark.parametrize(
        "read", [lambda f: f.read(3), lambda f: f.readinto(bytearray(3)), lambda f: f.readline()]
    )
    @pytest.mark.parametrize("data", [b"ab", b""])
    def test_what_is_not_there_is_an_error(self, data, read):
        with pytest.raises(index_items._EndError):
            read(index_items._Whole(io.BytesIO(data)))


@pytest.mark.parametrize(
    "answer, error, text",
    [
        ({"error": "end"}, TruncatedError, "^it ends in the middle of its pickle$"),
        ({"error": "class", "text": "os.system"}, StateError, "^it contains 'os.system', which is"),
        ({"error": "index", "text": "a reason"}, StateError, "^a reason$"),
        ({"error": "memory"}, StateError, "^reading it takes more than 256 MiB; the file is dam"),
        ({"error": "pickle", "text": "why"}, StateError, "^it is not a valid pickle: why$"),
    ],
)
def test_an_answer_of_a_child_process_is_an_error_with_its_reason(answer, error, text):
    with pytest.raises(StateError, match=text) as caught:
        isolated._items(json.dumps(answer).encode(), 0, limited())
    assert error is caught.type


@pytest.mark.parametrize(
    "status, text",
    [
        (-signal.SIGXCPU, "^reading it took more than 10 s of CPU time; the file is damaged or"),
        (signal.SIGXCPU, f"^reading it ended a child process with status {int(signal.SIGXCPU)}; "),
        (-11, "^reading it ended a child process with status -11; the file is damaged or"),
    ],
)
def test_a_child_process_without_an_answer_is_an_error_with_its_status(status, text):
    with pytest.raises(StateError, match=text):
        isolated._items(b"", status, limited())


def test_an_answer_as_long_as_the_limit_is_read(tmp_path):
    data = (save_dcp({"scheduler": STATE}, tmp_path / "a") / ".metadata").read_bytes()
    expected = dcp_folders.read_here(data)
    longest = len(json.dumps({"items": expected, "text": ""}))
    assert expected == in_child(data, limited(longest=longest))
    with pytest.raises(StateError, match="takes more than 256 MiB"):
        in_child(data, limited(longest=longest - 1))


def test_a_long_reason_is_cut_before_it_is_too_long_an_answer():
    name = b"c" + b"a" * 10**5 + b"\nb\n."
    with pytest.raises(StateError, match=r"it contains 'aaa.*could run code"):
        in_child(name, limited(longest=2000))


def test_what_declares_too_much_memory_is_refused():
    with pytest.raises(StateError, match="takes more than 256 MiB"):
        in_child(REFUSED["long bytearray"], limited())


def test_bytes_that_are_no_pickle_are_refused_with_the_reason():
    with pytest.raises(StateError, match="it is not a valid pickle: UnpicklingError: invalid load"):
        in_child(b"\x80\x02\x00.")


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


OWN = "a child process within limits needs Linux and Python's own executable"


@pytest.mark.parametrize(
    "change, reason",
    [
        ((sys, "platform", "darwin"), OWN),
        ((sys, "frozen", True), OWN),
        ((sys, "executable", ""), OWN),
        ((index_items, "__file__", "/nowhere/index_items.py"), "/nowhere/index_items.py is not a"),
    ],
)
def test_where_there_can_be_no_child_process_none_is_started(monkeypatch, caplog, change, reason):
    caplog.set_level(logging.INFO, "dist_sched")
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(*change, raising=False)
    assert isolated.read(b"", LIMITS) is None
    assert f"read a large index in this process, which is slow: {reason}" in caplog.text


LIMITED = """
import os, resource, runpy, sys
limit = runpy.run_path(sys.argv[1])["_limit"]
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_AS, (2**27, 2**27))
limit(2**28, 10)
names = "CPU", "AS", "NOFILE", "FSIZE", "NPROC", "CORE"
print(*(resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names), sep=";")
for attempt in (lambda: open(sys.argv[1]), os.pipe, os.fork, lambda: bytearray(2**28)):
    try:
        attempt()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""


def test_a_child_process_can_open_nothing_and_start_nothing():
    said = after_limits()[1:]
    # Root may start processes whatever their limit is.
    assert ["OSError", "OSError", "MemoryError"] == [s for s in said if s != "BlockingIOError"][:3]


def after_limits(*arguments):
    """Return what a child process says that has limited itself."""
    program = isolated._command(LIMITS)[-2]
    command = [sys.executable, "-I", "-S", "-c", LIMITED, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("arguments, memory", [((), 2**28), (("had less",), 2**27)])
def test_a_child_process_limits_itself_to_what_it_had_before_at_most(arguments, memory):
    limits = [(10, 11), (memory, memory), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert ";".join(map(str, limits)) == after_limits(*arguments)[0]


def test_a_class_that_is_set_up_by_the_pickle_stays_inert(tmp_path):
    """BUILD on a class, not on an object, must not change the class."""
    name = b"cargparse\nNamespace\n"
    data = b"\x80\x02" + name + b"}X" + long(8) + b"__init__K\x01sb."
    with pytest.raises(StateError):
        in_child(data)
    with pytest.raises(StateError):
        in_child(pickle.dumps(Calls(dict, [("a", struct.pack("<I", 1))]), 2))
    assert [] == list(tmp_path.iterdir())
