"""The four errors that callers may want to catch; the package raises no other on purpose.

Two of them are an `AssertionError` as well, because callers that come from Megatron-LM catch that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_sched._state.report import Reconciliation

__all__ = ["ConfigError", "RankMismatchError", "ReconcileError", "StateError"]

_LONGEST = 4_000
"""Characters of a message, at most: it may quote names that a file or a checkpoint has."""


class _Brief(Exception):  # noqa: N818 - what the errors have in common
    """An exception whose texts are cut, whatever they quote."""

    def __init__(self, *args: object) -> None:
        super().__init__(*map(_cut, args))


def _cut(part: object) -> object:
    is_long = isinstance(part, str) and len(part) > _LONGEST
    # The end stays, since it says what to do.
    half = (_LONGEST - 5) // 2
    return f"{part[:half]} ... {part[-half:]}" if is_long else part  # type: ignore[index] # a text


class ConfigError(_Brief, ValueError, AssertionError):
    """An illegal config or argument; the message names the entry, its value and the rule."""


class ReconcileError(_Brief, ValueError, AssertionError):
    """Config and checkpoint cannot be reconciled, and nothing was loaded."""

    reconciliation: Reconciliation | None
    """All rows, the equal ones too, with the outcome that was refused."""
    reasons: tuple[str, ...]
    """Why it was refused: one sentence for each cause."""

    def __init__(
        self,
        message: str,
        reconciliation: Reconciliation | None = None,
        reasons: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reconciliation = reconciliation
        self.reasons = reasons


class StateError(_Brief, ValueError):
    """Checkpoint state that is malformed, missing, misplaced or too new; names the key."""


class RankMismatchError(_Brief, RuntimeError):
    """Ranks disagree about config, position or written values; raised on every rank alike."""

    ranks: dict[int, Any]
    """What each rank had."""

    def __init__(self, message: str, ranks: dict[int, Any] | None = None) -> None:
        super().__init__(message)
        self.ranks = ranks or {}
