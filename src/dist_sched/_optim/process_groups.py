"""Process groups: the only code that checks whether there is one."""

from __future__ import annotations

import contextlib
import logging
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch.distributed as dist

from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.distributed import ProcessGroup

logger = logging.getLogger("dist_sched")

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")

_OURS: tuple[type[Exception], ...] = (ConfigError, ReconcileError, StateError, RankMismatchError)
_KINDS = {kind.__name__: kind for kind in _OURS}
"""Errors that all ranks raise if one of them would."""
_MOST_LINES = 8
"""Maximum number of reasons in an error, each with its ranks."""
_MOST_RANKS = 8


def check(process_group: ProcessGroup | None) -> None:
    """Check that this rank is in a process group.

    Raises:
        ConfigError: It is not a process group, or this rank is not in it.
    """
    # torch returns this object to non-members. With it, collectives only warn and return.
    outside: object = dist.GroupMember.NON_GROUP_MEMBER if dist.is_available() else ...
    if process_group is outside:
        raise ConfigError(
            "process_group: this rank is not in it; build the scheduler on its ranks only"
        )
    if not (process_group is None or isinstance(process_group, dist.ProcessGroup)):
        raise ConfigError(
            f"process_group={process_group!r}: must be a ProcessGroup; for a device mesh, pass "
            "mesh.get_group(dimension)"
        )


def rank(process_group: ProcessGroup | None = None) -> int:
    """Return this process's rank in a group, by default the default group, or 0 without one."""
    return dist.get_rank(process_group) if _is_one_of_many() else 0


def size(process_group: ProcessGroup | None = None) -> int:
    """Return the number of ranks of a group, by default the default group, or 1 without one."""
    return dist.get_world_size(process_group) if _is_one_of_many() else 1


@dataclass(frozen=True, slots=True)
class Vote(Generic[R]):
    """One rank's answer whether it can apply an outcome."""

    problem: str | None
    """Why it cannot apply the outcome, or None if it can."""
    kind: str
    """The class of this error."""
    report: R | None
    """The rank's information for other ranks, or None if it cannot apply the outcome."""


def agree(
    decision: Callable[[], T],
    prepare: Callable[[T], tuple[P, R]],
    process_group: ProcessGroup | None = None,
    *,
    about: str,
    local: bool = False,
) -> tuple[T, P, list[R]]:
    """Decide on a group's first rank, and prepare the outcome on every rank, without applying it.

    The result or the error of the decision is broadcast. Then one gather tells whether every rank
    can apply it. Either all ranks return, or all raise the same error. Every rank of the group must
    call this. With gloo, a broadcast that only some ranks join may be received by a later one.

    Args:
        decision: Called on the first rank only.
        prepare: Returns the prepared outcome, and information for the other ranks. It may raise,
            and must not change anything.
        process_group: The group. If None, the default group. Without one, this process decides.
        about: The subject of the agreement, for errors of a backend.
        local: Decide on this rank, without communication.

    Returns:
        The outcome, the prepared outcome of this rank, and the information from each rank.

    Raises:
        BaseException: The error of the decision, on every rank. Or, if some ranks cannot apply the
            outcome, one error with ranks and reasons.
    """
    if local or not _is_one_of_many():
        outcome = decision()
        prepared, report = prepare(outcome)
        return outcome, prepared, [report]
    failed: list[BaseException] = []
    """The first rank's own error, whose traceback cannot be sent."""
    sent: list[Any] = [Sent.of(decision, failed) if rank(process_group) == 0 else None]
    # A broadcast wants the global rank of the group's first one.
    first = 0 if process_group is None else dist.get_global_rank(process_group, 0)
    with _named(about, process_group):
        dist.broadcast_object_list(sent, src=first, group=process_group)

    def take() -> tuple[tuple[T, P], R]:
        # Sent as bytes, because an object that cannot be unpickled would raise in the broadcast.
        outcome = sent[0].value()
        prepared, report = prepare(outcome)
        return (outcome, prepared), report

    found, votes = _votes(take, process_group, about)
    if sent[0].problem is not None:
        raise _common_error(sent[0], votes) from (failed[0] if failed else None)
    _refuse(votes)
    return (*found[0], [cast("R", vote.report) for vote in votes])


def prepared(
    prepare: Callable[[], tuple[P, R]], process_group: ProcessGroup | None = None, *, about: str
) -> tuple[P, list[R]]:
    """Prepare an outcome that every rank has decided alike, without applying it.

    Raises:
        BaseException: As for `agree`.
    """
    if not _is_one_of_many():
        mine, report = prepare()
        return mine, [report]
    found, votes = _votes(prepare, process_group, about)
    _refuse(votes)
    return found[0], [cast("R", vote.report) for vote in votes]


def gather(
    make: Callable[[], T], process_group: ProcessGroup | None = None, *, about: str
) -> list[Sent[T]]:
    """Return every rank's value on every rank of a group, in the order of ranks. Collective.

    Args:
        make: Returns this rank's value.
        process_group: The group. If None, the default group.
        about: The purpose, for errors of a backend.

    Raises:
        BaseException: As for `agree`, if `make` raises on some rank.
    """
    mine = Sent.of(make)
    if not _is_one_of_many():
        return [mine]
    gathered: list[Any] = [None] * dist.get_world_size(process_group)
    with _named(about, process_group):
        dist.all_gather_object(gathered, mine, group=process_group)
    _refuse([one.vote() for one in gathered])
    return gathered


@dataclass(frozen=True, slots=True)
class Sent(Generic[T]):
    """A value or an error as bytes, which every rank can receive."""

    data: bytes
    kind: str = ""
    """The class of an error: the one of our errors that it belongs to, else its own."""
    problem: str | None = None
    """The message of an error."""

    @classmethod
    def of(cls, make: Callable[[], T], failed: list[BaseException] | None = None) -> Sent[T]:
        """Run a function, and return its result or its error in a form that can be sent.

        Args:
            make: The function.
            failed: A list to which the error itself is appended.
        """
        try:
            data = pickle.dumps(make())
            pickle.loads(data)  # noqa: S301 - our own bytes, tried so that no rank fails alone
        except BaseException as error:  # noqa: BLE001 - every error is sent to the other ranks
            if failed is not None:
                failed.append(error)
            return cls(pickle.dumps(_sendable(error)), *_verdict(error))
        return cls(data)

    def vote(self) -> Vote[None]:
        """Return this as a vote, which is the same on every rank."""
        return Vote(self.problem, self.kind, None)

    def value(self) -> T:
        """Return the value, or raise the error."""
        found = pickle.loads(self.data)  # noqa: S301 - from a rank of this job
        if self.problem is not None:
            raise found
        value: T = found
        return value


def _votes(
    prepare: Callable[[], tuple[P, R]], process_group: ProcessGroup | None, about: str
) -> tuple[list[P], list[Vote[R]]]:
    """Prepare an outcome, and gather whether every rank can apply it.

    Returns:
        A list with the prepared outcome, empty after an error, and the votes of all ranks.
    """
    found: list[P] = []
    vote: Vote[R]
    try:
        mine, report = prepare()
        found.append(mine)
        vote = Vote(None, "", report)
    except BaseException as error:  # noqa: BLE001 - the other ranks wait for this one's vote
        kind, problem = _verdict(error)
        vote = Vote(problem, kind, None)
    votes: list[Any] = [None] * dist.get_world_size(process_group)
    with _named(about, process_group):
        dist.all_gather_object(votes, vote, group=process_group)
    return found, votes


def _verdict(error: BaseException) -> tuple[str, str]:
    """Return the class of an error, if possible one of our classes, and its message."""
    ours = next((kind for kind in _OURS if isinstance(error, kind)), None)
    if ours is not None:
        return ours.__name__, _text(error)
    # The message of a KeyError is only a key.
    return type(error).__name__, f"{type(error).__name__}: {_text(error)}"


def _refuse(votes: Sequence[Vote[Any]]) -> None:
    """Raise the same error on every rank if one of them cannot apply an outcome."""
    problems = {index: vote.problem for index, vote in enumerate(votes) if vote.problem is not None}
    if not problems:
        return
    kinds = {vote.kind for vote in votes if vote.problem is not None}
    by_reason: dict[str, list[int]] = {}
    for index, problem in problems.items():
        by_reason.setdefault(problem, []).append(index)
    lines = [f"{_ranks(ranks)}: {reason}" for reason, ranks in by_reason.items()]
    message = "\n".join([*lines[:_MOST_LINES], "nothing has changed on any rank"])
    kind = _KINDS.get(kinds.pop()) if len(kinds) == 1 else None
    if kind is None or kind is RankMismatchError:
        raise RankMismatchError(message, ranks=problems)
    raise kind(message)


def _common_error(sent: Sent[Any], votes: Sequence[Vote[Any]]) -> BaseException:
    """Return the first rank's error itself if every rank could read it, else its message."""
    text = f"{sent.kind}: {sent.problem}" if sent.kind in _KINDS else sent.problem
    try:
        error: BaseException = pickle.loads(sent.data)  # noqa: S301 - from a rank of this job
    except Exception:  # noqa: BLE001 - such as a class that this rank cannot import
        return RuntimeError(text)
    are_alike = len({(vote.problem, vote.kind) for vote in votes}) == 1
    return error if are_alike else RuntimeError(text)


def _ranks(ranks: Sequence[int]) -> str:
    """Return a text with ranks: `rank 3`, or `ranks 1, 2 and 5 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    more = f" and {len(ranks) - _MOST_RANKS} more" if len(ranks) > _MOST_RANKS else ""
    return f"ranks {', '.join(map(str, ranks[:_MOST_RANKS]))}{more}"


@contextlib.contextmanager
def _named(about: str, process_group: ProcessGroup | None) -> Iterator[None]:
    """Add the scheduler and the process group to a backend's error."""
    try:
        yield
    except Exception as error:
        group = "the default process group" if process_group is None else "its process_group"
        raise RuntimeError(
            f"dist_sched: {about}: its collective over {group} failed ({_text(error)}); check that "
            "every rank of the group is alive and makes the same calls in the same order"
        ) from error


def _is_one_of_many() -> bool:
    return dist.is_available() and dist.is_initialized()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error may contain anything
        return "(its message cannot be read)"


def _sendable(error: BaseException) -> BaseException:
    """Return an error that every rank can raise: the error, or one with its type and message."""
    try:
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        if (type(sent), str(sent)) == (type(error), str(error)):
            return error
    except Exception:  # noqa: BLE001 - an error may contain anything
        logger.debug("an error of type %s cannot be sent", type(error).__name__)
    return RuntimeError(f"{type(error).__name__}: {_text(error)}")
