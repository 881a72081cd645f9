"""Policies: who wins for each config entry where script and checkpoint differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dist_sched.errors import ConfigError
from dist_sched.rules import flag, illegal, listed, near_miss, optional, refuse

CHECKPOINT, CONFIG, STRICT = POLICY_WORDS = ("checkpoint", "config", "strict")
REST = "*"
_SHOWN = 12
"""Entries that an error names one by one."""

LINEAGE = "lineage"
"""The late changes that a checkpoint records; a policy may name them."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Who wins for each config entry where script and checkpoint differ."""

    words: Mapping[str, str]
    """A word for each entry, or for all whose paths begin so, with `"*"` for the rest."""

    @classmethod
    def parse(
        cls,
        policy: str | Mapping[str, str] | None,
        entry_names: tuple[str, ...],
        may_name: Callable[[str], bool],
        *,
        use_checkpoint: bool | None = True,
        override: bool | None = False,
    ) -> Policy:
        """Parse the `policy` argument, or else the seeds' two booleans.

        For `Config.parse_policy` only, which knows what a policy may name.

        Args:
            policy: A word, or a mapping from entries, or beginnings of their paths, to words.
            entry_names: The entries of the config.
            may_name: Whether a checkpoint may have an entry that the config lacks.
            use_checkpoint: The seeds' boolean.
            override: The seeds' boolean.

        Raises:
            ConfigError: An unknown entry or word, entries left without a word, or booleans that
                contradict each other or stand beside a policy.
        """
        booleans = ("use_checkpoint_opt_param_scheduler", "override_opt_param_scheduler")
        for name, value in zip(booleans, (use_checkpoint, override), strict=True):
            optional(flag)(name, value)
        if use_checkpoint and override:
            message = "both override and use-checkpoint are set."
            raise ConfigError(
                f"{message} Set one of {' and '.join(booleans)} to False, or use policy="
            )
        if policy is None:
            return cls({REST: CONFIG if override else CHECKPOINT if use_checkpoint else STRICT})
        if not use_checkpoint or override:
            raise ConfigError(
                f"policy={policy!r} replaces {' and '.join(booleans)}: leave those out"
            )
        words = {REST: policy} if isinstance(policy, str) else policy
        _check_words(words, entry_names, may_name)
        return cls(dict(words))

    def word(self, entry: str) -> str:
        """Give the word for an entry; what no word was given for follows the checkpoint."""
        named = [begun for begun in self.words if covers(begun, entry)]
        return self.words[max(named, key=len)] if named else self.words.get(REST, CHECKPOINT)

    def word_of_row(self, entry: str) -> str:
        """Give the word for a row of a report, which may stand for many entries.

        Words for its parts count where they agree; where they do not, or where a policy without
        `"*"` has none, the two sides must be equal: no side is taken that nobody chose.
        """
        parts = {word for begun, word in self.words.items() if covers(entry, begun)}
        if not parts and (REST in self.words or any(covers(one, entry) for one in self.words)):
            return self.word(entry)
        rest = {self.words[REST]} if REST in self.words and entry not in self.words else set()
        found = {self.words[entry]} if entry in self.words else parts | rest
        found = found or set(self.words.values())
        return found.pop() if len(found) == 1 else STRICT

    def of(self, entry_names: tuple[str, ...]) -> Policy:
        """Give the policy for other entries: without words for those that there are no more."""
        words = {
            begun: word
            for begun, word in self.words.items()
            if begun in {REST, LINEAGE} or any(covers(begun, name) for name in entry_names)
        }
        uncovered = [name for name in entry_names if not any(covers(one, name) for one in words)]
        if uncovered and REST not in words:
            words[REST] = self.word_of_row(REST)
        return Policy(words)

    def told(self) -> str | dict[str, str]:
        """Give what `parse` reads: one word where there is but one."""
        is_one = self.words.keys() == {REST}
        return self.words[REST] if is_one else dict(self.words)


def covers(begun: str, entry: str) -> bool:
    """Tell whether a name is an entry's, or the beginning of its path.

    >>> covers("lr", "lr.phases[0].steps"), covers("lr", "lr_decay_steps")
    (True, False)
    """
    return entry == begun or entry.startswith((f"{begun}.", f"{begun}["))


def _check_words(
    words: object, entry_names: tuple[str, ...], may_name: Callable[[str], bool]
) -> None:
    if not isinstance(words, Mapping):
        raise illegal("policy", words, f"must be one of {listed(POLICY_WORDS)} or a mapping")
    known = dict.fromkeys(name.partition(".")[0] for name in entry_names) | dict.fromkeys(
        entry_names
    )
    problems = [
        f"policy names {entry!r}, which is not an entry{near_miss(entry, known)}"
        for entry in words
        if entry not in {REST, LINEAGE}
        and not any(covers(entry, name) for name in entry_names)
        and not may_name(entry)
    ]
    unknown = [entry for entry, word in words.items() if word not in POLICY_WORDS]
    problems += [
        f"policy={words[entry]!r} for {entry!r}: must be one of {listed(POLICY_WORDS)}"
        + near_miss(words[entry], POLICY_WORDS)
        for entry in unknown
    ]
    unnamed = [entry for entry in entry_names if not any(covers(begun, entry) for begun in words)]
    if unnamed and REST not in words:
        more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        problems.append(
            f"policy has no word for {', '.join(unnamed[:_SHOWN])}{more}: name them, or add '*'"
        )
    refuse(problems)
