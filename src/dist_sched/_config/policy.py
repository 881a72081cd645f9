"""The policy: who wins for each config entry where script and checkpoint differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from dist_sched._config.history import HISTORY
from dist_sched._config.path import Path
from dist_sched._rules import flag, illegal, listed, near_miss, optional, refuse, shown
from dist_sched.errors import ConfigError

CHECKPOINT, CONFIG, STRICT = POLICY_WORDS = ("checkpoint", "config", "strict")
REST = "*"
UNIT = "unit"
"""Not an entry: `"config"` alone is its word, and no other entry's word covers it."""
_SHOWN = 12
"""Entries that an error names one by one."""
BOOLEANS = ("use_checkpoint_opt_param_scheduler", "override_opt_param_scheduler")


@dataclass(frozen=True, slots=True)
class Policy:
    """Who wins for each config entry where script and checkpoint differ."""

    words: Mapping[str, str]
    """A word for each entry, or for all whose paths begin so, with `"*"` for the rest; and
    `"unit"`, by which a position may be relabelled."""
    _by_path: Mapping[Path, str] = field(init=False, repr=False, compare=False)
    _by_steps: Mapping[tuple[str, ...], list[Path]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_path = {
            Path.parse(str(name)): word
            for name, word in self.words.items()
            if name not in {REST, UNIT}
        }
        by_steps: dict[tuple[str, ...], list[Path]] = {}
        for path in by_path:
            by_steps.setdefault(path.steps(), []).append(path)
        object.__setattr__(self, "_by_path", by_path)
        object.__setattr__(self, "_by_steps", by_steps)

    def word(self, entry: Path) -> str:
        """Return the word for an entry; the checkpoint's where the policy has none."""
        paths = self.covering(entry)
        if not paths:
            return self.words.get(REST, CHECKPOINT)
        # The longest path says most: a word for lr.phases[1] beats one for lr.
        return self._by_path[max(paths, key=lambda path: len(str(path)))]

    def covering(self, entry: Path) -> list[Path]:
        """Return what the policy names that is the entry, or that the entry is a part of."""
        # By beginnings, not path by path: a policy may be long, and a config have many entries.
        return [
            path for beginning in _beginnings(entry) for path in self._by_steps.get(beginning, ())
        ]

    def word_of_row(self, entry: Path) -> str:
        """Return the word for a row of a report, which may stand for many entries.

        Words for its parts count where they agree. Where they do not, or where a policy without
        `"*"` has none, the two sides must be equal: no side wins that nobody chose.
        """
        rest = self.words.get(REST)
        if rest is not None and not self._by_path:
            return rest
        covering = self.covering(entry)
        # By what they cover, not by equality: `my.lr` is read as a part of `my`.
        for path in covering:
            if entry.covers(path):
                return self._by_path[path]
        parts = {word for path, word in self._by_path.items() if entry.covers(path)}
        if not parts and (rest is not None or covering):
            return self.word(entry)
        found = parts if rest is None else {*parts, rest}
        found = found or set(self._by_path.values())
        return found.pop() if len(found) == 1 else STRICT

    @property
    def relabels(self) -> bool:
        """Whether a checkpoint's position is taken as one in the config's unit."""
        return self.words.get(UNIT) == CONFIG

    def is_all(self, word: str) -> bool:
        """Return whether every entry has one word."""
        return {name: one for name, one in self.words.items() if name != UNIT} == {REST: word}

    def restricted_to(self, entries: Collection[Path]) -> Policy:
        """Return the policy without words for what is not among these entries."""
        covered = {beginning for entry in entries for beginning in _beginnings(entry)}
        words = {
            name: self.words[name]
            for name in self.words
            if name in {REST, HISTORY, UNIT} or Path.parse(name).steps() in covered
        }
        # What has lost its word must not get the checkpoint's by default.
        if REST not in words and not all(map(Policy(words).covering, entries)):
            words[REST] = self.word_of_row(Path(REST))
        return Policy(words)

    def to_dict(self) -> str | dict[str, str]:
        """Return what `parse` reads: one word where that is all."""
        return self.words[REST] if self.words.keys() == {REST} else dict(self.words)


def _beginnings(entry: Path) -> Iterator[tuple[str, ...]]:
    """Yield the steps of every path that covers an entry, the shortest first."""
    steps = entry.steps()
    yield from (steps[:count] for count in range(1, len(steps) + 1))


def parse(
    policy: str | Mapping[str, str] | None,
    entries: Callable[[], Collection[Path]],
    may_name: Callable[[Path], bool],
    *,
    use_checkpoint: bool | None = True,
    override: bool | None = False,
) -> Policy:
    """Parse the `policy` argument, or else Megatron's two booleans.

    For `Config.parse_policy` alone, which knows what a policy may name.

    Args:
        policy: A word, or a mapping from entries, or beginnings of their paths, to words. One that
            has `"unit"` alone has the checkpoint's word for the entries.
        entries: Returns the entries of the config.
        may_name: Whether a checkpoint may have an entry that the config lacks.
        use_checkpoint: Megatron's boolean.
        override: Megatron's boolean.

    Raises:
        ConfigError: An unknown entry or word, entries left without a word, or booleans that
            contradict each other or stand beside a policy.
    """
    # Megatron asks only whether they are true, so None is False.
    for name, value in zip(BOOLEANS, (use_checkpoint, override), strict=True):
        optional(flag)(name, value)
    if use_checkpoint and override:
        # Callers that come from Megatron look for its words.
        raise ConfigError(
            "both override and use-checkpoint are set. Set one of "
            f"{' and '.join(BOOLEANS)} to False, or use policy="
        )
    if policy is None:
        return Policy({REST: CONFIG if override else CHECKPOINT if use_checkpoint else STRICT})
    if not use_checkpoint or override:
        raise ConfigError(
            f"policy={shown(policy)} replaces {' and '.join(BOOLEANS)}: leave those out"
        )
    words = {REST: policy} if isinstance(policy, str) else policy
    if not isinstance(words, Mapping):
        raise illegal("policy", words, f"must be one of {listed(POLICY_WORDS)} or a mapping")
    found = Policy({**words, REST: CHECKPOINT} if words.keys() == {UNIT} else dict(words))
    # A config may have very many, and a policy without names needs none.
    has_names = found.words.keys() - {HISTORY, UNIT} != {REST}
    refuse(_problems(found, entries() if has_names else (), may_name))
    return found


def _problems(
    policy: Policy, entries: Collection[Path], may_name: Callable[[Path], bool]
) -> Iterator[str]:
    covered = {beginning for entry in entries for beginning in _beginnings(entry)}
    known = dict.fromkeys(
        str(path) for entry in entries for path in (Path(entry.field, (), entry.pattern), entry)
    )
    has_typo = False
    for name in policy.words:
        path = Path.parse(str(name))
        is_entry = path.steps() in covered or may_name(path)
        # A text such as "lr." is read as lr, but it is not its name.
        if name not in {REST, HISTORY, UNIT} and (str(path) != name or not is_entry):
            has_typo = True
            close = near_miss(name, [*known, HISTORY, UNIT])
            yield f"policy names {shown(name)}, which is not an entry{close}"
    for name, word in policy.words.items():
        if word not in POLICY_WORDS:
            rule = f"must be one of {listed(POLICY_WORDS)}{near_miss(word, POLICY_WORDS)}"
            yield f"policy={shown(word)} for {shown(name)}: {rule}"
    if policy.words.get(UNIT) == CHECKPOINT:
        yield (
            "policy='checkpoint' for 'unit': must be 'config' or 'strict', as increments are "
            "counted in the scheduler's own unit: build it with the checkpoint's unit="
        )
    unnamed = [one for one in entries if not policy.covering(one)]
    if unnamed and REST not in policy.words:
        # What the misspelt name was meant for is among those that have no word.
        more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        names = f"{', '.join(map(str, unnamed[:_SHOWN]))}{more}"
        what = "the rest: add '*'" if has_typo else f"{names}: name them, or add '*'"
        yield f"policy has no word for {what}"
