"""Finding a scheduler's state in a checkpoint: layouts of frameworks, trackers, numbered folders.

A layout is a set of file names that a framework uses in a checkpoint. In a folder with several
checkpoints, the newest one is found by a tracker file or by number.
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
from dist_sched._storage.index_items import MAX_DEPTH
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
"""File names in which a checkpoint may have its scheduler, most likely first, and whether several
such files are copies from different ranks. Megatron-LM's `common.pt` comes first, because its
contents are not in the DCP index beside it."""

_TRACKERS = ("latest_checkpointed_iteration.txt", "latest")
"""Files in which Megatron-LM and DeepSpeed write the name of the newest complete checkpoint."""
_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class StateLocation:
    """Where a scheduler's state was found."""

    path: str
    """The file, or the index of a DCP folder."""
    key: str
    """Name of the state in it, with parts joined by dots. Empty if the file is the state."""
    checkpoint: str
    """The checkpoint: its folder, or the file if the checkpoint is a single file."""
    format: str
    """The kind of state: `"dist_sched"`, `"OptimizerParamScheduler"` (Megatron-LM's or NeMo
    AutoModel's), `"torch LRScheduler"` or `"DeepSpeed"`."""

    def __str__(self) -> str:
        return f"{self.path}{f', key {shown(self.key)}' if self.key else ''} ({self.format})"


_Found = tuple[dict[str, Any], StateLocation]


def find(place: Place, key: str | None) -> _Found:
    """Find the state in a file, in a checkpoint's folder, or in the newest of several checkpoints.

    Raises:
        StateError: As for `checkpoint.read_state`.
    """
    if not place.exists():
        raise StateError(f"{place}: does not exist")
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
        f"{place}: has no complete checkpoint: no .metadata of DCP, no file of torch.save with a "
        f"known name, and no numbered folder with one of these; it has: "
        f"{_listed(names) or 'nothing'}; pass the path of one checkpoint"
    )


def _files(place: Place) -> list[list[Place]]:
    """Return the files in which a checkpoint may have its scheduler, most likely first.

    For a folder that is not a checkpoint, the list is empty.
    """
    if not place.is_folder():
        return [[place]]
    names = place.names()
    found = []
    for patterns, are_copies in _LAYOUTS:
        files = [file for pattern in patterns for file in _matching(place, names, pattern)]
        found.append(files[:1] if are_copies else files)
    if not any(found) and not _numbered(place, names):
        # NeMo AutoModel has DCP folders within a checkpoint's folder. Unfinished ones may end in
        # .tmp, if a writer renames them at the end.
        finished = [name for name in names if not name.endswith(".tmp")]
        found.append(_matching(place, finished, "*/.metadata"))
    return [files for files in found if files]


def _matching(folder: Place, names: list[str], pattern: str) -> list[Place]:
    head, _, rest = pattern.partition("/")
    found = [folder.child(name) for name in names if fnmatch.fnmatchcase(name, head)]
    return [place.child(rest) for place in found if place.child(rest).exists()] if rest else found


def _complete(place: Place) -> list[list[Place]]:
    """Return the files of a numbered checkpoint, at least one.

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
    """Return the name of the checkpoint in a tracker file."""
    text = tracker.read(0, min(tracker.size(), 200)).decode(errors="replace").strip()
    name = f"iter_{int(text):07d}" if text.isdecimal() and tracker.name != "latest" else text
    if name not in names:
        raise StateError(
            f"{tracker}: has {shown(text)}, which is not in the folder; pass the path of one "
            "checkpoint"
        )
    return name


def _numbered(folder: Place, names: list[str]) -> list[str]:
    """Return the names of numbered checkpoints, newest first.

    Raises:
        StateError: There are several series, such as `step-#` and `epoch-#`.
    """
    stems = {name: re.sub(r"\.(pt|pth|ckpt|bin)\Z", "", name) for name in names}
    numbered = {name: stem for name, stem in stems.items() if stem[-1:].isdecimal()}
    series = {re.sub(r"\d+", "#", stem) for stem in numbered.values()}
    if len(series) > 1:
        raise StateError(
            f"{folder}: its checkpoints are numbered in several ways, {_listed(sorted(series))}, "
            "so the newest one is unknown; pass the path of one checkpoint"
        )
    return sorted(
        numbered, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], reverse=True
    )


def _one_of(checkpoint: Place, files: list[list[Place]], key: str | None) -> _Found:
    """Read the state from the most likely files that have one."""
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
                f"there are {len(found)} scheduler states: {listed}; choose one with its key, or "
                "pass the path of one file"
            )
        if found:
            return _checked(*found[0])
        seen += read
    raise StateError(_nothing(seen, key))


def _tree(place: Place) -> Any:
    if not place.is_file():
        raise StateError(f"{place}: is not a file or a folder")
    is_index = place.name in dcp_folders.INDEXES
    return dcp_folders.read_folder(place) if is_index else torch_files.read_file(place, place.open)


def _checked(location: StateLocation, node: Any) -> _Found:
    """Read a value, and check that it is a state, because a given key may have any value."""
    with reading(location.path):
        state = trees.plain(node)
    names = state if isinstance(state, dict) else {}
    fmt = format_of(names, "scheduler")
    if fmt is None:
        raise StateError(
            f"{location.path}: key {shown(location.key)} is not a scheduler's state: it has "
            f"{_listed(list(map(str, names))) or 'no names'}"
        )
    return names, replace(location, format=fmt)


def _nothing(seen: list[tuple[Place, Any]], key: str | None) -> str:
    """Return a text about what was found instead of a state, and what to do."""
    more = ", ..." if len(seen) > _SHOWN else ""
    files = ", ".join(str(place) for place, _ in seen[:_SHOWN]) + more
    states = [name for _, tree in seen for name, _, _ in _states(tree)]
    missing = "no known scheduler's state" if key is None else f"no key {shown(key)}"
    if states:
        return f"{files}: {missing}; scheduler states have the keys: {_listed(states)}"
    names = [name for _, tree in seen for name, _ in trees.children(tree)]
    return (
        f"{files}: {missing}; it has: {_listed(names) or 'nothing'}; pass the key of the state or, "
        "if none was saved, call scheduler.seek(position) with the trainer's own count"
    )


def _listed(names: list[str]) -> str:
    found = [repr(name[:100]) for name in names[:_SHOWN]]
    return ", ".join(found) + (", ..." if len(names) > _SHOWN else "")


def _states(tree: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the key, format and value of each scheduler state in a tree."""
    # A list may contain itself, or the same list many times. Nodes are kept, because the id of a
    # deleted one could be used again.
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
        elif id(node) not in seen and len(path) < MAX_DEPTH:
            seen[id(node)] = node
            waiting += [
                ((*path, part), child)
                for part, child in trees.children(node)
                if isinstance(child, dict | list | tuple | Leaf)
            ]


def _under(tree: Any, key: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the values with a dotted key. The parts of the key may contain dots."""
    waiting = [(tree, key)]
    seen: dict[tuple[int, int], Any] = {}  # sixty levels of "a" and "a.a" have 2**60 paths
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
