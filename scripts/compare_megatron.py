"""Compare the scheduler of a released megatron-core with ours, and print every difference.

    python scripts/compare_megatron.py                 # the newest release, which pip downloads
    python scripts/compare_megatron.py 0.19.2          # this release
    python scripts/compare_megatron.py --installed     # the one of this environment

It runs configs × groups × positions for values and bits, then what construction and loads refuse,
what a state holds, what is written into the groups, and the signatures. Only one file of the
release is used, so the release may want another Python than this one. The file imports a helper
from megatron.core, which must be installed in some version.

The exit status is 0 where all differences are known: each known one is a test of
tests/oracle/test_differences.py. It is 1 where there is a new one.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import itertools
import logging
import math
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dist_sched import OptimizerParamScheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "megatron/core/optimizer_param_scheduler.py"

CONFIG: dict[str, Any] = {
    "init_lr": 0.0,
    "max_lr": 1.0,
    "min_lr": 0.1,
    "lr_warmup_steps": 10,
    "lr_decay_steps": 110,
    "lr_decay_style": "linear",
    "start_wd": 0.01,
    "end_wd": 0.1,
    "wd_incr_steps": 100,
    "wd_incr_style": "linear",
}
WSD = {"lr_decay_style": "WSD", "wsd_decay_steps": 20, "lr_wsd_decay_style": "linear"}

TAILS = ("linear", "cosine", "exponential", "minus_sqrt")
LR_STYLES: list[dict[str, Any]] = [
    *({"lr_decay_style": style} for style in ("constant", "linear", "cosine")),
    {"lr_decay_style": "inverse-square-root"},
    *(
        {**WSD, "lr_wsd_decay_style": style, "wsd_decay_steps": steps}
        for style in TAILS
        for steps in (0, 1, 7.7, 33, 108)
    ),
]
BOUNDS: list[dict[str, Any]] = [
    {},
    {"init_lr": 0.1, "min_lr": 0.0},
    {"init_lr": 1.0, "min_lr": 1.0},
    {"max_lr": 3e-4, "min_lr": 3e-5},
]
WARMUPS: list[dict[str, Any]] = [{"lr_warmup_steps": steps} for steps in (0, 1, 10, 37.5, 109)]
WD_STYLES: list[dict[str, Any]] = [
    {"start_wd": 0.1, "wd_incr_style": "constant"},
    {"wd_incr_style": "linear"},
    {"wd_incr_style": "cosine", "wd_incr_steps": 333},
]
GROUPS: list[dict[str, Any]] = [
    {},
    {"max_lr": 0.7},
    {"min_lr": 1e-6},
    {"max_lr": 0.0, "min_lr": 0.0},
    {"max_lr": 2, "min_lr": 1e-3},
    {"start_wd": 0.3, "end_wd": 0.3},
    {"wd_mult": 0.0},
    {"wd_mult": 0.5, "max_lr": 0.7},
]
POSITIONS = (
    0,
    1,
    2,
    9,
    10,
    11,
    37,
    38,
    60,
    77,
    89,
    90,
    91,
    99,
    100,
    101,
    109,
    110,
    111,
    333,
    10**9,
)

ILLEGAL: dict[str, list[Any]] = {
    "lr_decay_style": ["cosinus", None],
    "wd_incr_style": ["cosinus"],
    "max_lr": [0.01, math.nan, math.inf, -1.0, "1", True],
    "min_lr": [-0.1, 2.0, math.nan],
    "init_lr": [2.0, -1.0, math.nan],
    "lr_warmup_steps": [110, -1, math.nan, 0.03],
    "lr_decay_steps": [0, -5, math.inf, 2**60],
    "start_wd": [-0.1, 0.5, math.nan],
    "end_wd": [0.0, math.inf],
    "wd_incr_steps": [0, -1],
}
ILLEGAL_WSD: dict[str, list[Any]] = {
    "wsd_decay_steps": [None, -1, 500],
    "lr_wsd_decay_style": [None, "lin"],
}

CHANGED: dict[str, Any] = {
    "max_lr": 0.5,
    "min_lr": 0.2,
    "lr_warmup_steps": 20,
    "lr_decay_steps": 300,
    "lr_decay_style": "cosine",
    "start_wd": 0.02,
    "end_wd": 0.9,
    "wd_incr_steps": 50,
    "wd_incr_style": "cosine",
    "wsd_decay_steps": 60,
    "lr_wsd_decay_style": "cosine",
    "init_lr": 0.05,
}
FLAGS: dict[str, dict[str, bool]] = {
    "checkpoint": {},
    "config": {
        "use_checkpoint_opt_param_scheduler": False,
        "override_opt_param_scheduler": True,
    },
    "strict": {"use_checkpoint_opt_param_scheduler": False},
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two classes do differently."""

    case: str
    theirs: str
    ours: str
    test: str | None
    """The test of tests/oracle/test_differences.py that has it; None where none has."""


def optimizer(*groups: dict[str, Any], lr: Any = 1.0) -> torch.optim.AdamW:
    """Return an optimizer with a parameter for each group."""
    parameters = [{"params": [torch.nn.Parameter(torch.ones(2))], **group} for group in groups]
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=0.1)


def build(cls: Any, *groups: dict[str, Any], **changes: Any) -> Any:
    """Return a scheduler of a class."""
    return cls(optimizer(*groups or ({},)), **{**CONFIG, **changes})


def refusal(error: Exception) -> str:
    """Return the name of an error; our own are assertion errors too, as Megatron's are."""
    return "refused" if isinstance(error, AssertionError) else type(error).__name__


# -- values ----------------------------------------------------------------------------------------


def values(theirs: Any) -> Iterator[Difference]:
    """Compare lr and weight decay of every group, bit for bit."""
    # Weight decay depends on no entry of lr, so its styles take turns.
    turns = itertools.cycle(WD_STYLES)
    for parts in itertools.product(LR_STYLES, BOUNDS, WARMUPS):
        changes = {key: value for part in (*parts, next(turns)) for key, value in part.items()}
        try:
            first = build(theirs, *GROUPS, **changes)
            second = build(OptimizerParamScheduler, *GROUPS, keep_group_ratios=False, **changes)
        except Exception as error:  # noqa: BLE001 - whatever a release raises is a difference
            yield Difference(f"construct {changes}", "", f"{type(error).__name__}: {error}", None)
            continue
        for position in POSITIONS:
            yield from values_at(first, second, position, changes)


def values_at(
    first: Any, second: Any, position: int, changes: dict[str, Any]
) -> Iterator[Difference]:
    """Compare what the groups hold at one position."""
    for scheduler in (first, second):
        scheduler.num_steps = position
        scheduler.step(0)
    pairs = zip(first.optimizer.param_groups, second.optimizer.param_groups, strict=True)
    for (one, other), group in zip(pairs, GROUPS, strict=True):
        for key in ("lr", "weight_decay"):
            a, b = float(one[key]), float(other[key])
            if a.hex() != b.hex():
                case = f"{key} at {position} of {group} under {changes}"
                bound = group.get("min_lr", {**CONFIG, **changes}["min_lr"])
                is_known = key == "lr" and b == bound and math.isclose(a, b, abs_tol=1e-15)
                yield Difference(case, repr(a), repr(b), PAST if is_known else None)


PAST = "a_wsd_tail_of_fractional_length_ends_at_min_lr_not_below_it"
"""Rounding takes their last value past the bound; a group whose bounds are the other way round ends
above it."""


# -- what is refused -------------------------------------------------------------------------------


def refusals(theirs: Any) -> Iterator[Difference]:
    """Compare when an illegal config is refused: at construction, in a step, or never."""
    for base, table in (({}, ILLEGAL), (WSD, ILLEGAL_WSD)):
        for key, entries in table.items():
            for value in entries:
                changes = {**base, key: value}
                a, b = (refused_at(cls, changes) for cls in (theirs, OptimizerParamScheduler))
                if a != b:
                    yield Difference(f"{key}={value!r}", a, b, known_refusal(key, value, a, b))


def refused_at(cls: Any, changes: dict[str, Any]) -> str:
    """Return where a config is refused."""
    try:
        scheduler = build(cls, **changes)
    except Exception as error:  # noqa: BLE001 - whatever a release raises is an outcome
        return f"construction: {refusal(error)}"
    for position in POSITIONS:
        scheduler.num_steps = position
        try:
            scheduler.step(0)
        except Exception as error:  # noqa: BLE001 - as above
            return f"step to {position}: {refusal(error)}"
    return "accepted"


def known_refusal(key: str, value: Any, theirs: str, ours: str) -> str | None:
    """Return the test of a difference in what is refused."""
    if key == "wd_incr_steps" and value == 0:
        return "no_weight_decay_steps_means_end_wd_not_a_division_by_zero"
    if key == "lr_decay_style":
        return "an_unknown_style_fails_at_construction_not_after_the_warmup"
    if key == "lr_wsd_decay_style":
        return "an_unknown_wsd_tail_fails_at_construction_not_in_the_tail"
    if ours == "construction: refused" and theirs != "construction: refused":
        return "an_illegal_entry_fails_at_construction"
    return None


# -- states and loads ------------------------------------------------------------------------------


def states(theirs: Any) -> Iterator[Difference]:
    """Compare what a state holds."""
    first, second = (set(build(cls).state_dict()) for cls in (theirs, OptimizerParamScheduler))
    for key in sorted(first ^ second):
        test = "our_state_has_one_key_more" if key == "dist_sched" else None
        yield Difference(f"state key {key!r}", str(key in first), str(key in second), test)


def loads(theirs: Any) -> Iterator[Difference]:
    """Compare the position, the values and the refusals of loads, entry by entry."""
    for (flag, flags), key in itertools.product(FLAGS.items(), [None, *CHANGED]):
        changes = {} if key is None else {key: CHANGED[key]}
        found = [loaded(cls, flags, changes) for cls in (theirs, OptimizerParamScheduler)]
        for what in found[0]:
            a, b = (each[what] for each in found)
            if a != b:
                case = f"{what}, {flag} wins, {key or 'nothing'} changed"
                yield Difference(case, a, b, known_load(what, key))


def loaded(cls: Any, flags: dict[str, bool], changes: dict[str, Any]) -> dict[str, str]:
    """Return what a load of a state does to a scheduler with another config."""
    saved = build(cls, **WSD)
    saved.step(60)
    state = saved.state_dict()
    found: dict[str, str] = {}
    scheduler = build(cls, **{**WSD, **changes}, **flags)
    try:
        scheduler.load_state_dict(state)
    except Exception as error:  # noqa: BLE001 - whatever a release raises is an outcome
        return dict.fromkeys(ASPECTS, "-") | {"load": refusal(error)}
    found["load"] = "accepted"
    found["position"] = str(scheduler.num_steps)
    for key in ("lr", "weight_decay"):
        found[f"{key} after the load"] = held(scheduler, key)
    scheduler.step(1)
    for key in ("lr", "weight_decay"):
        found[f"{key} after a step"] = held(scheduler, key)
    scheduler.step(20)
    found["lr in the tail"] = held(scheduler, "lr")
    again = build(cls, **{**WSD, **changes}, **flags)
    again.load_state_dict(state)
    again.load_state_dict(state)
    found["position after a second load"] = str(again.num_steps)
    return found


ASPECTS = (
    "load",
    "position",
    "lr after the load",
    "weight_decay after the load",
    "lr after a step",
    "weight_decay after a step",
    "lr in the tail",
    "position after a second load",
)


def held(scheduler: Any, key: str) -> str:
    """Return what the first group holds."""
    return repr(float(scheduler.optimizer.param_groups[0][key]))


def known_load(what: str, key: str | None) -> str | None:
    """Return the test of a difference in loads."""
    if what == "position after a second load":
        return "loading_twice_does_not_double_the_position"
    if what == "weight_decay after the load":
        return "weight_decay_is_right_for_the_first_update_after_a_resume"
    if key in {"init_lr", "wsd_decay_steps", "lr_wsd_decay_style"}:
        return "what_upstreams_state_lacks_is_restored_and_compared_too"
    return None


# -- groups and signatures -------------------------------------------------------------------------


def writes(theirs: Any) -> Iterator[Difference]:
    """Compare what is written into a group, beside the values."""
    both = (theirs, OptimizerParamScheduler)
    kept, kept_by_us = (str(keeps_the_tensor(cls)) for cls in both)
    if kept != kept_by_us:
        test = "a_tensor_lr_is_filled_in_place_not_replaced"
        yield Difference("a tensor lr stays the same object", kept, kept_by_us, test)
    keys, our_keys = (str(sorted(build(cls).optimizer.param_groups[0])) for cls in both)
    if keys != our_keys:
        yield Difference("keys of a group", keys, our_keys, None)


def keeps_the_tensor(cls: Any) -> bool:
    """Return whether a tensor lr is still the same object after a step."""
    lr = torch.tensor(1.0)
    driven = optimizer({}, lr=lr)
    cls(driven, **CONFIG).step(1)
    return driven.param_groups[0]["lr"] is lr


def signatures(theirs: Any) -> Iterator[Difference]:
    """Compare the constructor's arguments and defaults, and the names of the class."""
    first, second = (positional(cls) for cls in (theirs, OptimizerParamScheduler))
    for one, other in itertools.zip_longest(first, second):
        if one != other:
            yield Difference("argument of the constructor", str(one), str(other), None)
    ours = build(OptimizerParamScheduler)
    for name in sorted(vars(build(theirs)).keys() | set(dir(theirs))):
        if not name.startswith("_") and not hasattr(ours, name):
            yield Difference(f"attribute {name}", "there", "missing", None)


def positional(cls: Any) -> list[tuple[str, Any]]:
    """Return names and defaults of what the constructor takes by position."""
    found = inspect.signature(cls).parameters.values()
    return [(each.name, each.default) for each in found if each.kind is not each.KEYWORD_ONLY]


COMPARISONS = (values, refusals, states, loads, writes, signatures)


def differences(theirs: Any) -> list[Difference]:
    """Return every difference between a class of Megatron-LM and ours."""
    return [found for compare in COMPARISONS for found in compare(theirs)]


# -- which release ---------------------------------------------------------------------------------


def load(path: Path) -> Any:
    """Return the class that a file has."""
    spec = importlib.util.spec_from_file_location("compared_megatron", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OptimizerParamScheduler


def download(version: str | None, folder: Path) -> tuple[str, Path]:
    """Return a release and where the file of it is, taken out of the wheel that pip downloads."""
    requirement = "megatron-core" if version is None else f"megatron-core=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder)]
    if version is None:
        # What the newest release wants may be newer than this interpreter.
        command += ["--python-version", "3.13"]
    else:
        command += ["--ignore-requires-python"]
    subprocess.run([*command, requirement], check=True)
    (wheel,) = folder.glob("megatron_core-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(FILE, folder)
    return wheel.name.split("-")[1], folder / FILE


def report(name: str, found: list[Difference]) -> str:
    """Return the differences as tables: the new ones whole, of each known one the first."""
    new = [each for each in found if each.test is None]
    lines = [f"megatron-core {name}: {len(found):,} differences, {len(new):,} new", ""]
    count = Counter(each.test for each in found)
    shown = {each.test: each for each in reversed(found) if each.test is not None}
    lines += ["| known as | times | for example | Megatron | dist_sched |", "| --- " * 5 + "|"]
    for test, each in sorted(shown.items()):
        lines.append(f"| {test} | {count[test]} | {each.case} | {each.theirs} | {each.ours} |")
    if new:
        lines += ["", "| new | Megatron | dist_sched |", "| --- " * 3 + "|"]
        lines += [f"| {each.case} | {each.theirs} | {each.ours} |" for each in new]
    return "\n".join(lines)


def main() -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", nargs="?", help="a release; the newest by default")
    parser.add_argument("--installed", action="store_true", help="take the installed one")
    arguments = parser.parse_args()
    # Its loads differ on purpose, and what they log would hide the table.
    logging.getLogger("dist_sched").addHandler(logging.NullHandler())
    if arguments.installed:
        from importlib import metadata

        from megatron.core import optimizer_param_scheduler

        name = metadata.version("megatron-core")
        found = differences(optimizer_param_scheduler.OptimizerParamScheduler)
    else:
        with tempfile.TemporaryDirectory() as folder:
            name, path = download(arguments.version, Path(folder))
            found = differences(load(path))
    print(report(name, found))
    return int(any(each.test is None for each in found))


if __name__ == "__main__":
    sys.exit(main())
