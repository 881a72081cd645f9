"""Files of `torch.save`: zip archives of a pickle and the data of its tensors."""

from __future__ import annotations

import functools
import struct
import zipfile
from typing import TYPE_CHECKING, Any

from dist_sched._rules import brief, shown
from dist_sched._storage import pickles
from dist_sched._storage.pickles import Inert, Name, TruncatedError
from dist_sched._storage.places import reading
from dist_sched._storage.trees import Leaf
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_sched._storage.places import Place

MAX_DIRECTORY = 2**25
"""Maximum size of an archive's directory in bytes. It needs ten times as much memory."""

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
"""Bytes in the first pickle of files from torch before 1.6."""

_TENSORS = ("Half", "Float", "Double", "Char", "Short", "Int", "Long", "Byte", "Bool")
_CODES = dict(zip([f"torch.{name}Storage" for name in _TENSORS], "efdbhiqB?", strict=True))
_NUMPY = ("f2", "f4", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_CODES |= dict(zip(_NUMPY, "efd?bhiqBHIQ", strict=True))
"""Codes of `struct` for torch's storages and numpy's dtypes."""


def read_file(place: Place, opened: Callable[[], Any]) -> Any:
    """Read a file of torch.save: its pickle, without the data of tensors.

    A tensor with a single number is a leaf, because it may be a position or a rate.

    Args:
        place: The place for error messages.
        opened: Opens the file, which may be a part of the place.

    Raises:
        TruncatedError: The file was not written to its end.
        StateError: It is not a file of torch.save, or has more than plain data.
    """

    def number(key: str, code: str, offset: int) -> Any:
        with reading(place), opened() as file, zipfile.ZipFile(file) as archive:
            data = _stored(archive, f"{folder}/data/{key}")
            return struct.unpack_from(code, data, offset * struct.calcsize(code))[0]

    with reading(place), opened() as file:
        head = file.read(64)
        if _LEGACY_MAGIC in head:
            raise StateError(
                "it was written by torch before 1.6, which is too old; load it with torch.load, "
                "and save it again with a newer torch"
            )
        if _ZIP_MAGIC.startswith(head):
            raise TruncatedError("it ends within its first bytes")
        if not head.startswith(_ZIP_MAGIC):
            raise StateError("it is not a file of torch.save: its first bytes are not a zip file's")
        try:
            # Checked first, because zipfile reads the directory when it opens an archive.
            end: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined] # noqa: SLF001
            if end and end[zipfile._ECD_SIZE] > MAX_DIRECTORY:  # type: ignore[attr-defined] # noqa: SLF001
                raise StateError("it has more records than torch.save writes")
            with zipfile.ZipFile(file) as archive:
                names = [name.partition("/") for name in archive.namelist()]
                folder = next((name for name, _, rest in names if rest == "data.pkl"), "")
                pickled = _stored(archive, f"{folder}/data.pkl")
        except zipfile.BadZipFile as error:
            # The directory of an archive is at its end, so a truncated file has none.
            reason = brief(str(error))
            raise TruncatedError(f"it is an incomplete file of torch.save: {reason}") from error
        return pickles.read(pickled, functools.partial(_recorded, number))


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a record of an archive."""
    record = archive.getinfo(name)
    # A few kilobytes can expand to gigabytes, and torch.save never compresses.
    if record.compress_type != zipfile.ZIP_STORED or record.file_size > pickles.MAX_SIZE:
        raise StateError(
            f"its record {shown(name)} is compressed, or has {record.file_size} bytes; torch.save "
            f"does not compress, and at most {pickles.MAX_SIZE} bytes can be read"
        )
    # After torch.serialization.set_crc32_options(False), checksums are zeros.
    record.CRC = record.CRC or None  # type: ignore[assignment]
    return archive.read(record)


def _recorded(number: Callable[[str, str, int], Any], name: str, arguments: tuple[Any, ...]) -> Any:
    """Return the result of a call in a pickle: a number, a leaf for a tensor, or a record.

    Args:
        number: Reads a number from the data of a tensor.
        name: Name of the called function.
        arguments: Arguments of the call.
    """
    match name, arguments:
        case (
            "torch._utils._rebuild_tensor_v2",
            (Inert(arguments=(_, Name(name=kind), str(key), *_)), int(offset), (), *_),
        ) if kind in _CODES:
            return Leaf(functools.partial(number, key, f"<{_CODES[kind]}", offset))
        case (
            "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
            (Inert(arguments=(str(kind), *_), state=state), bytes(value)),
        ) if kind in _CODES:
            order = ">" if isinstance(state, tuple) and ">" in state else "<"
            return struct.unpack(order + _CODES[kind], value)[0]
        # The bytes of a numpy number in protocol 2. Longer texts stay a record, because a pickle
        # could copy a long text a million times.
        case "_codecs.encode", (str(text), "latin1") if len(text) <= 8:  # noqa: PLR2004
            return text.encode("latin1")
    return Inert(name, arguments)
