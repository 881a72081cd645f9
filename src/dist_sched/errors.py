"""The four errors that callers may want to catch.

`ConfigError` and `ReconcileError` are also `AssertionError`s, because code written for Megatron-LM
catches that class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_sched._state.report import Reconciliation

__all__ = ["ConfigError", "RankMismatchError", "ReconcileError", "StateError"]

_LONGEST = 4_000
"""Maximum length of a message in characters, since it may quote names from files."""


class _Brief(Exception):  # noqa: N818 - the base of the four errors
    """An exception that cuts long messages."""

    def __init__(self, *args: object) -> None:
        super().__init__(*map(_cut, args))


def _cut(part: object) -> object:
    is_long = isinstance(part, str) and len(part) > _LONGEST
    # The end stays, since it says what to do.
    half = (_LONGEST - 5) // 2
    return f"{part[:half]} ... {part[-half:]}" if is_long else part  # type: ignore[index] # a text


class ConfigError(_Brief, ValueError, AssertionError):
    """A config entry or an argument is invalid. The message has the entry, its value and the rule.

    Also a `ValueError` and an `AssertionError`.
    """


class ReconcileError(_Brief, ValueError, AssertionError):
    """The config and the checkpoint cannot be reconciled. Nothing was loaded.

    Also a `ValueError` and an `AssertionError`.
    """

    reconciliation: Reconciliation | None
    """The comparison of every entry, including the equal ones, with the refused outcome."""
    reasons: tuple[str, ...]
    """The reasons for the refusal, one sentence each."""

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
    """A checkpoint state cannot be used.

    It is missing, malformed, at another position than expected, or was saved by a newer version.
    The message has the key. Also a `ValueError`.
    """


class RankMismatchError(_Brief, RuntimeError):
    """Ranks disagree about the config, the position or the written values.

    Every rank raises the same error. Also a `RuntimeError`.
    """

    ranks: dict[int, Any]
    """What each rank had, by rank."""

    def __init__(self, message: str, ranks: dict[int, Any] | None = None) -> None:
        super().__init__(message)
        self.ranks = ranks or {}
