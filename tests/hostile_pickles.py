"""Pickles that would run code, or that take much memory or time, for the tests of their readers."""

from __future__ import annotations

import decimal
import functools
import os
import pickle
import struct
import subprocess
from pathlib import Path

import torch


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


def long(count):
    return struct.pack("<I", count)


LATIN1 = b"X\x06\x00\x00\x00latin1\x86"
CALLS = b"q\x00c%s\nq\x01(" + b"h\x01h\x00R" * 2000 + b"l."
REFUSED = {
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "long bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
    "long number": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "extension": b"\x80\x02\x82\x01.",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 2 * 10**5 + b"Ns.",
    "deep key of an old dict": b"\x80\x02(" + b")" + b"\x85" * 2 * 10**5 + b"Nd.",
    "keys of one hash": b"\x80\x02}("
    + b"".join(
        b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(1, 60000)
    )
    + b"u.",
}
READ = {
    "long memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "call for a long bytearray": pickle.dumps(Calls(bytearray, 2**40)),
    "deep part of a set": b"\x80\x04\x8f()" + b"\x85" * 10**5 + b"\x90.",
    "one text many times": b"\x80\x02X"
    + long(10**6)
    + b"a" * 10**6
    + LATIN1
    + CALLS % b"_codecs\nencode",
    "one dict many times": b"\x80\x02}("
    + b"".join(b"J" + long(i) + b"N" for i in range(2 * 10**4))
    + b"u\x85"
    + CALLS % b"collections\nOrderedDict",
    "a text of lists in lists": b"\x80\x02]q\x00"
    + b"".join(b"](" + b"h%c" % i * 8 + b"eq%c" % (i + 1) for i in range(12))
    + b"0c_codecs\nencode\nh\x0c"
    + LATIN1
    + b"R.",
}
