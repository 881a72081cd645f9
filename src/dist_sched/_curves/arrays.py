"""Values of a schedule at many positions at once, with the bits of one call for each.

numpy adds, multiplies, divides and takes square roots as Python does, bit for bit. Its cosines and
powers may differ in the last bit, so these are computed one by one.
"""

from __future__ import annotations

import math
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dist_sched._curves.shapes import SHAPES
from dist_sched._rules import MAX_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dist_sched._curves.phases import Piece
    from dist_sched._rules import Number

_FEW = 32
"""Positions of a phase for which arrays are not worth it."""


def values(
    pieces: Sequence[Piece],
    boundaries: Sequence[Number],
    origins: Sequence[Number],
    horizon: Number,
    end_value: float,
    positions: Any,
) -> Any:
    """Return the values at an array of positions, or None if they must be computed one by one.

    Args:
        pieces: The shape of each phase.
        boundaries: Where each phase begins.
        origins: Where the shape of each phase begins.
        horizon: Where the last phase ends.
        end_value: The value there and after it.
        positions: A flat numpy array.
    """
    import numpy as np

    if positions.size < _FEW or positions.dtype.kind not in "iuf":
        return None
    if not (positions.min() >= 0 and positions.max() <= MAX_LENGTH):
        return None
    # Phases are then slices. Whole positions stay whole, because so are differences of them.
    places = positions.astype(float if positions.dtype.kind == "f" else np.int64)
    order = None if bool((places[1:] >= places[:-1]).all()) else np.argsort(places, kind="stable")
    if order is not None:
        places = places[order]
    found = np.full(places.size, end_value)
    inside = int(np.searchsorted(places, horizon))
    first, last = np.searchsorted(boundaries, places[[0, max(inside - 1, 0)]], "right") - 1
    cuts = np.searchsorted(places, boundaries[int(first) : int(last) + 1]).tolist()
    for index, (begin, end) in enumerate(pairwise([*cuts, inside]), start=int(first)):
        if begin < end:
            units = places[begin:end] - origins[index]
            found[begin:end] = _of_piece(pieces[index], units)
    if order is None:
        return found
    unordered = np.empty_like(found)
    unordered[order] = found
    return unordered


def _of_piece(piece: Piece, units: Any) -> Any:
    """Return the values of a shape at rising numbers of units."""
    import numpy as np

    fall = _FALLS.get(piece.law)
    is_plain = not piece.parameters or dict(piece.parameters) == {"exponent": 1.0}
    if fall is None or not is_plain or units.size < _FEW:
        return [piece(one) for one in units.tolist()]
    start, end = piece.start, piece.end
    found = end + fall(units / piece.steps) * (start - end)
    low, high = min(start, end), max(start, end)
    found[found < low] = low
    found[found > high] = high
    # The same ends as in a call. Units rise.
    found[: np.searchsorted(units, 0, "right")] = start
    found[np.searchsorted(units, piece.steps) :] = end
    return found


def _linear(progress: Any) -> Any:
    return 1.0 - progress


def _cosine(progress: Any) -> Any:
    import numpy as np

    # An array's floats are made one at a time, which is faster than a list of all of them.
    angles = array("d")
    angles.frombytes((math.pi * progress).tobytes())
    return 0.5 * (np.fromiter(map(math.cos, angles), float, len(angles)) + 1.0)


def _minus_sqrt(progress: Any) -> Any:
    import numpy as np

    return 1.0 - np.sqrt(progress)


_FALLS: dict[Callable[..., float], Callable[[Any], Any]] = {
    SHAPES["linear"].law: _linear,
    SHAPES["cosine"].law: _cosine,
    SHAPES["minus_sqrt"].law: _minus_sqrt,
    # Any fall, because the start is the end.
    SHAPES["constant"].law: _linear,
}
"""The coefficient of an array, by the law of a shape."""
