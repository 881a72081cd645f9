"""Where a checkpoint keeps a scheduler's state: layouts of frameworks, trackers, numbered folders.

A layout is what a framework calls the files of one checkpoint. Several checkpoints of a run stand
in one folder: a tracker file names the newest complete one, or their numbers do.
"""

from __future__ import annotations

import fnmatch
import logging
import re
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dist_sched._rules import shown
from dist_sched._state.format import format_of
from dist_sched._storage import dcp_folders, torch_files, trees
from dist_sched._storage.pickles import TruncatedError
from dist_sched._storage.places import Place, reading
from dist_sched._storage.trees import Leaf
from dist_sched.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("dist_sched")

_LAYOUTS = (
    (("common.pt",), True),  # Megatron-LM's distributed checkpoints
    (dcp_folders.INDEXES, True),
    (("scheduler.pt", "scheduler*.bin"), False),  # transformers, accelerate
    (("mp_rank_00*/model_optim_rng.pt",), True),  # Megatron-LM's older checkpoints
    (("*mp_rank_00_model_states.pt",), True),  # DeepSpeed
)
"""The files in which a checkpoint may keep its scheduler, the likeliest first, and whether several
of them are copies that ranks made. Megatron-LM's `common.pt` stands beside a DCP index that does
not name what is in it, so it comes first."""

_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
"""Files in which Megatron-LM and DeepSpeed name the newest complete checkpoint."""
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLocation:
    """Where a scheduler's state was found."""

    path: str
    """The file, or the index of the folder."""
    key: str
    """Its name there, parts joined by dots; empty if the file is the state."""
    checkpoint: str
    """The checkpoint that a run resumes from: its folder, or a file that is one by itself."""
    format: str
    """Whose state it is: dist_sched, OptimizerParamScheduler (Megatron-LM's or NeMo AutoModel's),
    torch LRScheduler or DeepSpeed."""

    def __str__(self) -> str:
        return f"{self.path}{f', key {shown(self.key)}' if self.key else ''} ({self.format})"


_Found = tuple[dict[str, Any], StateLocation]


def find(place: Place, key: str | None) -> _Found:
    """Find the one state in a file, in a checkpoint's folder, or in the newest of several.

    Raises:
        StateError: As for `checkpoint.read_state`.
    """
    if not place.exists():
        raise StateError(f"{place}: nothing is there")
    if files := _files(place):
        return _one_of(place, files, key)
    names = place.names()
    for tracker in _TRACKERS:
        named = place.child(tracker)
        if tracker in names and named.exists() and not named.is_folder():
            return find(place.child(_tracked(named, names)), key)
    for name in _numbered(place, names):
        try:
            found = place.child(name)
            return _one_of(found, _complete(found), key)
        except TruncatedError as error:
            logger.warning("skipped an incomplete checkpoint: %s", error)
    raise StateError(
        f"{place}: holds no complete checkpoint: no .metadata of DCP, no file of torch.save that "
        f"is known, no numbered folder with one; it holds: {_listed(names) or 'nothing'}"
    )


def _files(place: Place) -> list[list[Place]]:
    """Return the files in which a checkpoint may keep its scheduler, the likeliest first.

    Empty for a folder that is no checkpoint's.
    """
    if not place.is_folder():
        return [[place]]
    names = place.names()
    found = []
    for patterns, are_copies in _LAYOUTS:
        files = [file for pattern in patterns for file in _matching(place, names, pattern)]
        found.append(files[:1] if are_copies else files)
    if not any(found) and not _numbered(place, names):
        # NeMo AutoModel has DCP folders within a checkpoint's. A writer that renames what it has
        # finished calls it .tmp until then.
        finished = [name for name in names if not name.endswith(".tmp")]
        found.append(_matching(place, finished, "*/.metadata"))
    return [files for files in found if files]


def _matching(folder: Place, names: list[str], pattern: str) -> list[Place]:
    head, _, rest = pattern.partition("/")
    found = [folder.child(name) for name in names if fnmatch.fnmatchcase(name, head)]
    return [place.child(rest) for place in found if place.child(rest).exists()] if rest else found


def _complete(place: Place) -> list[list[Place]]:
    """Return a numbered checkpoint's files, of which at least one is there.

    Raises:
        TruncatedError: The checkpoint was not finished.
    """
    files = _files(place)
    # Megatron-LM writes metadata.json last.
    is_megatron = files and files[0][0].name == "common.pt"
    if not files or (is_megatron and not place.child("metadata.json").exists()):
        raise TruncatedError(str(place))
    return files


def _tracked(tracker: Place, names: list[str]) -> str:
    """Return the checkpoint that a tracker file names, among the names beside it."""
    text = tracker.read(0, min(tracker.size(), 200)).decode(errors="replace").strip()
    name = f"iter_{int(text):07d}" if text.isdecimal() and tracker.name != "latest" else text
    if name not in names:
        raise StateError(f"{tracker}: names {shown(text)}, which is not in its folder")
    return name


def _numbered(folder: Place, names: list[str]) -> list[str]:
    """Return the names of numbered checkpoints, the newest first.

    Raises:
        StateError: There are several series, such as `step-#` and `epoch-#`.
    """
    stems = {name: re.sub(r"\.(pt|pth|ckpt|bin)\Z", "", name) for name in names}
    numbered = {name: stem for name, stem in stems.items() if stem[-1:].isdecimal()}
    series = {re.sub(r"\d+", "#", stem) for stem in numbered.values()}
    if len(series) > 1:
        raise StateError(
            f"{folder}: its checkpoints are numbered in several ways, {_listed(sorted(series))}: "
            "none is known to be the newest; name the path of one"
        )
    return sorted(
        numbered, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], reverse=True
    )


def _one_of(checkpoint: Place, files: list[list[Place]], key: str | None) -> _Found:
    """Read the one state in the likeliest files of a checkpoint that have any."""
    if checkpoint.name in dcp_folders.INDEXES:
        checkpoint = checkpoint.parent
    seen: list[tuple[Place, Any]] = []
    for places in files:
        read = [(place, _tree(place)) for place in places]
        found = [
            (
                StateLocation(path=str(place), key=name, checkpoint=str(checkpoint), format=fmt),
                node,
            )
            for place, tree in read
            for name, fmt, node in (_states(tree) if key is None else _under(tree, key))
        ]
        if len(found) > 1:
            listed = "; ".join(str(location) for location, _ in found[:_SHOWN])
            raise StateError(
                f"there are {len(found)} scheduler states: {listed}; choose one by its key, or by "
                "the path of one file"
            )
        if found:
            return _checked(*found[0])
        seen += read
    raise StateError(_nothing(seen, key))


def _tree(place: Place) -> Any:
    if not place.is_file():
        raise StateError(f"{place}: is neither a file nor a folder")
    is_index = place.name in dcp_folders.INDEXES
    return dcp_folders.read_folder(place) if is_index else torch_files.read_file(place, place.open)


def _checked(location: StateLocation, node: Any) -> _Found:
    """Read a state, and check that it is one; what stands under a given key may be anything."""
    with reading(location.path):
        state = trees.plain(node)
    names = state if isinstance(state, dict) else {}
    fmt = format_of(names, "scheduler")
    if fmt is None:
        raise StateError(
            f"{location.path}: what stands under key {shown(location.key)} is no scheduler's "
            f"state: it holds {_listed(list(map(str, names))) or 'no names'}"
        )
    return names, replace(location, format=fmt)


def _nothing(seen: list[tuple[Place, Any]], key: str | None) -> str:
    """Say what is there instead of a state, and what to do."""
    more = ", ..." if len(seen) > _SHOWN else ""
    files = ", ".join(str(place) for place, _ in seen[:_SHOWN]) + more
    states = [name for _, tree in seen for name, _, _ in _states(tree)]
    missing = "no scheduler's state that is known" if key is None else f"no key {shown(key)}"
    if states:
        return f"{files}: {missing}; scheduler states stand under: {_listed(states)}"
    names = [name for _, tree in seen for name, _ in trees.children(tree)]
    return (
        f"{files}: {missing}; it holds: {_listed(names) or 'nothing'}; name the state by its key, "
        "or, if none was saved, call scheduler.seek(position) with the trainer's own count"
    )


def _listed(names: list[str]) -> str:
    found = [repr(name[:100]) for name in names[:_SHOWN]]
    return ", ".join(found) + (", ..." if len(names) > _SHOWN else "")


def _states(tree: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the scheduler states in a tree: their keys, their formats, and themselves."""
    # A list may hold itself, or one list twice, forty levels deep. Nodes that were read on the way
    # are kept, since another one could get the id of one that is gone.
    seen: dict[int, Any] = {}
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), tree)])
    while waiting:
        path, node = waiting.popleft()
        name = path[-1] if path else ""
        if isinstance(node, Leaf) and "sched" in name.lower():
            node = node.read()
        fmt = format_of(node.keys(), name) if isinstance(node, dict) else None
        if fmt is not None:
            yield ".".join(path), fmt, node
        elif id(node) not in seen and len(path) < trees.MAX_DEPTH:
            seen[id(node)] = node
            waiting += [
                ((*path, part), child)
                for part, child in trees.children(node)
                if isinstance(child, dict | list | tuple | Leaf)
            ]


def _under(tree: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield what stands under a dotted key; a name on the way may have dots itself."""
    waiting = [(tree, key)]
    seen: dict[tuple[int, int], Any] = {}  # sixty levels of "a" and "a.a" have 2**60 ways
    while waiting:
        node, rest = waiting.pop()
        node = node.read() if isinstance(node, Leaf) else node
        if not rest:
            yield key, "unknown", node
        elif (id(node), len(rest)) not in seen:
            seen[id(node), len(rest)] = node
            waiting += [
                (child, rest[len(name) + 1 :])
                for name, child in trees.children(node)
                if rest == name or rest.startswith(f"{name}.")
            ]
