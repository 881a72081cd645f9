"""What an entry of a config is called, in reports, policies and errors."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"[A-Za-z_]\w*(?:\[\d+\])?"
_FIELD = re.compile(_NAME)
# A pattern may have brackets itself. It ends at the first one that a field or nothing follows.
_PATH = re.compile(rf"groups\[(.+?)\](?:\.({_NAME}(?:\..*)?))?", re.DOTALL)
_PART = re.compile(r"[^.\[\]]+|\[[^\]]*\]")


def is_field_name(text: str) -> bool:
    """Return whether a text could be a field, such as `lr` or `betas[0]`."""
    return _FIELD.fullmatch(text) is not None


# A tuple, since a config can have hundreds of thousands, all of them keys.
class Path(NamedTuple):
    """The name of an entry: of a field or, with a pattern, of an override of that field.

    >>> str(Path("lr", ("phases", "[1]", "steps"))), str(Path("lr", pattern="embed*"))
    ('lr.phases[1].steps', 'groups[embed*].lr')
    """

    field: str
    """Such as `lr`, `betas[0]` or `max_lr`; empty where all fields of a pattern are meant."""
    parts: tuple[str, ...] = ()
    """What of its schedule is meant; all of it if empty."""
    pattern: str | None = None
    """Of the names of the groups that the override is for."""

    @classmethod
    def parse(cls, text: str) -> Path:
        """Read a path as people write it in a policy; every text is one.

        >>> Path.parse("groups[block[0-9].*].lr.phases")
        Path(field='lr', parts=('phases',), pattern='block[0-9].*')
        """
        found = _PATH.fullmatch(text)
        pattern, rest = found.groups() if found else (None, text)
        field, dot, parts = (rest or "").partition(".")
        return cls(field, tuple(_PART.findall(parts)) if dot else (), pattern)

    def of(self, *parts: str | int) -> Path:
        """Return the path of a part of this entry; a whole number is an index."""
        more = [part if isinstance(part, str) else f"[{part}]" for part in parts]
        return Path(self.field, (*self.parts, *more), self.pattern)

    @property
    def base(self) -> Path:
        """The path of the field whose schedule applies where groups have no override."""
        return Path(self.field)

    def covers(self, other: Path) -> bool:
        """Return whether this names another entry, or something that the other is a part of.

        >>> Path("lr").covers(Path.parse("lr.phases[0].steps")), Path("lr").covers(Path("lr_mult"))
        (True, False)
        """
        # By parts, not by text: lr is a beginning of lr_mult, and betas covers betas[0].
        mine, others = self.steps(), other.steps()
        return mine != () and others[: len(mine)] == mine

    def steps(self) -> tuple[str, ...]:
        """Return the parts from the outermost on, so that what covers is a beginning."""
        outer = () if self.pattern is None else ("groups", f"[{self.pattern}]")
        return (*outer, *_PART.findall(self.field), *self.parts)

    def __str__(self) -> str:
        text = "" if self.pattern is None else f"groups[{self.pattern}]"
        for part in (self.field, *self.parts):
            text += part if part.startswith("[") or not text or not part else f".{part}"
        return text
