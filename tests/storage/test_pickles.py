"""Pickles are read as data: what would run code is refused, and a few bytes take little memory."""

from __future__ import annotations

import argparse
import collections
import copyreg
import os
import pickle
import tracemalloc

import pytest
import torch

from dist_sched import StateError
from dist_sched._storage import pickles
from hostile_pickles import HOSTILE, READ, REFUSED


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_could_run_code_is_refused_and_runs_nothing(tmp_path, name, protocol):
    data = pickle.dumps({"x": HOSTILE[name](tmp_path / "ran")}, protocol)
    with pytest.raises(StateError, match="could run code"):
        pickles.read(data)
    assert [] == list(tmp_path.iterdir())


PLAIN = {
    "numbers": [0, -1, 2**40, -(2**70), 0.5, True, None],
    "texts": ["", "a", "é" * 300],
    "dicts": {"a": {"b": (1, 2)}, 3: [[], {}]},
    "counter": collections.Counter({2: 1, 5: 3}),
    "ordered": collections.OrderedDict(a=1, b=2),
    "default": collections.defaultdict(int, a=1),
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_out_as_they_are(protocol):
    assert PLAIN == pickles.read(pickle.dumps(PLAIN, protocol))


@pytest.mark.parametrize("protocol", range(3, 6))
def test_bytes_come_out_as_they_are(protocol):
    assert [b"", b"\xff"] == pickles.read(pickle.dumps([b"", b"\xff"], protocol))


@pytest.mark.parametrize("protocol", range(3))
def test_bytes_of_old_protocols_come_out_as_a_record_of_a_call(protocol):
    found = pickles.read(pickle.dumps(b"\xff", protocol))
    assert ("_codecs.encode", ("\xff", "latin1")) == (found.name, found.arguments)


def test_a_bytearray_comes_out_as_bytes():
    found = pickles.read(pickle.dumps(bytearray(b"ab"), 5))
    assert (b"ab", bytes) == (found, type(found))


@pytest.mark.parametrize("name", ["argparse\nNamespaceOf", "my.argparse\nNamespace"])
def test_a_name_that_only_resembles_a_known_one_is_refused(name):
    with pytest.raises(StateError, match="could run code"):
        pickles.read(b"\x80\x02c" + name.encode() + b"\n.")


def test_sets_come_out_as_lists():
    assert [[1], [2]] == pickles.read(pickle.dumps([{1}, frozenset({2})], 4))


def test_an_object_comes_out_as_a_record_of_its_attributes():
    found = pickles.read(pickle.dumps(argparse.Namespace(lr=0.5, dtype=torch.bfloat16)))
    assert ("argparse.Namespace", 0.5) == (found.name, found.attribute("lr"))
    assert found.attribute("none") is None


def test_a_container_of_another_class_comes_out_empty():
    found = pickles.read(pickle.dumps(collections.deque([1, 2])))
    assert ("collections.deque", None) == (found.name, found.state)


def test_what_stands_for_a_call_is_the_callers_to_say():
    data = pickle.dumps(torch.Size([2, 3]))
    assert ("torch.Size", ((2, 3),)) == pickles.read(data, lambda *call: call)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_cut_anywhere_is_truncated(protocol):
    data = pickle.dumps({key: PLAIN[key] for key in ("numbers", "texts", "dicts")}, protocol)
    for end in range(len(data)):
        with pytest.raises(pickles.TruncatedError):
            pickles.read(data[:end])


def test_bytes_that_are_no_pickle_are_refused():
    with pytest.raises(StateError, match="it is not a valid pickle") as caught:
        pickles.read(b"\x00" * 1000)
    assert StateError is caught.type


def test_an_extension_is_refused_even_if_this_process_knows_it():
    copyreg.add_extension("posix", "system", 240)
    try:
        data = pickle.dumps(os.system, 2)
        pickle.loads(data)  # noqa: S301 - this process knows it from now on
        with pytest.raises(StateError, match="extension 240"):
            pickles.read(data)
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.fixture
def _little_memory():
    """Fail a test that takes half a gigabyte."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**29


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_bytes_that_declare_much_are_refused_in_little_memory(data):
    with pytest.raises(StateError):
        pickles.read(data)


@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("data", READ.values(), ids=READ.keys())
def test_bytes_that_name_much_are_read_in_little_memory(data):
    pickles.read(data)


@pytest.mark.timeout(20)
def test_a_pickle_of_very_many_instructions_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    monkeypatch.setattr(pickles._Counted, "left", 1000)
    with pytest.raises(StateError, match="it has more than 1,000 instructions"):
        pickles.read(b"\x80\x04(" + b"]" * 1000 + b"l.")
    assert [[]] * 996 == pickles.read(b"\x80\x04(" + b"]" * 996 + b"l.")


def test_a_pickle_has_at_most_sixteen_million_instructions():
    counted = pickles._Counted({0: "done"})
    assert 2**24 == counted.left
    counted.left = 1
    assert "done" == counted[0]
    with pytest.raises(StateError, match="it has more than 16,777,216 instructions"):
        counted[0]


KEYS = [None, True, 0.5, "a", b"a", 2**60 - 1, 1 - 2**60, (), (1, "a"), ("a", 2**60 - 1)]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_of_plain_values_come_out_as_they_are(key, protocol):
    found = pickles.read(pickle.dumps({"first": 0, key: 1}, protocol))
    assert [0, 1] == list(found.values())
    assert key in found or type(key) is bytes


REFUSED_KEYS = [2**60, -(2**60), ("a", 2**60), ((1,),), ("a", ())]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("key", REFUSED_KEYS, ids=repr)
def test_a_key_that_is_not_a_short_plain_value_is_refused(key, protocol):
    with pytest.raises(StateError, match="a dict with a key that is not a plain value"):
        pickles.read(pickle.dumps({key: 1}, protocol))


@pytest.mark.parametrize("pid, expected", [(b"K\x01", (1,)), (b"K\x01K\x02\x86", (1, 2))])
def test_the_data_of_a_tensor_come_out_as_a_record_of_their_place(pid, expected):
    found = pickles.read(b"\x80\x02" + pid + b"Q.")
    assert ("storage", expected) == (found.name, found.arguments)


def test_attributes_of_a_plain_value_are_ignored():
    assert {"a": {}} == pickles.read(b"\x80\x02}X\x01\0\0\0a}}X\x01\0\0\0bK\x01sbs.")


class TestReadingToTheEnd:
    """Of the file that an unpickler reads."""

    def test_what_is_there_is_read(self):
        file = pickles._Whole(b"ab\ncd\n")
        assert (b"a", b"b\n", b"cd\n") == (file.read(1), file.readline(), file.read())
        assert (b"", b"", b"") == (file.read(0), file.read(None), file.read())

    def test_what_is_not_there_is_truncated(self):
        with pytest.raises(pickles.TruncatedError, match="in the middle of its pickle"):
            pickles._Whole(b"ab").read(3)
        for line in (b"ab", b""):
            with pytest.raises(pickles.TruncatedError, match="in the middle of its pickle"):
                pickles._Whole(line).readline()


def test_a_dict_with_a_key_and_no_value_is_refused():
    with pytest.raises(StateError, match="not a valid pickle"):
        pickles.read(b"}(K\x01u.")
