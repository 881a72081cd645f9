"""Completion: what bash needs beside what click does, since bash breaks words at `=`."""

from __future__ import annotations

from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class

_BREAK = "="


class _Bash(BashComplete):
    """Puts together what bash has broken, and gives what stands behind the last break."""

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        self._is_broken = True
        if incomplete == _BREAK and args:
            return args[:-1], args[-1] + _BREAK
        if args[-1:] == [_BREAK] and len(args) > 1:
            return args[:-2], f"{args[-2]}{_BREAK}{incomplete}"
        self._is_broken = False
        return args, incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = item.value.rpartition(_BREAK)[2] if self._is_broken else item.value
        return f"{item.type},{value}"


def register() -> None:
    """Have it used for bash."""
    add_completion_class(_Bash)
