"""Mutations of values, texts, bytes and pickles for fuzz.py, and odd values to put into them."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import decimal
import fractions
import io
import pickletools
import struct
import zipfile
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

if TYPE_CHECKING:
    from random import Random


class HostileError(Exception):
    """The error of a caller's own object. The library may let it pass."""


class Hostile:
    """An object that raises at whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise HostileError(name)

    def _fail(self, *_: Any) -> NoReturn:
        raise HostileError

    __eq__ = __bool__ = __len__ = __repr__ = __str__ = __float__ = __int__ = __iter__ = _fail
    __hash__ = object.__hash__


def nested(levels: int, width: int) -> list[Any]:
    """Return lists in lists, each with the one below so many times."""
    found: list[Any] = []
    for _ in range(levels):
        found = [found] * width
    return found


def cycle() -> dict[str, Any]:
    """Return a dict that holds itself."""
    found: dict[str, Any] = {}
    found["lr"] = found
    return found


PLAIN: list[Any] = [
    *(-1, 0, 0.5, 1e300, -0.0, 5e-324, True, None, "", "lr", "x" * 1000, "\ud800", "\0", 10**400),
    *("9" * 5000, "nan", "1e999999", "%", "-1%", "*", 2**53 + 1, 2**63, 2**64, -(2**63), 1e-320),
    *([], {}, [[]], [None], {"schedule": []}, {"lr": {}}, ["x"] * 10**4, nested(100, 1)),
    *(float("nan"), float("inf"), -float("inf"), "\u202e", "e\u0301", "\uff11", "1_000", " 1 "),
]
"""Values that files can have."""
ODD: list[Any] = [
    *PLAIN,
    *((), set(), {1: 2}, {None: {}}, {(1, 2): 1}, b"x", 10**5000, 1j, object(), int),
    *(decimal.Decimal("sNaN"), decimal.Decimal("1e9"), fractions.Fraction(1, 3)),
    *(dt.date(2026, 1, 1), np.ones(2), np.float32(1), np.array("x"), np.int64(7)),
    *(torch.ones(2), torch.tensor(1.0), torch.ones(1, device="meta"), Hostile(), [Hostile()]),
    *(nested(3000, 1), nested(30, 9), cycle(), "x" * 10**6),
]
"""Values that callers in Python can pass, too."""
NAMES = (
    *("", "lr", "x" * 300, "peak", "phases", "product", "repeat", "factors", "since", "until"),
    *("multiple_of", "updates", "points", "power", "per_update", "extras", "version", "lineage"),
)
TOKENS = (
    *("*a", "&a ", "<<: *a", "!!int ", "!!python/object/apply:os.system ['touch mark']", "[", "}"),
    *('"', "'", ":", "\n", "\n  ", ", ", "\0", "\ufeff", "1e999", "9" * 5000, "NaN", "Infinity"),
    *("null", "-", "~", "%", "? ", "|", "# ", ".", "=", "[[a]]", "a.b.c = 1", "\\ud800", "0x1"),
)


def chance(draw: Random, percent: int) -> bool:
    """Return True in so many of a hundred cases."""
    return draw.random() * 100 < percent


def places(data: Any, depth: int = 6) -> list[tuple[Any, Any]]:
    """Return where values are in nested dicts and lists: containers and keys."""
    keys = list(data) if isinstance(data, dict) else range(min(len(data), 20))
    found = [(data, key) for key in keys]
    for key in keys:
        if depth and isinstance(data[key], dict | list):
            found += places(data[key], depth - 1)
    return found


def changed(draw: Random, data: Any, odd: list[Any] = ODD) -> Any:
    """Return a copy of data in which something was replaced, removed, added or renamed."""
    found = copy.deepcopy(data)
    # Once, so that no odd value is changed, which other cases use.
    where = places(found)
    for _ in range(draw.randint(1, 3) if where else 0):
        place, source = draw.choice(where), draw.choice(where)
        # A place may be gone by now, and a value may not allow its change.
        with contextlib.suppress(ArithmeticError, LookupError, TypeError, ValueError, RuntimeError):
            _change(draw, place, source, odd)
    return found


def _change(draw: Random, place: tuple[Any, Any], source: tuple[Any, Any], odd: list[Any]) -> None:
    """Replace, remove, add or rename what is at a place."""
    (one, key), (other, name) = place, source
    match draw.randrange(7):
        case 0 | 1:
            one[key] = draw.choice(odd)
        case 2:
            del one[key]
        case 3 if isinstance(one, dict):
            one[draw.choice([*NAMES, name])] = draw.choice(odd)
        case 4 if isinstance(one, dict):
            one[draw.choice([*NAMES, f"{key} ", str(key).upper()])] = one.pop(key)
        case 5:
            one[key] = _nudged(draw, one[key])
        case _:
            one[key] = other[name]


def _nudged(draw: Random, value: Any) -> Any:
    """Return a value near another, or of another type."""
    if isinstance(value, bool | int | float):
        made: list[Any] = [str(value), float(value), repr(value), -value, value + 1, [value]]
        return draw.choice([*made, value * 10, value * 1e-12])
    if isinstance(value, str):
        return draw.choice([value[:-1], value.upper(), value * 2, value + "\u0301", value[::-1]])
    return draw.choice([[value], {"lr": value}, None])


def changed_bytes(draw: Random, data: bytes, tokens: tuple[str, ...] = TOKENS) -> bytes:
    """Return bytes of which some were changed, cut out, inserted, repeated or spliced."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        start = draw.randrange(len(found) + 1)
        end = min(len(found), start + draw.choice([1, 1, 2, 8, 50]))
        match draw.randrange(8):
            case 0 | 1:
                found[start:end] = draw.randbytes(end - start)
            case 2:
                found[start:start] = draw.choice(tokens).encode("utf-8", "surrogatepass")
            case 3:
                del found[start:end]
            case 4:
                found[start:start] = found[start:end] * draw.choice([1, 2, 50])
            case 5 if end > start:
                found[start] ^= 1 << draw.randrange(8)
            case 6:
                other = draw.randrange(len(found) + 1)
                found[start:end] = data[other : other + draw.choice([4, 30, 300])]
            case 7 if chance(draw, 30):
                del found[start:]
    return bytes(found)


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


_CALLS = (
    *(("os.system", "touch mark"), ("posix.system", "touch mark"), ("builtins.eval", "1+1")),
    *(("builtins.exec", "open('mark', 'w')"), ("builtins.__import__", "antigravity")),
    *(("builtins.open", "mark"), ("builtins.getattr", "mark"), ("subprocess.getoutput", "id")),
    *(("torch.load", "mark"), ("torch.hub.load", "mark"), ("pickle.loads", "mark")),
    *(("torch._utils._rebuild_tensor_v2", "x"), ("torch.Size", "xy"), ("builtins.bytearray", "x")),
    *(("collections.OrderedDict", "x"), ("numpy.core.multiarray.scalar", "x")),
    *(("torch.distributed.checkpoint.metadata.Metadata", "x"), ("builtins.range", "x")),
)
SNIPPETS = (
    *(_global(name) + _text(argument) + b"\x85R" for name, argument in _CALLS),
    *(_global(name) + b")\x81" for name, _ in _CALLS),
    *(_global(name) + b"}" + _text("__setstate__") + b"Nsb" for name, _ in _CALLS),
    *(
        b"(ios\nsystem\n",
        b"(" + _text("touch mark") + b"ios\nsystem\n",
        b"\x82\x01",
        b"\x83\xff\xff",
    ),
    *(b"Pmark\n", b"NQ", b"\x93", b"\x92", b"\x81", b"R", b"b", b"s", b"u", b"d", b"e", b"a", b"0"),
    *(
        b"2" * 50,
        b"(" * 20,
        b"]" * 200,
        b"\x85" * 5000,
        b")",
        b"}",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"1",
    ),
    *(b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"\x94", b"h\x00", b"h\x05", b"h\xff"),
    *(b"\x8e" + struct.pack("<Q", 2**40), b"\x8d" + struct.pack("<Q", 2**40), b"\x97", b"\x98"),
    *(
        b"\x96" + struct.pack("<Q", 2**40),
        b"\x95" + struct.pack("<Q", 2**40),
        b"I99\n",
        b"F1e999\n",
    ),
    *(b"\x8b" + struct.pack("<i", 2**31 - 1), b"\x8b" + struct.pack("<i", -1), b"L" + b"9" * 5000),
    *(b"S'x'\n", b"V\\ud800\n", b"\x8a\xff" + b"\xff" * 255, b"\x80\x05", b"\x80\xff", b".", b"N"),
    *(
        _text("x" * 10**5),
        b"G\x7f\xf8\0\0\0\0\0\0",
        b"B\xff\xff\xff\xff",
        b"C\x01x",
        b"T\x02\0\0\0ab",
    ),
)
"""Instructions of pickles that call, set up, allocate much, or leave the stack in disorder."""


def changed_pickle(draw: Random, data: bytes) -> bytes:
    """Return a pickle whose instructions, or bytes, were changed."""
    if chance(draw, 30):
        return changed_bytes(draw, data)
    starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    if parts[1:] and parts[1][:1] == b"\x95" and chance(draw, 80):
        del parts[1]  # a frame has the length of what follows
    for _ in range(draw.choice([1, 1, 2, 4])):
        place, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        match draw.randrange(7):
            case 0 | 1 | 2:
                parts[place:place] = [draw.choice(SNIPPETS)]
            case 3:
                del parts[place : place + draw.choice([1, 1, 3])]
            case 4:
                parts[place:place] = parts[place : place + 5] * draw.choice([1, 3, 100])
            case 5:
                parts[place], parts[other] = parts[other], parts[place]
            case _:
                parts[place] = draw.choice(SNIPPETS)
        parts = parts or [b"N", b"."]
    return b"".join(parts)


def changed_archive(draw: Random, data: bytes) -> bytes:
    """Return a file of torch.save whose pickle, records or bytes were changed."""
    if chance(draw, 30):
        return changed_bytes(draw, data)
    # Byte by byte, most changes would end at the checksum of a record.
    found = io.BytesIO()
    compression = draw.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(found, "w") as target:
        for name in source.namelist():
            record = source.read(name)
            if name.endswith("data.pkl"):
                record = changed_pickle(draw, record)
            elif chance(draw, 10):
                record = changed_bytes(draw, record)
            if chance(draw, 2):
                continue
            new = name if chance(draw, 98) else draw.choice(["x", "/data.pkl", name * 20, "a/b"])
            target.writestr(new, record, compression)
    return found.getvalue()
