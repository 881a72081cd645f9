"""Pickles are read as data: what would run code is refused, and a few bytes take little memory."""

from __future__ import annotations

import argparse
import collections
import decimal
import functools
import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest
import torch

from dist_sched import StateError
from dist_sched._storage import pickles, trees


class Calls:
    """Pickles as a call, as an attacker's object does."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.reduced


class SetsState:
    def __setstate__(self, state):
        Path(state["path"]).touch()


def sets_state(path):
    found = SetsState()
    found.path = str(path)
    return found


HOSTILE = {
    "os.system": lambda path: Calls(os.system, f"touch {path}"),
    "eval": lambda path: Calls(eval, f"open({str(path)!r}, 'w')"),
    "exec": lambda path: Calls(exec, f"open({str(path)!r}, 'w')"),
    "getattr": lambda path: Calls(getattr, path, "touch"),
    "method": lambda path: Calls(path.touch),
    "open": lambda path: Calls(open, str(path), "w"),
    "popen": lambda path: Calls(subprocess.Popen, ["touch", str(path)]),
    "partial": lambda path: functools.partial(os.system, f"touch {path}"),
    "setstate": sets_state,
    "torch.load": lambda path: Calls(torch.load, str(path)),
    "torch.hub": lambda path: Calls(torch.hub.load, str(path), "x"),
    "other class": lambda _: decimal.Decimal(1),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_could_run_code_is_refused_and_runs_nothing(tmp_path, name, protocol):
    data = pickle.dumps({"x": HOSTILE[name](tmp_path / "ran")}, protocol)
    with pytest.raises(StateError, match="could run code"):
        pickles.read_bytes(data)
    assert [] == list(tmp_path.iterdir())


PLAIN = {
    "numbers": [0, -1, 2**40, -(2**70), 0.5, True, None],
    "texts": ["", "a", "é" * 300, b"\x00\xff" * 200],
    "dicts": {"a": {"b": (1, 2)}, 3: [[], {}]},
    "counter": collections.Counter({2: 1, 5: 3}),
    "ordered": collections.OrderedDict(a=1, b=2),
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_out_as_they_are(value, protocol):
    assert value == pickles.read_bytes(pickle.dumps(value, protocol))


def test_an_object_comes_out_as_a_record_of_its_attributes():
    found = pickles.read_bytes(pickle.dumps(argparse.Namespace(lr=0.5, dtype=torch.bfloat16)))
    assert ("argparse.Namespace", 0.5) == (found.name, found.attribute("lr"))
    assert found.attribute("none") is None


def test_what_trainers_keep_beside_the_state_is_no_obstacle(tmp_path):
    import numpy as np

    kept = {
        "numpy": np.random.get_state(),  # noqa: NPY002 - what trainers save
        "generator": np.random.default_rng(1),
        "torch": torch.get_rng_state(),
        "path": tmp_path,
        "device": torch.device("cpu"),
        "shapes": {"w": torch.Size([2, 3])},
        "weight": torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)),
        "version": torch.__version__,
        "array": np.zeros(3),
        "milestones": {1, 2},
        "state": {"num_steps": 7},
    }
    torch.save(kept, tmp_path / "a.pt")
    found = trees.torch_file(trees.Place.at(tmp_path / "a.pt"))
    assert (kept.keys(), {"num_steps": 7}) == (found.keys(), found["state"])


def test_a_pickle_cut_anywhere_is_truncated_or_refused():
    data = pickle.dumps(PLAIN)
    for end in range(len(data)):
        with pytest.raises(StateError):
            pickles.read_bytes(data[:end])


BOMBS = {
    "long memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "long bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "long number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "bytearray": pickle.dumps(Calls(bytearray, 2**40)),
    "extension": b"\x80\x02\x82\x01.",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 10**6 + b"Ns.",
}


LATIN1 = b"X\x06\x00\x00\x00latin1\x86"
CALLS = b"q\x00c%s\nq\x01(" + b"h\x01h\x00R" * 2000 + b"l."
BOMBS |= {
    "one text many times": b"\x80\x02X"
    + struct.pack("<I", 10**6)
    + b"a" * 10**6
    + LATIN1
    + CALLS % b"_codecs\nencode",
    "one dict many times": b"\x80\x02}("
    + b"".join(b"J" + struct.pack("<I", i) + b"N" for i in range(10**5))
    + b"u\x85"
    + CALLS % b"collections\nOrderedDict",
    "a text of lists in lists": b"\x80\x02]q\x00"
    + b"".join(b"](" + b"h%c" % i * 8 + b"eq%c" % (i + 1) for i in range(12))
    + b"0c_codecs\nencode\nh\x0c"
    + LATIN1
    + b"R.",
    "keys of one hash": b"\x80\x02}("
    + b"".join(
        b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(1, 60000)
    )
    + b"u.",
}
COST_NOTHING = ["long memo", "long frame", "a text of lists in lists"]


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_a_few_bytes_that_declare_much_take_little_memory(data):
    tracemalloc.start()
    try:
        try:
            pickles.read_bytes(data)
        except StateError:
            is_refused = True
        else:
            is_refused = data in [BOMBS[name] for name in COST_NOTHING]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert is_refused
    assert peak < 2**29


def test_no_pickle_reaches_an_object_registered_in_this_process():
    import copyreg

    copyreg.add_extension("os", "system", 240)
    try:
        data = pickle.dumps(os.system, 2)
        pickle.loads(data)  # noqa: S301 - this process knows it from now on
        with pytest.raises(StateError):
            pickles.read_bytes(data)
    finally:
        copyreg.remove_extension("os", "system", 240)
