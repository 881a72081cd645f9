"""Placement: where texts find room, as plain geometry; lengths are in inches."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Point = tuple[float, float]
Width = Callable[[str], float]
"""What gives the width of a text."""

_DOT = 0.02
"""Between the points that stand for a curve."""
_AWAY = (0.07, 0.2, 0.35, 0.55, 0.8, 1.1)
"""From a point to a text about it."""
_RADIUS = 0.04
"""Of what marks a point."""
_LEAST = 3
"""Letters that are left of a name at least."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether they have some area in common.

        >>> Box(0, 0, 2, 2).overlaps(Box(1, 1, 3, 3)), Box(0, 0, 1, 1).overlaps(Box(1, 0, 2, 1))
        (True, False)
        """
        is_beside = self.left >= other.right or other.left >= self.right
        return not (is_beside or self.bottom >= other.top or other.bottom >= self.top)

    def holds(self, other: Box) -> bool:
        """Whether no part of the other is outside."""
        is_wide = self.left <= other.left and other.right <= self.right
        return is_wide and self.bottom <= other.bottom and other.top <= self.top


@dataclass(frozen=True, slots=True)
class Label:
    """A text about a point."""

    text: str
    point: Point
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A text that has found room, and the leader that joins it to its point."""

    label: Label
    box: Box

    @property
    def leader(self) -> tuple[Point, Point]:
        """From the point to the middle of the nearer side."""
        x = self.label.point[0]
        nearest = self.box.left if self.box.left > x else self.box.right
        return self.label.point, (nearest, (self.box.bottom + self.box.top) / 2)

    def clears(self, other: Placed) -> bool:
        """Whether neither's text nor leader is on the other's."""
        if self.box.overlaps(other.box) or _cross(self.leader, other.leader):
            return False
        return not (_enters(self.leader, other.box) or _enters(other.leader, self.box))


@dataclass(frozen=True, slots=True)
class _Ink:
    """Points all along lines, by column."""

    columns: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[Sequence[Point]]) -> _Ink:
        found: dict[int, set[float]] = {}
        for line in lines:
            for one, other in itertools.pairwise(line):
                number = max(math.ceil(math.dist(one, other) / _DOT), 1)
                for index in range(number):
                    x, y = (a + (b - a) * index / number for a, b in zip(one, other, strict=True))
                    found.setdefault(math.floor(x / _DOT), set()).add(round(y / _DOT) * _DOT)
        return cls({column: sorted(heights) for column, heights in found.items()})

    def under(self, box: Box) -> float:
        """Give about how many inches of the lines a box covers."""
        columns = range(math.floor(box.left / _DOT), math.ceil(box.right / _DOT))
        heights = (self.columns[column] for column in columns if column in self.columns)
        return _DOT * sum(
            bisect_left(one, box.top) - bisect_left(one, box.bottom) for one in heights
        )


def place(
    labels: Sequence[Label], obstacles: Iterable[Sequence[Point]], page: Box
) -> tuple[list[Placed], list[Label]]:
    """Find room for texts about points, where they cover little.

    No text is on another, on another's leader, or on a point.

    Args:
        labels: The texts, in order, which is turned round if more find room then.
        obstacles: Lines, as points that straight pieces join; better not covered.
        page: What every text stays in.

    Returns:
        The texts that found room, with their places, and those that did not.
    """
    ink, dots = _Ink.of(obstacles), [_around(label.point) for label in labels]
    tried = [_placed(order, ink, dots, page) for order in (labels, labels[::-1])]
    return min(tried, key=lambda found: len(found[1]))


def _placed(
    labels: Sequence[Label], ink: _Ink, dots: Sequence[Box], page: Box
) -> tuple[list[Placed], list[Label]]:
    """Find room for one text after another, in order."""
    placed: list[Placed] = []
    dropped: list[Label] = []
    for label in labels:
        free = (
            one
            for one in _candidates(label, page)
            if all(one.clears(other) for other in placed) and not _hides(one, dots)
        )
        best = min(free, key=lambda one: _cost(one, ink), default=None)
        if best is None:
            dropped.append(label)
        else:
            placed.append(best)
    return placed, [label for label in labels if label in dropped]


def _around(point: Point) -> Box:
    return Box(*(one - _RADIUS for one in point), *(one + _RADIUS for one in point))


def _candidates(label: Label, page: Box) -> Iterator[Placed]:
    (x, y), width, height = label.point, label.width, label.height
    for right, up in itertools.product(_AWAY, _AWAY):
        for left, low in itertools.product(
            (x + right, x - right - width), (y + up, y - up - height)
        ):
            box = Box(left, low, left + width, low + height)
            if page.holds(box):
                yield Placed(label, box)


def _hides(one: Placed, dots: Iterable[Box]) -> bool:
    """Whether a text is on a point, or its leader on one that is not beside its own."""
    own = _around(one.label.point)
    return any(
        one.box.overlaps(dot) or (_enters(one.leader, dot) and not dot.overlaps(own))
        for dot in dots
    )


def _cost(one: Placed, ink: _Ink) -> float:
    return 4 * ink.under(one.box) + 1.4 * math.dist(*one.leader)


def _cross(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two straight lines cross."""

    def side(line: tuple[Point, Point], point: Point) -> float:
        (ax, ay), (bx, by) = line
        return (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax)

    is_parted = side(one, other[0]) * side(one, other[1]) < 0
    return is_parted and side(other, one[0]) * side(other, one[1]) < 0


def _enters(line: tuple[Point, Point], box: Box) -> bool:
    """Whether some of a straight line is in a box: what each pair of sides leaves of it is cut."""
    (ax, ay), (bx, by) = line
    first, last = 0.0, 1.0
    for begin, length, low, high in (
        (ax, bx - ax, box.left, box.right),
        (ay, by - ay, box.bottom, box.top),
    ):
        if not length:
            if not low < begin < high:
                return False
            continue
        near, far = sorted([(low - begin) / length, (high - begin) / length])
        first, last = max(first, near), min(last, far)
    return first < last


@dataclass(frozen=True, slots=True)
class Written:
    """A name along a bar."""

    text: str
    left: float
    right: float


Bounds = tuple[float, float]
"""Where a part of a bar begins and ends."""


def along(
    names: Sequence[str], bounds: Sequence[Bounds], length: float, width_of: Width
) -> dict[int, Written]:
    """Write names along a bar: inside their part, else beside it, else their beginning inside.

    Args:
        names: Of the parts.
        bounds: Of the parts, in order.
        length: Of the bar.
        width_of: What measures a text.

    Returns:
        Those that found room, by their index.
    """
    parts = list(enumerate(zip(names, bounds, strict=True)))
    found = {index: one for index, part in parts for one in inside(*part, width_of)}
    neighbours = [(0.0, 0.0), *bounds, (length, length)]
    for index, (name, own) in parts:
        if index not in found:
            around = neighbours[index][0], neighbours[index + 2][1]
            choices = (*beside(name, own, around, width_of), *beginning(name, own, width_of))
            free = (
                one for one in choices if not any(_touch(one, other) for other in found.values())
            )
            found.update((index, one) for one in itertools.islice(free, 1))
    return found


def _touch(one: Written, other: Written) -> bool:
    return one.left <= other.right and other.left <= one.right


def inside(name: str, own: Bounds, width_of: Width) -> Iterator[Written]:
    """Write a name in the middle of its part, if that is wide enough."""
    width, middle = width_of(name), sum(own) / 2
    if width <= own[1] - own[0]:
        yield Written(name, middle - width / 2, middle + width / 2)


def beside(name: str, own: Bounds, around: Bounds, width_of: Width) -> Iterator[Written]:
    """Write a name in either of the neighbours, which reach as far as `around`."""
    width = width_of(f"◂ {name}")
    after, before = own[1] + 0.02, own[0] - 0.02 - width
    if after + width <= around[1]:
        yield Written(f"◂ {name}", after, after + width)
    if before >= around[0]:
        yield Written(f"{name} ▸", before, before + width)


def beginning(name: str, own: Bounds, width_of: Width) -> Iterator[Written]:
    """Write as much of a name's beginning as its part has room for."""
    for most in range(len(name) - 1, _LEAST - 1, -1):
        for one in inside(f"{name[:most]}…", own, width_of):
            yield one
            return


def folded(pieces: Iterable[str], room: float, width_of: Width) -> list[str]:
    """Join texts by a space to lines that are no wider than there is room.

    >>> folded(["one", "two", "three"], 8, len)
    ['one two', 'three']
    """
    lines: list[str] = []
    for piece in pieces:
        if lines and width_of(f"{lines[-1]} {piece}") <= room:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines
