"""What fuzz.py feeds to the library: states, texts, configs, files, folders and commands."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import shutil
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint.state_dict_saver import save

from dist_sched import checkpoint, from_config, reconcile
from dist_sched._config import files
from dist_sched._storage import dcp_folders, isolated
from dist_sched.cli.application import run
from dist_sched.errors import ConfigError, RankMismatchError, ReconcileError, StateError
from fuzz_inputs import (
    NAMES,
    PLAIN,
    HostileError,
    chance,
    changed,
    changed_archive,
    changed_bytes,
    changed_pickle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[], str]
    """The part of a case that is watched. It returns how the case ended."""

TYPED = ConfigError, StateError, ReconcileError, RankMismatchError
LONGEST = 4_000
"""Characters of an error."""
REFUSED = 2
"""Status of a command that ends with an error."""
DATA = Path(__file__).parents[1] / "tests" / "data"

ENTRIES = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.0,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}
PHASES = [
    {"shape": "linear", "steps": "1%", "end": 1.0, "start": 0.0},
    {"shape": "cosine", "steps": "0.5k", "end": "1e-1"},
    {"shape": "multistep", "steps": 10, "end": 0.05, "milestones": [3, 7]},
]
FIELDS = {
    "horizon": 1000,
    "unit": "samples",
    "policy": {"lr": "config", "*": "checkpoint"},
    "fields": {
        "lr": {"phases": PHASES, "horizon": 1000},
        "weight_decay": {"peak": 0.1, "to": "lr"},
        "momentum": {"schedule": "wsd", "peak": 0.9, "warmup": 10, "decay": "20%"},
    },
    "groups": {"embed*": {"lr": 0.1, "weight_decay": {"schedule": "linear", "peak": 0.2}}},
}
OPERATIONS = {
    "horizon": {"updates": 300},
    "per_update": {"extra": "batch_size", "times": 3},
    "fields": {
        "lr": {
            "phases": [
                {"schedule": "wsd", "peak": 1, "warmup": {"updates": 7}, "decay": "10%"},
                {"schedule": "linear", "peak": 1, "horizon": 10, "repeat": 3, "factors": 0.5},
            ]
        },
        "momentum": {"points": [[0, 0.5], ["50%", 0.9], [{"updates": 200}, 0.8]], "until": 0.5},
        "weight_decay": {
            "product": [
                {"schedule": "cosine", "peak": 1, "since": 9, "warmup_shape": {"shape": "rex"}},
                {"to": "batch_size", "peak": 1, "power": 0.5},
                0.1,
            ]
        },
    },
    "extras": {"batch_size": {"points": [[0, 2], [90, 4]], "multiple_of": 1}},
}
CONFIGS: tuple[dict[str, Any], ...] = (ENTRIES, FIELDS, OPERATIONS)
TORCH = {
    "_schedulers": [
        {"start_factor": 0.1, "end_factor": 1.0, "total_iters": 5, "base_lrs": [1.0]},
        {"T_max": 50, "eta_min": 0.0, "base_lrs": [1.0], "last_epoch": 7, "power": 1},
    ],
    "_milestones": [5],
    "last_epoch": 7,
    "_last_lr": [0.5],
}
YAML_MERGES = "a: &a {peak: 1, schedule: linear}\nfields: {lr: {<<: *a, horizon: 9}}"


class FoundError(Exception):
    """The library did what it must not do."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is mutated, and a folder for files."""

    folder: Path
    states: list[dict[str, Any]]
    configs: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and contents of config files."""
    archives: list[bytes] = field(default_factory=list)
    """Files of torch.save."""
    folders: list[Path] = field(default_factory=list)
    """DCP folders."""
    driving: dict[int, Any] = field(default_factory=dict)
    """Schedulers of `ENTRIES` and `FIELDS` into which nothing was loaded yet."""


def driven() -> torch.optim.SGD:
    """Return an optimizer whose groups every config fits."""
    groups = [{"params": [torch.ones(2, requires_grad=True)], "name": n} for n in ("embed", "head")]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.5, weight_decay=0.1)


def sources(folder: Path) -> Sources:
    """Write what is mutated into a folder, and read the frozen files."""
    schedulers = [from_config(driven(), config) for config in CONFIGS]
    for scheduler in schedulers:
        scheduler.step(7)
    states: list[Any] = [scheduler.state_dict() for scheduler in schedulers]
    schedulers[1].cooldown(20, allow_jump=True)
    states.append(schedulers[1].state_dict())
    for name in ("v1/late_changes.json", "v2/states.json"):
        frozen = json.loads((DATA / name).read_text())
        states += [one["state"] for key, one in frozen.items() if key != "positions"]
    states += [TORCH, {"last_batch_iteration": 7}, {**ENTRIES, "num_steps": 7}]
    found = Sources(folder / "case", states)
    found.folder.mkdir()
    found.configs.extend(_written())
    for number, state in enumerate(states):
        buffer = io.BytesIO()
        torch.save({"model": torch.ones(3), "scheduler": state}, buffer)
        found.archives.append(buffer.getvalue())
        if number % 8 == 0:
            path = folder / f"saved-{number}"
            tree = {
                "scheduler": state,
                "step": 7,
                "model": {"w": torch.ones(3), "n": torch.ones(())},
            }
            with warnings.catch_warnings(action="ignore"):  # it saves in a single process
                save(tree, checkpoint_id=path, no_dist=True)
            found.folders.append(path)
    found.archives.append((DATA / "v1" / "file.pt").read_bytes())
    found.folders.append(DATA / "v1" / "dcp")
    return found


def _written() -> list[tuple[str, bytes]]:
    import tomli_w
    import yaml

    found = [("run.yaml", YAML_MERGES)]
    for config in CONFIGS:
        found.append(("run.json", json.dumps(config)))
        found.append(("run.yaml", yaml.safe_dump(config)))
        found.append(("run.toml", tomli_w.dumps(config)))
    return [(name, text.encode()) for name, text in found]


def _driving(sources: Sources) -> list[Any]:
    """Return a scheduler of each class. A case whose load fails leaves them to the next one."""
    for number, config in enumerate((ENTRIES, FIELDS)):
        if number not in sources.driving:
            sources.driving[number] = from_config(driven(), config)
            sources.driving[number].step(3)
    return [sources.driving.pop(number) for number in range(2)]


def attempt(function: Callable[[], object]) -> str:
    """Call a function, and return "accepted" or the class of its error.

    Raises:
        FoundError: It raises another error, or a long one.
    """
    try:
        function()
    except TYPED as error:
        if len(str(error)) > LONGEST:
            raise FoundError(f"an error of {len(str(error)):,} characters") from error
        return type(error).__name__
    except HostileError as error:
        return type(error).__name__
    except Exception as error:
        raise FoundError(f"{type(error).__name__} is not one of the errors") from error
    return "accepted"


def snapshot(scheduler: Any) -> Any:
    """Return what a failed load must leave as it was, as a text, in which NaN equals NaN."""
    groups = [
        {k: v for k, v in g.items() if k != "params"} for g in scheduler.optimizer.param_groups
    ]
    history = [*scheduler.history]
    return repr(
        (scheduler.state_dict(), scheduler.num_steps, groups, history, scheduler.metrics())
    ), scheduler.last_reconciliation


def load(scheduler: Any, state: Any) -> str:
    """Load a state into a scheduler.

    Raises:
        FoundError: As for `attempt`, or a failed load changed something.
    """
    before = snapshot(scheduler)
    outcome = attempt(lambda: scheduler.load_state_dict(state, local=True))
    if outcome != "accepted" and snapshot(scheduler) != before:
        raise FoundError("a failed load changed the scheduler or its groups")
    if outcome == "accepted":
        # What was loaded can be used: the next values are numbers, or nothing.
        attempt(scheduler.step)
        attempt(lambda: scheduler.seek(10**6))
    return outcome


def _use(state: Any, schedulers: list[Any], sources: Sources) -> str:
    """Do with a state what callers do."""
    outcomes = [load(scheduler, state) for scheduler in schedulers]
    for number, outcome in enumerate(outcomes):
        if outcome != "accepted":
            sources.driving[number] = schedulers[number]
    attempt(lambda: checkpoint.to_megatron_state(state))
    attempt(lambda: reconcile(ENTRIES, state))
    return "accepted" if "accepted" in outcomes else outcomes[0]


def states(draw: Random, sources: Sources) -> Act:
    """Mutate the values and keys of a state."""
    state, schedulers = changed(draw, draw.choice(sources.states)), _driving(sources)
    return lambda: _use(state, schedulers, sources)


def texts(draw: Random, sources: Sources) -> Act:
    """Mutate the JSON text in a state, or what it says."""
    state = dict(draw.choice([one for one in sources.states if "dist_sched" in one]))
    if chance(draw, 60):
        with contextlib.suppress(ValueError, RecursionError):  # it may hold itself
            state["dist_sched"] = json.dumps(changed(draw, json.loads(state["dist_sched"]), PLAIN))
    else:
        text = changed_bytes(draw, state["dist_sched"].encode())
        state["dist_sched"] = text.decode(errors="surrogateescape")
    schedulers = _driving(sources)
    return lambda: _use(state, schedulers, sources)


def configs(draw: Random, sources: Sources) -> Act:
    """Mutate a config as a mapping."""
    del sources
    config, optimizer = changed(draw, draw.choice(CONFIGS)), driven()
    before = copy.deepcopy(optimizer.state_dict())

    def act() -> str:
        outcome = attempt(lambda: from_config(optimizer, config))
        if outcome != "accepted" and repr(optimizer.state_dict()) != repr(before):
            raise FoundError("a refused config changed the groups")
        return outcome

    return act


def _config_file(draw: Random, sources: Sources) -> Path:
    name, data = draw.choice(sources.configs)
    path = sources.folder / name
    path.write_bytes(changed_bytes(draw, data))
    if chance(draw, 1):
        _replace_by_odd(draw, path)
    return path


def config_files(draw: Random, sources: Sources) -> Act:
    """Mutate a YAML, JSON or TOML file."""
    path = _config_file(draw, sources)
    return lambda: attempt(lambda: files.read(path))


def _one_line(arguments: list[str]) -> str:
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        status = run(arguments)
    text = errors.getvalue()
    if status not in {0, 1, 2}:
        raise FoundError(f"status {status}")
    if status == REFUSED and ("error: unexpected" in text or text.count("\n") != 1):
        raise FoundError(f"it ends with {text[:200]!r}")
    if len(text) > LONGEST * 3:
        raise FoundError(f"it says {len(text):,} characters")
    return f"status {status}"


def commands(draw: Random, sources: Sources) -> Act:
    """Read a mutated file with a command."""
    if chance(draw, 50):
        path = _config_file(draw, sources)
    else:
        path = sources.folder / "state.pt"
        path.write_bytes(changed_archive(draw, draw.choice(sources.archives)))
    command = draw.choice(["show", "check", "inspect"])
    return lambda: _one_line([command, str(path)])


def archives(draw: Random, sources: Sources) -> Act:
    """Mutate a file of torch.save: its bytes, its pickle, or the values in it."""
    path, data = sources.folder / "state.pt", draw.choice(sources.archives)
    if chance(draw, 20):
        buffer = io.BytesIO()
        with contextlib.suppress(Exception):  # what cannot be saved stays as it was
            odd = [*PLAIN, torch.ones(2), torch.tensor(1.0)]
            torch.save({"scheduler": changed(draw, draw.choice(sources.states), odd)}, buffer)
            data = buffer.getvalue()
    else:
        with warnings.catch_warnings(action="ignore"):  # two records of one name
            data = changed_archive(draw, data)
    path.write_bytes(data)
    schedulers = _driving(sources)
    return lambda: _read(path, schedulers, sources)


def _read(path: Path, schedulers: list[Any], sources: Sources) -> str:
    found: list[dict[str, Any]] = []
    outcome = attempt(lambda: found.append(checkpoint.read_state(path)[0]))
    if found:
        return _use(found[0], schedulers, sources)
    sources.driving.update(enumerate(schedulers))
    return outcome


def _copied(draw: Random, sources: Sources) -> Path:
    path = sources.folder / "run" / "step-7"
    shutil.copytree(draw.choice(sources.folders), path)
    return path


def indexes(draw: Random, sources: Sources) -> Act:
    """Mutate the index of a DCP folder: its bytes, its instructions, or the values in it."""
    path = _copied(draw, sources) / ".metadata"
    data = path.read_bytes()
    if chance(draw, 30):
        with contextlib.suppress(Exception):  # what cannot be pickled stays as it was
            data = pickle.dumps(_changed_index(draw, pickle.loads(data)))  # noqa: S301 - our own
    else:
        data = changed_pickle(draw, data)
    path.write_bytes(data)
    schedulers = _driving(sources)
    return lambda: _read(path.parent, schedulers, sources)


def _changed_index(draw: Random, index: Any) -> Any:
    odd = [*PLAIN, ("a",), ("scheduler", "max_lr", "x"), (10**20,), (-1,), "../x", "/etc/passwd"]
    for _ in range(draw.choice([1, 2])):
        infos = draw.choice(list(index.storage_data.values()))
        match draw.randrange(5):
            case 0:
                name = draw.choice(["relative_path", "offset", "length", "transform_descriptors"])
                setattr(infos, name, draw.choice(odd))
            case 1:
                index.planner_data[draw.choice(list(index.planner_data))] = draw.choice(odd)
            case 2:
                kinds = index.state_dict_metadata
                kinds[draw.choice([*NAMES, *kinds])] = draw.choice([*odd, *kinds.values()])
            case 3:
                name = draw.choice(["state_dict_metadata", "planner_data", "storage_data"])
                setattr(index, name, draw.choice(odd))
            case _:
                index.storage_data.pop(draw.choice(list(index.storage_data)))
    return index


def large_indexes(draw: Random, sources: Sources) -> Act:
    """Mutate an index, and read it in this process and in a child process."""
    data = (draw.choice(sources.folders) / ".metadata").read_bytes()
    data = changed_pickle(draw, data)
    limits = replace(isolated.Limits.of(2**20), seconds=5, timeout=60)

    def act() -> str:
        found: list[Any] = []
        here = attempt(lambda: found.append(dcp_folders.read_here(data)))
        child = attempt(lambda: found.append(isolated.read(data, limits)))
        if here == child == "accepted" and found[0] != found[1]:
            raise FoundError("the two readers of an index return different items")
        return child

    return act


def items(draw: Random, sources: Sources) -> Act:
    """Mutate an item of a DCP folder: its bytes, its pickle, or its place."""
    path = _copied(draw, sources)
    index = pickle.loads((path / ".metadata").read_bytes())  # noqa: S301 - our own
    key, info = draw.choice(list(index.storage_data.items()))
    data = path / info.relative_path
    whole = data.read_bytes()
    if chance(draw, 20):
        data.write_bytes(changed_bytes(draw, whole))
    else:
        with contextlib.suppress(Exception):  # a tensor's item is no archive
            item = changed_archive(draw, whole[info.offset : info.offset + info.length])
            data.write_bytes(whole + item)
            index.storage_data[key] = replace(info, offset=len(whole), length=len(item))
            (path / ".metadata").write_bytes(pickle.dumps(index))
    schedulers = _driving(sources)
    return lambda: _read(path, schedulers, sources)


def folders(draw: Random, sources: Sources) -> Act:
    """Put something else where a file of a folder is, and read the folder by different paths."""
    path = _copied(draw, sources)
    tracker = path.parent / "latest"
    tracker.write_text(draw.choice(["step-7", "", "step-8", "..", "\0", "latest", "9" * 5000]))
    target = draw.choice([one for one in path.parent.rglob("*") if one.is_file()])
    if chance(draw, 50):
        _replace_by_odd(draw, target)
    else:
        target.write_bytes(changed_bytes(draw, target.read_bytes()))
    schedulers = _driving(sources)
    read = draw.choice([path, path.parent, tracker, path / ".metadata"])
    return lambda: _read(read, schedulers, sources)


def _replace_by_odd(draw: Random, path: Path) -> None:
    """Put something else where a file is."""
    kind = draw.randrange(6)
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind in {2, 3, 4}:
        path.symlink_to(["/dev/zero", "missing", path.name][kind - 2])


SURFACES: dict[str, tuple[Callable[[Random, Sources], Act], int]] = {
    "state": (states, 20),
    "text of a state": (texts, 20),
    "config": (configs, 12),
    "config file": (config_files, 12),
    "command": (commands, 2),
    "torch.save file": (archives, 14),
    "index": (indexes, 10),
    "index in a child process": (large_indexes, 1),
    "item": (items, 6),
    "folder": (folders, 3),
}
"""Functions that make a case, and how many of a hundred cases they make."""


def made(surface: str, draw: Random, sources: Sources) -> Act:
    """Return the part of a case that is watched, with its files in an empty folder."""
    for path in sources.folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    make, _ = SURFACES[surface]
    return make(draw, sources)


def prepared(folder: str | os.PathLike[str]) -> Sources:
    """Return the sources, in a new folder."""
    found = sources(Path(folder))
    # Modules that are imported when they are first needed are none of a case's doing.
    with contextlib.chdir(found.folder):
        for number in range(100):
            with contextlib.suppress(Exception):
                draw = Random(number)  # noqa: S311 - nothing secret
                made([*SURFACES][number % len(SURFACES)], draw, found)()
    return found
