"""The policy: who wins for each config entry if script and checkpoint differ."""

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
"""A key of a policy that is not an entry. No other key covers it."""
_SHOWN = 12
"""Maximum number of entries that an error lists."""
BOOLEANS = ("use_checkpoint_opt_param_scheduler", "override_opt_param_scheduler")


@dataclass(frozen=True, slots=True)
class Policy:
    """Who wins for each config entry if script and checkpoint differ."""

    words: Mapping[str, str]
    """The policy of each entry, or of all entries with this beginning, with `"*"` for the rest.
    `"unit"` may allow relabelling a position."""
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
        """Return the policy of an entry, `"checkpoint"` by default."""
        paths = self.covering(entry)
        if not paths:
            return self.words.get(REST, CHECKPOINT)
        # The longest path is the most specific one: lr.phases[1] has precedence over lr.
        return self._by_path[max(paths, key=lambda path: len(str(path)))]

    def covering(self, entry: Path) -> list[Path]:
        """Return the paths of the policy that are the entry, or that contain it."""
        # Looked up by prefix, because both a policy and a config may have many entries.
        return [
            path for beginning in _beginnings(entry) for path in self._by_steps.get(beginning, ())
        ]

    def word_of_row(self, entry: Path) -> str:
        """Return the policy of a row of a report, which may stand for several entries.

        If the entries of the row have the same policy, that is the row's policy. Otherwise, and if
        a policy without `"*"` does not cover them, the row is `"strict"`.
        """
        rest = self.words.get(REST)
        if rest is not None and not self._by_path:
            return rest
        covering = self.covering(entry)
        # Not by equality: `my.lr` is parsed as a part of `my`.
        for path in covering:
            if entry.covers(path):
                return self._by_path[path]
        parts = {word for path, word in self._by_path.items() if entry.covers(path)}
        if not parts and (rest is not None or covering):
            return self.word(entry)
        found = parts if rest is None else {*parts, rest}
        found = found or set(self._by_path.values())
        return found.pop() if len(found) == 1 else STRICT

    def without_effect(self, entries: Collection[Path]) -> list[str]:
        """Return the names that neither are, contain, nor are part of any of these entries."""
        if self._by_path.keys() <= {Path(HISTORY)}:
            return []  # of the entries there may be very many
        covered = _covering(entries)
        whole = {entry.steps() for entry in entries}
        return [
            str(path)
            for path in self._by_path
            if path != Path(HISTORY)
            and path.steps() not in covered
            and whole.isdisjoint(_beginnings(path))
        ]

    @property
    def relabels(self) -> bool:
        """Whether a checkpoint's position is relabelled to the config's unit."""
        return self.words.get(UNIT) == CONFIG

    def is_all(self, word: str) -> bool:
        """Return whether every entry has this policy."""
        return {name: one for name, one in self.words.items() if name != UNIT} == {REST: word}

    def restricted_to(self, entries: Collection[Path]) -> Policy:
        """Return the policy for these entries only."""
        covered = _covering(entries)
        words = {
            name: self.words[name]
            for name in self.words
            if name in {REST, HISTORY, UNIT} or Path.parse(name).steps() in covered
        }
        # Entries that lost their policy must not get "checkpoint" by default.
        if REST not in words and not all(map(Policy(words).covering, entries)):
            words[REST] = self.word_of_row(Path(REST))
        return Policy(words)

    def to_dict(self) -> str | dict[str, str]:
        """Return the policy as `parse` reads it: a string if all entries have the same one."""
        return self.words[REST] if self.words.keys() == {REST} else dict(self.words)


def _covering(entries: Collection[Path]) -> set[tuple[str, ...]]:
    """Return the parts of every path that covers one of these entries."""
    return {beginning for entry in entries for beginning in _beginnings(entry)}


def _beginnings(entry: Path) -> Iterator[tuple[str, ...]]:
    """Yield the parts of every path that covers an entry, shortest first."""
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

    Only `Config.parse_policy` calls it, because a config knows its entries.

    Args:
        policy: `"checkpoint"`, `"config"` or `"strict"`, or a mapping from entries, or beginnings
            of their paths, to these words. With the key `"unit"` alone, all entries are
            `"checkpoint"`.
        entries: Returns the entries of the config.
        may_name: Whether a checkpoint may have an entry that the config lacks.
        use_checkpoint: Megatron's boolean.
        override: Megatron's boolean.

    Raises:
        ConfigError: An entry or a word is unknown, entries have no policy, or booleans contradict
            each other or the policy.
    """
    # Megatron only tests whether they are true, so None is False.
    for name, value in zip(BOOLEANS, (use_checkpoint, override), strict=True):
        optional(flag)(name, value)
    if use_checkpoint and override:
        # Megatron's own message, which its users may search for.
        raise ConfigError(
            "both override and use-checkpoint are set. Set one of "
            f"{' and '.join(BOOLEANS)} to False, or use policy="
        )
    if policy is None:
        return Policy({REST: CONFIG if override else CHECKPOINT if use_checkpoint else STRICT})
    if not use_checkpoint or override:
        raise ConfigError(
            f"policy={shown(policy)} replaces {' and '.join(BOOLEANS)}; remove these two"
        )
    words = {REST: policy} if isinstance(policy, str) else policy
    if not isinstance(words, Mapping):
        raise illegal("policy", words, f"must be one of {listed(POLICY_WORDS)} or a mapping")
    found = Policy({**words, REST: CHECKPOINT} if words.keys() == {UNIT} else dict(words))
    # A policy without names does not need the entries, of which there may be very many.
    has_names = found.words.keys() - {HISTORY, UNIT} != {REST}
    refuse(_problems(found, entries() if has_names else (), may_name))
    return found


def _problems(
    policy: Policy, entries: Collection[Path], may_name: Callable[[Path], bool]
) -> Iterator[str]:
    covered = _covering(entries)
    known = dict.fromkeys(
        str(path) for entry in entries for path in (Path(entry.field, (), entry.pattern), entry)
    )
    has_typo = False
    for name in policy.words:
        path = Path.parse(str(name))
        is_entry = path.steps() in covered or may_name(path)
        # A string such as "lr." is parsed as lr, but it is not the name of an entry.
        if name not in {REST, HISTORY, UNIT} and (str(path) != name or not is_entry):
            has_typo = True
            close = near_miss(name, [*known, HISTORY, UNIT])
            yield f"policy has the key {shown(name)}, which is not an entry{close}"
    for name, word in policy.words.items():
        found: object = word
        # The comparison of an array with a word is neither true nor false.
        if not isinstance(found, str) or found not in POLICY_WORDS:
            rule = f"must be one of {listed(POLICY_WORDS)}{near_miss(word, POLICY_WORDS)}"
            yield f"policy={shown(word)} for {shown(name)}: {rule}"
    if policy.words.get(UNIT) == CHECKPOINT:
        yield (
            "policy='checkpoint' for 'unit': must be 'config' or 'strict'; to use the checkpoint's "
            "unit, build the scheduler with unit= and count increments in it"
        )
    unnamed = [one for one in entries if not policy.covering(one)]
    if unnamed and REST not in policy.words:
        # With a misspelt key, the entry that was meant is among the entries without a policy.
        more = f" and {len(unnamed) - _SHOWN} more" if len(unnamed) > _SHOWN else ""
        names = f"{', '.join(map(str, unnamed[:_SHOWN]))}{more}"
        what = "the other entries; add '*'" if has_typo else f"{names}; add these entries, or '*'"
        yield f"policy does not cover {what}"
