"""Process groups: the only code that asks whether there is one."""

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
"""Errors that all ranks raise where one of them would, and whose messages say enough."""
_MOST_LINES = 8
"""Reasons that an error names, each with the ranks that have it."""
_MOST_RANKS = 8


def check(process_group: ProcessGroup | None) -> None:
    """Check that this rank can decide in a group.

    Raises:
        ConfigError: It is no process group, or this rank is not in it.
    """
    # torch gives non-members this object, and its collectives then warn and return at once.
    outside: object = dist.GroupMember.NON_GROUP_MEMBER if dist.is_available() else ...
    if process_group is outside:
        raise ConfigError(
            "process_group: this rank is not in it; build the scheduler on its ranks only"
        )
    if not (process_group is None or isinstance(process_group, dist.ProcessGroup)):
        raise ConfigError(
            f"process_group={process_group!r}: must be a ProcessGroup; of a device mesh, "
            "mesh.get_group(dimension)"
        )


def rank(process_group: ProcessGroup | None = None) -> int:
    """Return this process's rank in a group, the default group if None; 0 where there is none."""
    return dist.get_rank(process_group) if _is_one_of_many() else 0


def size(process_group: ProcessGroup | None = None) -> int:
    """Return how many ranks a group has, the default group if None; 1 where there is none."""
    return dist.get_world_size(process_group) if _is_one_of_many() else 1


@dataclass(frozen=True, slots=True)
class Vote(Generic[R]):
    """What one rank says of an outcome, before any rank applies it."""

    problem: str | None
    """Why it cannot apply the outcome; None if it can."""
    kind: str
    """The class of that error."""
    report: R | None
    """What the other ranks should know of it; None if it cannot apply the outcome."""


def agree(
    decision: Callable[[], T],
    prepare: Callable[[T], tuple[P, R]],
    process_group: ProcessGroup | None = None,
    *,
    about: str,
    local: bool = False,
) -> tuple[T, P, list[R]]:
    """Decide on a group's first rank, and prepare the outcome on every rank; apply nothing.

    One broadcast carries what the decision returned or raised, and one gather whether every rank
    can apply it. So all ranks return, or all raise the same error. Every rank of the group must
    call this. On gloo, a broadcast that only some ranks join may silently be received by a later
    one.

    Args:
        decision: Called on the first rank alone.
        prepare: Returns what this rank will apply, and what the others should know of it. It may
            raise, and changes nothing.
        process_group: The group, the default group if None. Whether there is one is asked at each
            call; without one the decision is this process's own.
        about: What is agreed on, for the error of a backend.
        local: Decide here, without communication.

    Returns:
        The outcome, what this rank will apply, and what each rank said.

    Raises:
        BaseException: What the decision raised, on every rank, with type and message; or, if some
            ranks cannot apply the outcome, one error that names ranks and reasons.
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
        # Of bytes, since an object that cannot be unpickled here would raise in the broadcast.
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
    """Prepare on every rank what all of them have decided alike; apply nothing. One gather.

    Raises:
        BaseException: As `agree` does.
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
        process_group: The group, the default group if None.
        about: What is gathered for, for the error of a backend.

    Raises:
        BaseException: As `agree` does, where some rank could not make its value.
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
    """A value or an error on its way to other ranks, as bytes that every rank can receive."""

    data: bytes
    kind: str = ""
    """The error's class, where it is one: ours that it is of, else its own."""
    problem: str | None = None
    """What it says."""

    @classmethod
    def of(cls, make: Callable[[], T], failed: list[BaseException] | None = None) -> Sent[T]:
        """Run a function and return its outcome, or its error, in a form that can be sent.

        Args:
            make: The function.
            failed: Gets the error itself.
        """
        try:
            data = pickle.dumps(make())
            pickle.loads(data)  # noqa: S301 - our own bytes; else a rank would fail alone
        except BaseException as error:  # noqa: BLE001 - the other ranks must hear of whatever it is
            if failed is not None:
                failed.append(error)
            return cls(pickle.dumps(_sendable(error)), *_verdict(error))
        return cls(data)

    def vote(self) -> Vote[None]:
        """Return what the other ranks should know of it; the same on every rank."""
        return Vote(self.problem, self.kind, None)

    def value(self) -> T:
        """Return the value, or raise the error."""
        found = pickle.loads(self.data)  # noqa: S301 - of a rank of this job
        if self.problem is not None:
            raise found
        value: T = found
        return value


def _votes(
    prepare: Callable[[], tuple[P, R]], process_group: ProcessGroup | None, about: str
) -> tuple[list[P], list[Vote[R]]]:
    """Prepare an outcome, and gather whether every rank can apply it.

    Returns:
        What this rank will apply, if it can, and the votes in the order of ranks.
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
    """Return the class of an error, ours that it is of or else its own, and what it says."""
    ours = next((kind for kind in _OURS if isinstance(error, kind)), None)
    if ours is not None:
        return ours.__name__, _text(error)
    # A KeyError says nothing but a key.
    return type(error).__name__, f"{type(error).__name__}: {_text(error)}"


def _refuse(votes: Sequence[Vote[Any]]) -> None:
    """Raise the same error on every rank where one of them cannot apply an outcome."""
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
    """Return the first rank's error as it is if every rank could read it, else as a text."""
    text = f"{sent.kind}: {sent.problem}" if sent.kind in _KINDS else sent.problem
    try:
        error: BaseException = pickle.loads(sent.data)  # noqa: S301 - of a rank of this job
    except Exception:  # noqa: BLE001 - a class that this rank cannot import, for one
        return RuntimeError(text)
    are_alike = len({(vote.problem, vote.kind) for vote in votes}) == 1
    return error if are_alike else RuntimeError(text)


def _ranks(ranks: Sequence[int]) -> str:
    """Name some ranks: `rank 3`, or `ranks 1, 2 and 5 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    more = f" and {len(ranks) - _MOST_RANKS} more" if len(ranks) > _MOST_RANKS else ""
    return f"ranks {', '.join(map(str, ranks[:_MOST_RANKS]))}{more}"


@contextlib.contextmanager
def _named(about: str, process_group: ProcessGroup | None) -> Iterator[None]:
    """Say of a backend's error whose collective failed, and over which group."""
    try:
        yield
    except Exception as error:
        group = "the default process group" if process_group is None else "its process_group"
        raise RuntimeError(
            f"dist_sched: {about}: its collective over {group} failed ({_text(error)}): every rank "
            "of the group must make the same call, in the same order, and be alive"
        ) from error


def _is_one_of_many() -> bool:
    return dist.is_available() and dist.is_initialized()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an error may be made of anything
        return "(its message cannot be read)"


def _sendable(error: BaseException) -> BaseException:
    """Return an error that every rank can raise: itself, or one with its type and message."""
    try:
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        if (type(sent), str(sent)) == (type(error), str(error)):
            return error
    except Exception:  # noqa: BLE001 - an error may be made of anything
        logger.debug("an error of type %s cannot be sent", type(error).__name__)
    return RuntimeError(f"{type(error).__name__}: {_text(error)}")
