"""Buffers: one copy writes many tensors.

To fill a tensor takes about a microsecond, or a kernel on a GPU. Therefore the tensors of one
field, dtype and device become views of one buffer. The tensor objects stay the same objects, and
only their addresses change.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIN_TENSORS = 16
"""Fewer tensors are filled one by one."""
_ALIGNMENT = 16
"""Bytes from one tensor to the next, because compiled kernels copy tensors that are not aligned."""
_DEVICES = frozenset({"cpu", "cuda"})
_COMPARED = frozenset({"cpu"})
"""Devices whose values are compared to find what something else has written. That is faster than
to compare versions, but elsewhere reading a value would wait for the device."""

_versions_of = attrgetter("_version")


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a tensor in a buffer."""

    buffer: Buffer
    index: int

    def holds(self, tensor: torch.Tensor) -> bool:
        """Return whether the tensor is still there, because a user may have moved it."""
        return tensor.data_ptr() == self.buffer.addresses[self.index]


class Buffer:
    """The memory of several tensors of one dtype and device.

    Args:
        tensors: Tensors whose memory nothing else uses. They are moved into the buffer.
    """

    __slots__ = ("_column", "_last", "_numbers", "_versions", "addresses", "numbers", "tensors")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        first = tensors[0]
        distance = max(1, _ALIGNMENT // first.element_size())
        memory = torch.empty((len(tensors), distance), dtype=first.dtype, device=first.device)
        self._column = memory[:, 0]
        self._column.copy_(torch.stack([tensor.detach().reshape(()) for tensor in tensors]))
        self._last = self._column.clone() if first.device.type in _COMPARED else None
        """What the tensors held after the last write, where values are compared."""
        self.numbers = array("d", bytes(8 * len(tensors)))
        """The numbers that `write` copies into the tensors. They share memory with a tensor."""
        self._numbers = torch.frombuffer(self.numbers, dtype=torch.float64)
        self._numbers.copy_(self._column)
        self.tensors = [*tensors]
        for index, tensor in enumerate(tensors):
            tensor.data = memory[index, 0].view(tensor.shape)
        self.addresses = [tensor.data_ptr() for tensor in tensors]
        self._versions = [*map(_versions_of, tensors)]

    def part(self, indices: Sequence[int]) -> torch.Tensor | None:
        """Return the numbers at some indices as a tensor, if they are adjacent."""
        start, end = indices[0], indices[-1] + 1
        return self._numbers[start:end] if [*indices] == [*range(start, end)] else None

    def forget(self, index: int) -> None:
        """Stop watching a tensor that was released."""
        self.tensors[index], self._versions[index] = torch.empty(0, device="cpu"), 0

    def write(self) -> None:
        """Copy the numbers into the tensors, without waiting for the device."""
        # The source is not pinned, so that it can be changed while a copy is under way.
        self._column.copy_(self._numbers, non_blocking=True)
        if self._last is not None:
            self._last.copy_(self._column)

    def changed(self) -> int | None:
        """Return the index of a tensor that something else has written since the last call."""
        if self._last is not None:
            if torch.equal(self._last, self._column):
                return None
            return int((self._last != self._column).nonzero()[0])
        versions = [*map(_versions_of, self.tensors)]
        if versions == self._versions:
            return None
        pairs = zip(versions, self._versions, strict=True)
        index = next(index for index, (now, before) in enumerate(pairs) if now != before)
        self._versions = versions
        return index


def move(tensors: Iterable[torch.Tensor], slots: dict[int, Slot]) -> None:
    """Move tensors into new buffers, where at least `MIN_TENSORS` have one dtype and device.

    Args:
        tensors: Tensors, which may be in a buffer already.
        slots: The place of each moved tensor by its identity, to which the new ones are added.
    """
    by_kind: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        if id(tensor) not in slots and _can_move(tensor):
            by_kind.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in by_kind.values():
        if len(alike) >= MIN_TENSORS:
            with torch.inference_mode(False):
                buffer = Buffer(alike)
            slots.update((id(one), Slot(buffer, index)) for index, one in enumerate(alike))


def release(tensor: torch.Tensor, slots: dict[int, Slot]) -> None:
    """Give a tensor memory of its own again, because its buffer will still be written."""
    slot = slots.pop(id(tensor), None)
    if slot is None:
        return
    slot.buffer.forget(slot.index)
    if slot.holds(tensor):
        tensor.data = tensor.detach().clone()


def _can_move(tensor: torch.Tensor) -> bool:
    """Return whether nothing else uses a tensor's memory. A view of it would be cut off."""
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type in _DEVICES
        and tensor.layout == torch.strided
        and not tensor.requires_grad
        and not tensor.is_inference()
        and not (tensor.device.type == "cpu" and tensor.untyped_storage().is_shared())
        and _num_users(tensor) == _num_users(torch.empty(1, device="cpu"))
    )


def _num_users(tensor: torch.Tensor) -> float:
    """Return how many objects use a tensor's memory, or NaN if torch does not count."""
    count = getattr(torch._C, "_storage_Use_Count", None)  # noqa: SLF001 - not public in torch
    return math.nan if count is None else count(tensor.untyped_storage()._cdata)  # noqa: SLF001
