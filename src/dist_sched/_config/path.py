"""Paths: the names of config entries in reports, policies and errors."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"[A-Za-z_]\w*(?:\[\d+\])?"
_FIELD = re.compile(_NAME)
# A pattern may contain brackets. It ends at the first "]" that a field or the end follows.
_PATH = re.compile(rf"groups\[(.+?)\](?:\.({_NAME}(?:\..*)?))?", re.DOTALL)
_PART = re.compile(r"[^.\[\]]+|\[[^\]]*\]")


def is_field_name(text: str) -> bool:
    """Return whether a text could be a field, such as `lr` or `betas[0]`."""
    return _FIELD.fullmatch(text) is not None


# A tuple, because a config can have hundreds of thousands of paths as keys.
class Path(NamedTuple):
    """The name of a field's entry or, with a pattern, of an override's entry.

    Examples:
        >>> str(Path("lr", ("phases", "[1]", "steps"))), str(Path("lr", pattern="embed*"))
        ('lr.phases[1].steps', 'groups[embed*].lr')
    """

    field: str
    """Such as `lr`, `betas[0]` or `max_lr`. Empty for all fields of a pattern."""
    parts: tuple[str, ...] = ()
    """Path within the schedule of the field. Empty for the whole schedule."""
    pattern: str | None = None
    """Pattern of the names of the groups that the override is for."""

    @classmethod
    def parse(cls, text: str) -> Path:
        """Parse a path of a policy. Every string is a path.

        Examples:
            >>> Path.parse("groups[block[0-9].*].lr.phases")
            Path(field='lr', parts=('phases',), pattern='block[0-9].*')
        """
        found = _PATH.fullmatch(text)
        pattern, rest = found.groups() if found else (None, text)
        field, dot, parts = (rest or "").partition(".")
        return cls(field, tuple(_PART.findall(parts)) if dot else (), pattern)

    def of(self, *parts: str | int) -> Path:
        """Return the path of a part of this entry. A whole number is an index."""
        more = [part if isinstance(part, str) else f"[{part}]" for part in parts]
        return Path(self.field, (*self.parts, *more), self.pattern)

    @property
    def base(self) -> Path:
        """The path of the field without a pattern."""
        return Path(self.field)

    def covers(self, other: Path) -> bool:
        """Return whether the other entry is this one, or a part of this one.

        Examples:
            >>> Path("lr").covers(Path.parse("lr.phases[0].steps"))
            True
            >>> Path("lr").covers(Path("lr_mult"))
            False
        """
        # Compared by parts: as a string, lr is a prefix of lr_mult. betas covers betas[0].
        mine, others = self.steps(), other.steps()
        return mine != () and others[: len(mine)] == mine

    def steps(self) -> tuple[str, ...]:
        """Return all parts, outermost first. A path that covers another is a prefix of it."""
        outer = () if self.pattern is None else ("groups", f"[{self.pattern}]")
        return (*outer, *_PART.findall(self.field), *self.parts)

    def __str__(self) -> str:
        text = "" if self.pattern is None else f"groups[{self.pattern}]"
        for part in (self.field, *self.parts):
            text += part if part.startswith("[") or not text or not part else f".{part}"
        return text
