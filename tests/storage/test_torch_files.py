"""Files of torch.save are read but for their tensors, whoever wrote them."""

from __future__ import annotations

import pickle
import random
import re
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dist_sched import StateError
from dist_sched._storage import torch_files, trees
from dist_sched._storage.pickles import Inert, TruncatedError
from dist_sched._storage.places import Place
from dist_sched._storage.torch_files import read_file
from helpers import Runs, save_torch, state_at

STATE = state_at(60)


def read(path):
    place = Place.at(path)
    return read_file(place, place.open)


def archived(path, pickled, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", pickled)
    return path


def with_garbage_as_data(path, length):
    """Overwrite the data of the first tensor, and its header in the archive."""
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("a/data/0").header_offset
    data = bytearray(path.read_bytes())
    data[start : start + length] = b"\xff" * length
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_file_of_any_protocol_is_read(tmp_path, protocol):
    torch.save({"s": STATE}, tmp_path / "a.pt", pickle_protocol=protocol)
    assert {"s": STATE} == read(tmp_path / "a.pt")


def test_what_trainers_keep_beside_the_state_is_no_obstacle(tmp_path):
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
        "bytes": [b"", b"a", b"a" * 100, bytearray(b"a")],
        "state": {"num_steps": 7},
    }
    found = read(save_torch(kept, tmp_path / "a.pt"))
    assert (kept.keys(), {"num_steps": 7}) == (found.keys(), found["state"])


def test_the_tensors_of_a_file_are_not_read(tmp_path):
    path = save_torch({"w": torch.zeros(2**20), "s": STATE}, tmp_path / "a.pt")
    assert STATE == read(with_garbage_as_data(path, 2**20))["s"]


DTYPES = [
    *(torch.float16, torch.float32, torch.float64, torch.int8, torch.int16, torch.int32),
    *(torch.int64, torch.uint8, torch.bool),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_one_number_is_a_leaf_that_reads_it(tmp_path, dtype):
    numbers = torch.tensor([0, 1], dtype=dtype)
    assert 1 == read(save_torch({"n": numbers[1]}, tmp_path / "a.pt"))["n"].read()


def test_a_tensor_of_one_number_is_not_read_unless_it_is_asked_for(tmp_path):
    path = save_torch({"step": torch.tensor(7.0), "s": STATE}, tmp_path / "a.pt")
    found = read(with_garbage_as_data(path, 4))
    assert STATE == found["s"]
    with pytest.raises(StateError, match=r"a\.pt: is malformed"):
        found["step"].read()


KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_numpy_scalar_is_a_number(tmp_path, kind, protocol):
    torch.save({"n": np.dtype(kind).type(1)}, tmp_path / "a.pt", pickle_protocol=protocol)
    found = read(tmp_path / "a.pt")["n"]
    assert (1, True) == (found, type(found) in {int, float, bool})


def test_a_numpy_scalar_of_the_other_byte_order_is_the_same_number(tmp_path):
    class Big:
        def __reduce__(self):
            return np._core.multiarray.scalar, (np.dtype(">f8"), struct.pack(">d", 0.3))

    assert 0.3 == read(save_torch({"n": Big()}, tmp_path / "a.pt"))["n"]


def test_a_numpy_scalar_of_an_older_numpy_is_a_number(tmp_path):
    path = save_torch({"n": np.float64(0.3)}, tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("a/data.pkl")
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        changed = re.sub(rb"numpy\._?core\.multiarray", name, pickled)
        assert {"n": 0.3} == read(archived(tmp_path / "b.pt", changed))


def test_a_file_with_a_wrong_checksum_is_truncated(tmp_path):
    path = save_torch({"s": STATE}, tmp_path / "a.pt")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"max_lr", b"may_lr"))
    with pytest.raises(TruncatedError, match="Bad CRC-32"):
        read(path)


def test_a_file_written_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        save_torch({"s": STATE}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert {"s": STATE} == read(tmp_path / "a.pt")


def test_a_file_of_torch_before_1_6_is_refused_with_what_to_do(tmp_path):
    torch.save({"s": STATE}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(StateError, match=r"a\.pt: .* before 1\.6.*save it again") as caught:
        read(tmp_path / "a.pt")
    assert StateError is caught.type


@pytest.mark.parametrize("data", [b"PQ", b"\x00" * 64, b"hello world\n", pickle.dumps({"a": 1})])
def test_a_file_of_another_format_is_refused(tmp_path, data):
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(StateError, match=r"a\.pt: it is not a file of torch\.save") as caught:
        read(tmp_path / "a.pt")
    assert StateError is caught.type


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("x/y/data.pkl", pickle.dumps({}))
    with pytest.raises(StateError, match=r"no item named '/data\.pkl'"):
        read(tmp_path / "a.pt")


def test_a_file_cut_anywhere_is_truncated(tmp_path):
    whole = save_torch({"s": STATE}, tmp_path / "a.pt").read_bytes()
    for end in [*range(8), *range(8, len(whole), 31), len(whole) - 1]:
        (tmp_path / "a.pt").write_bytes(whole[:end])
        with pytest.raises(TruncatedError):
            read(tmp_path / "a.pt")


def test_a_hostile_file_runs_nothing_and_is_refused(tmp_path):
    path = save_torch({"s": STATE, "x": Runs(tmp_path / "ran")}, tmp_path / "a.pt")
    with pytest.raises(StateError, match=r"a\.pt: it contains 'posix\.system'"):
        read(path)
    assert not (tmp_path / "ran").exists()


COMPRESSIONS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_compressed_record_is_refused_because_it_could_be_of_any_length(tmp_path, compression):
    path = archived(tmp_path / "a.pt", b"N" * 2**20 + b".", compression=compression)
    with pytest.raises(StateError, match="is compressed, or has 1048577 bytes"):
        read(path)


def test_a_record_longer_than_any_state_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dist_sched._storage.pickles.MAX_SIZE", 1000)
    assert read(archived(tmp_path / "a.pt", b"N" * 999 + b".")) is None
    with pytest.raises(StateError, match="has 1001 bytes"):
        read(archived(tmp_path / "a.pt", b"N" * 1000 + b"."))


def test_a_record_has_at_most_a_quarter_of_a_gigabyte():
    record = zipfile.ZipInfo("x/data.pkl")
    record.CRC, record.file_size = 0, 2**28
    archive = SimpleNamespace(getinfo=lambda _: record, read=lambda _: b"N.")
    assert b"N." == torch_files._stored(archive, record.filename)
    record.file_size = 2**28 + 1
    with pytest.raises(StateError, match="at most 268435456 bytes can be read"):
        torch_files._stored(archive, record.filename)


@pytest.mark.parametrize(
    "size, error, text",
    [
        (2**25, TruncatedError, "it is an incomplete file of torch.save"),
        (2**25 + 1, StateError, "it has more records than torch.save writes"),
    ],
)
def test_a_file_that_declares_very_many_records_is_refused(tmp_path, size, error, text):
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)
    (tmp_path / "a.pt").write_bytes(b"PK\3\4" + bytes(60) + end)
    with pytest.raises(StateError, match=text) as caught:
        read(tmp_path / "a.pt")
    assert error is caught.type


class Bytes:
    """Pickles as bytes do in protocol 2."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        import _codecs

        return _codecs.encode, (self.text, "latin1")


@pytest.mark.parametrize("text, kind", [("a" * 8, bytes), ("a" * 9, Inert), ("", bytes)])
def test_bytes_of_protocol_2_are_bytes_if_they_are_short(tmp_path, text, kind):
    assert kind is type(read(save_torch(Bytes(text), tmp_path / "a.pt")))


def test_one_long_text_named_many_times_is_not_copied(tmp_path):
    text = "a" * 1000
    found = read(save_torch([Bytes(text) for _ in range(3)], tmp_path / "a.pt"))
    assert 1 == len({id(record.arguments[0]) for record in found})


def garbled(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice([1, 2, 8])):
        place = draw.randrange(len(data))
        data[place : place + draw.choice([0, 1, 1, 9])] = draw.randbytes(draw.choice([0, 1, 1, 9]))
    return bytes(data)


def test_a_garbled_pickle_in_a_whole_archive_is_read_or_refused_and_nothing_else(tmp_path):
    tree = {"s": STATE, "n": torch.tensor(1), "m": np.float64(1), "w": torch.zeros(2)}
    with zipfile.ZipFile(save_torch(tree, tmp_path / "a.pt")) as archive:
        pickled = archive.read("a/data.pkl")
    draw = random.Random("a.pt")
    refused = 0
    for _ in range(500):
        archived(tmp_path / "b.pt", garbled(pickled, draw))
        try:
            trees.plain(read(tmp_path / "b.pt"))
        except StateError:
            refused += 1
    assert 100 < refused <= 500
