"""A scheduler's state out of whatever holds it: found, read and translated, never executed."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_sched._state.format import UPSTREAM, State, format_of, to_upstream
from dist_sched._storage import trees
from dist_sched._storage.pickles import TruncatedError
from dist_sched._storage.trees import Leaf, Place
from dist_sched.errors import StateError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from dist_sched._optim.base import Scheduler

logger = logging.getLogger("dist_sched")

_FILES = ("*.pt", "*.pth", "*.ckpt", "*.bin")
_COPIES, _ALL = "copies", "all"
_LAYOUTS = (
    (("common.pt",), _COPIES),
    (trees.METADATA, _COPIES),
    (("scheduler.pt", "scheduler*.bin"), _ALL),
    (("mp_rank_00*/model_optim_rng.pt",), _COPIES),
    (("*mp_rank_00_model_states.pt",), _COPIES),
)
"""What a checkpoint's folder keeps its scheduler in, likeliest first, and whether several of them
are copies that ranks made: Megatron-LM's distributed checkpoints, DCP, transformers and accelerate,
Megatron-LM's older ones, DeepSpeed."""

_WITHIN = "*/.metadata"
"""DCP folders within a checkpoint's, as of NeMo AutoModel."""
_UNFINISHED = ".tmp"
"""The ending that writers give to what they have yet to rename."""

_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
"""Files in which Megatron-LM and DeepSpeed name the newest checkpoint that is complete."""

_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLocation:
    """StateLocation a scheduler's state was found."""

    path: str
    """The file, or the folder's index."""
    key: str
    """Its name there, parts joined by dots; empty where the file is the state."""
    format: str
    """Whose state it is: dist_sched, OptimizerParamScheduler (a seed's), torch LRScheduler or
    DeepSpeed."""

    def __str__(self) -> str:
        return f"{self.path}{f', key {self.key!r}' if self.key else ''} ({self.format})"


def read_state(
    path: str | os.PathLike[str], key: str | None = None
) -> tuple[dict[str, Any], StateLocation]:
    """Read a scheduler's state out of a checkpoint, without a job.

    Needs no process group, no GPU, no model code. Of a DCP folder, only the index and the
    scheduler's own items are read. What is pickled is read as data and never executed.

    Args:
        path: A DCP folder, a file of `torch.save`, a checkpoint's folder of Megatron-LM, NeMo
            AutoModel, transformers, accelerate or DeepSpeed, or a folder of numbered ones, of
            which the newest complete one is read; local, or any address that fsspec serves.
        key: The state's name in the checkpoint, parts joined by dots, such as `app.scheduler`.
            Needed only where there are several.

    Returns:
        The state as it stands there, and where it was found.

    Raises:
        StateError: Nothing is there, or no scheduler's state, or several; or the checkpoint is
            damaged, or holds pickles that could run code.
    """
    place = Place.at(path)
    try:
        return _state_at(place, key)
    except OSError as error:
        raise StateError(f"{place}: cannot be read: {error}") from error


def load(
    scheduler: Scheduler,
    path: str | os.PathLike[str],
    key: str | None = None,
    *,
    expected_position: int | None = None,
    local: bool = False,
) -> StateLocation:
    """Take up the state of a checkpoint in a running job.

    Collective unless local: the first rank of the scheduler's group alone touches storage and
    decides, and every rank applies the same outcome or raises the same error. Takes what plain
    `dcp.load` cannot: a seed's checkpoint, another library's, another key.

    Args:
        scheduler: Takes up the state, by its policy.
        path: As for `read_state`.
        key: As for `read_state`.
        expected_position: The trainer's own count, if it has one.
        local: Load on this rank alone, without communication.

    Returns:
        StateLocation the state was found.

    Raises:
        StateError: As for `read_state`, or the position is another than expected.
        ReconcileError: Strict entries or units differ, or the outcome is an illegal config.
    """
    return scheduler.load_with(
        lambda: read_state(path, key), expected_position=expected_position, local=local
    )


def to_megatron_state(state: Mapping[str, Any]) -> State:
    """Give a state as the seeds save it: their ten keys, from the text where there is one.

    A state of ours loads in the seeds as it is; this is for those who want nothing else in it.
    Entries that the ten keys cannot carry are logged at WARNING.

    Raises:
        StateError: The state is malformed, or does not tell all ten.
    """
    keys, left = to_upstream(state)
    lost = ", ".join(f"{name}={value!r}" for name, value in left.items() if value is not None)
    if lost:
        logger.warning(
            "the %s keys do not carry %s: give them to the constructor that loads them",
            UPSTREAM,
            lost,
        )
    return keys


def _state_at(place: Place, key: str | None) -> tuple[dict[str, Any], StateLocation]:
    if not place.exists():
        raise StateError(f"{place}: nothing is there")
    if not place.is_folder():
        return _chosen([[place]], key)
    kept = _kept(place)
    return _chosen(kept, key) if kept else _newest(place, key)


def _kept(folder: Place) -> list[list[Place]]:
    """Find what a checkpoint's folder may keep its scheduler in, the likeliest first.

    Nothing if it is no checkpoint's folder.
    """
    names = folder.names()
    found = [_row(folder, names, *layout) for layout in _LAYOUTS]
    if not any(found) and not _numbered(folder, names):
        finished = [name for name in names if not name.endswith(_UNFINISHED)]
        found.append(_matching(folder, finished, _WITHIN))
    return [places for places in found if places]


def _row(folder: Place, names: list[str], patterns: tuple[str, ...], kept: str) -> list[Place]:
    found = [place for pattern in patterns for place in _matching(folder, names, pattern)]
    return found[:1] if kept == _COPIES else found


def _matching(folder: Place, names: list[str], pattern: str) -> list[Place]:
    head, _, rest = pattern.partition("/")
    found = [folder.child(name) for name in names if fnmatch.fnmatchcase(name, head)]
    return [place.child(rest) for place in found if place.child(rest).exists()] if rest else found


def _tree(place: Place) -> Any:
    if not place.is_file():
        raise StateError(f"{place}: is neither a file nor a folder")
    return (trees.dcp_folder if place.name in trees.METADATA else trees.torch_file)(place)


@dataclass(frozen=True, slots=True)
class _Candidate:
    where: StateLocation
    node: Any


def _chosen(kept: list[list[Place]], key: str | None) -> tuple[dict[str, Any], StateLocation]:
    """Read the one state in the likeliest of some files that have any."""
    seen: list[tuple[Place, Any]] = []
    for places in kept:
        read = [(place, _tree(place)) for place in places]
        found = [candidate for place, tree in read for candidate in _found(place, tree, key)]
        if found:
            return _only(found)
        seen += read
    raise StateError(_nothing(seen, key))


def _found(place: Place, tree: Any, key: str | None) -> list[_Candidate]:
    """Find the states in a file; under a key, what stands there, whatever it is."""
    return [
        _Candidate(StateLocation(path=str(place), key=name, format=dialect), node)
        for name, dialect, node in (_states(tree) if key is None else _under(tree, key))
    ]


def _nothing(read: list[tuple[Place, Any]], key: str | None) -> str:
    """Say what is there instead, and what to do."""
    files = ", ".join(str(place) for place, _ in read)
    states = [name for _, tree in read for name, _, _ in _states(tree)]
    missing = "no scheduler's state that is known" if key is None else f"no key {key!r}"
    if states:
        return f"{files}: {missing}; scheduler states stand under: {_listed(states)}"
    names = [name for _, tree in read for name, _ in trees.children(tree)]
    return (
        f"{files}: {missing}; it holds: {_listed(names) or 'nothing'}; give the state's key, or, "
        "if none was saved, call scheduler.seek(position) with the trainer's own count"
    )


def _listed(names: list[str]) -> str:
    shown = [repr(name[:100]) for name in names[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")


def _only(found: list[_Candidate]) -> tuple[dict[str, Any], StateLocation]:
    """Read a state, or refuse to guess which."""
    if len(found) > 1:
        listed = "; ".join(str(candidate.where) for candidate in found[:_SHOWN])
        raise StateError(
            f"there are {len(found)} scheduler states: {listed}; choose one by its key, or by "
            "the path of one file"
        )
    where = found[0].where
    state = trees.plain(found[0].node, where.path)
    names = state if isinstance(state, dict) else {}
    dialect = format_of(names, "scheduler")
    if dialect is None:
        raise StateError(
            f"{where.path}: what stands under key {where.key!r} is no scheduler's state: "
            f"it holds {_listed(list(map(str, names))) or 'no names'}"
        )
    return names, StateLocation(path=where.path, key=where.key, format=dialect)


def _states(tree: Any) -> Iterator[tuple[str, str, Any]]:
    """Find scheduler states in a tree: their keys, their dialects, and themselves."""
    seen: set[int] = set()
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    while waiting:
        path, node = waiting.popleft()
        name = path[-1] if path else ""
        if isinstance(node, Leaf) and "sched" in name.lower():
            node = node.read()
        dialect = format_of(node.keys(), name) if isinstance(node, dict) else None
        if dialect is not None:
            yield ".".join(path), dialect, node
        elif id(node) not in seen and len(path) < trees.MAX_DEPTH:
            seen.add(id(node))
            waiting.extend(((*path, part), child) for part, child in trees.branches(node))


def _under(tree: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Find what stands under a dotted key; a name on the way may have dots itself."""
    waiting = [(tree, key)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        node, rest = waiting.pop()
        node = node.read() if isinstance(node, Leaf) else node
        if not rest:
            yield key, "", node
        elif (id(node), len(rest)) not in seen:
            seen.add((id(node), len(rest)))
            waiting += [
                (child, rest[len(name) + 1 :])
                for name, child in trees.children(node)
                if rest == name or rest.startswith(f"{name}.")
            ]


def _newest(folder: Place, key: str | None) -> tuple[dict[str, Any], StateLocation]:
    """Read the newest complete one of numbered checkpoints."""
    names = folder.names()
    tracked = _tracked(folder, names)
    if tracked is not None:
        return _state_at(tracked, key)
    numbered = _numbered(folder, names)
    for name in numbered:
        child = folder.child(name)
        try:
            state = _complete(child, key)
        except TruncatedError as error:
            logger.warning("skipped an incomplete checkpoint: %s", error)
            continue
        if state is not None:
            return state
        logger.warning("skipped an incomplete checkpoint: %s", child)
    raise StateError(
        f"{folder}: holds no complete checkpoint: no .metadata of DCP, no file of torch.save that "
        f"is known, no numbered folder with one; it holds: {_listed(names) or 'nothing'}"
    )


def _complete(place: Place, key: str | None) -> tuple[dict[str, Any], StateLocation] | None:
    """Read a checkpoint, or give None where its folder was not finished."""
    if not place.is_folder():
        return _chosen([[place]], key)
    kept = _kept(place)
    is_megatron = bool(kept) and kept[0][0].name == "common.pt"
    if not kept or (is_megatron and not place.child("metadata.json").exists()):
        return None
    return _chosen(kept, key)


def _tracked(folder: Place, names: list[str]) -> Place | None:
    """Follow a file that names the newest complete checkpoint."""
    for tracker in _TRACKERS:
        if tracker in names and not folder.child(tracker).is_folder():
            place = folder.child(tracker)
            told = place.read(0, min(place.size(), 200)).decode(errors="replace").strip()
            name = f"iter_{int(told):07d}" if told.isdecimal() and tracker != "latest" else told
            if name not in names:
                raise StateError(f"{place}: names {told!r}, which is not in its folder")
            return folder.child(name)
    return None


def _numbered(folder: Place, names: list[str]) -> list[str]:
    """Name the numbered checkpoints of a folder, the newest first."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        stem = _stem(name)
        if stem[-1:].isdecimal():
            kinds.setdefault(re.sub(r"\d+", "#", stem), []).append(name)
    if len(kinds) > 1:
        raise StateError(
            f"{folder}: its checkpoints are numbered in several ways, {_listed(sorted(kinds))}: "
            "none is known to be the newest; give the path of one"
        )
    found = next(iter(kinds.values()), [])
    return sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], reverse=True)


def _stem(name: str) -> str:
    """Give a name without the ending of a file of torch.save."""
    for pattern in _FILES:
        if fnmatch.fnmatchcase(name, pattern):
            return name[: -len(pattern) + 1]
    return name
