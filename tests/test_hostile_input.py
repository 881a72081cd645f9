"""Mutated states, configs, files and folders: typed errors alone, soon, and nothing is executed.

`DIST_SCHED_CASES=100000 pytest --log-cli-level=INFO tests/test_hostile_input.py` tries more, and
says how they ended.
"""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import decimal
import fractions
import json
import logging
import os
import random
import resource
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch

from dist_sched import checkpoint, from_config, reconcile
from dist_sched._config import files
from dist_sched.cli.application import run
from dist_sched.errors import ConfigError, ReconcileError, StateError
from helpers import CONFIG, save_dcp, save_torch, sgd

logger = logging.getLogger(__name__)

CASES = int(os.environ.get("DIST_SCHED_CASES", "3000"))
SLOWEST = 10
TYPED = ConfigError, StateError, ReconcileError
PHASES = [
    {"shape": "linear", "steps": "1%", "end": 1.0, "start": 0.0},
    {"shape": "cosine", "steps": "0.5k", "end": "1e-1"},
    {"shape": "multistep", "steps": 10, "end": 0.05, "milestones": [3, 7]},
]
SPECIFICATION = {
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
DECLARED = CONFIG, SPECIFICATION, OPERATIONS
TORCH = {
    "_schedulers": [
        {"start_factor": 0.1, "end_factor": 1.0, "total_iters": 5, "base_lrs": [1.0]},
        {"T_max": 50, "eta_min": 0.0, "base_lrs": [1.0], "last_epoch": 7, "power": 1},
    ],
    "_milestones": [5],
    "last_epoch": 7,
    "_last_lr": [0.5],
}


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def _fail(self, *_):
        raise RuntimeError

    __eq__ = __bool__ = __len__ = __repr__ = __str__ = __float__ = __int__ = __iter__ = _fail
    __hash__ = object.__hash__


def nested(levels, width):
    found = []
    for _ in range(levels):
        found = [found] * width
    return found


def cycle():
    found = {}
    found["lr"] = found
    return found


ODD = [
    *(
        float("nan"),
        float("inf"),
        -1,
        0,
        0.5,
        True,
        None,
        "",
        "x" * 1000,
        10**400,
        2**53 + 1,
        1e300,
    ),
    *(-0.0, 5e-324, "1e999999", "9" * 5000, "%", "-1%", "\ud800", "\0", "nan", "lr", "*", b"x"),
    *([], {}, (), set(), [[]], [None], {1: 2}, {None: {}}, {(1, 2): 1}, {"schedule": []}),
    *(decimal.Decimal("sNaN"), decimal.Decimal("1e9"), fractions.Fraction(1, 3), 1j, 10**5000),
    *(dt.date(2026, 1, 1), object(), int, np.ones(2), np.float32(1), np.array("x")),
    *(torch.ones(2), torch.tensor(1.0), torch.ones(1, device="meta"), Hostile(), [Hostile()]),
    *(nested(3000, 1), nested(30, 9), cycle(), {nested: 1}, "x" * 10**6, ["x"] * 10**4),
]
PLAIN = [
    *(-1, 0, 0.5, 1e300, True, None, "", "lr", "x" * 1000, "\ud800", 10**400, "9" * 5000, "nan"),
    *([], {}, [[]], [None], {"schedule": []}, {"lr": {}}, ["x"] * 10**4, nested(100, 1)),
]
TOKENS = (
    *("*a", "&a ", "<<: *a", "!!int ", "!!python/object/apply:os.system ['touch mark']", "[", "}"),
    *('"', "'", ":", "\n", "\n  ", ", ", "\0", "\ufeff", "1e999", "9" * 5000, "NaN", "Infinity"),
    *("null", "-", "~", "%", "? ", "|", "# ", ".", "=", "[[a]]", "a.b.c = 1", "\\ud800", "0x1"),
)


NAMES = (
    *("", "lr", "x" * 300, "peak", "phases", "product", "repeat", "factors", "since", "until"),
    *("multiple_of", "updates", "points", "power", "per_update", "extras"),
)


def places(data, depth=5):
    """Return where values are in nested dicts and lists."""
    keys = list(data) if isinstance(data, dict) else range(min(len(data), 20))
    found = [(data, key) for key in keys]
    for key in keys:
        if depth and isinstance(data[key], dict | list):
            found += places(data[key], depth - 1)
    return found


def changed(draw, data, odd=ODD):
    """Return data in which something was replaced, removed, added or renamed."""
    found = copy.deepcopy(data)
    for _ in range(draw.randint(1, 3)):
        if not (where := places(found)):
            break
        (one, key), (other, name) = draw.choice(where), draw.choice(where)
        match draw.randrange(5):
            case 0 | 1:
                one[key] = draw.choice(odd)
            case 2:
                del one[key]
            case 3 if isinstance(one, dict):
                one[draw.choice([*NAMES, name])] = draw.choice(odd)
            case _:
                one[key] = other[name]
    return found


def changed_bytes(draw, data):
    """Return bytes of which some were changed, cut out, inserted or repeated."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        start = draw.randrange(len(found) + 1)
        end = min(len(found), start + draw.choice([1, 1, 2, 8, 50]))
        match draw.randrange(6):
            case 0 | 1:
                found[start:end] = draw.randbytes(end - start)
            case 2:
                found[start:start] = draw.choice(TOKENS).encode("utf-8", "surrogatepass")
            case 3:
                del found[start:end]
            case 4:
                found[start:start] = found[start:end] * draw.choice([1, 2, 50])
            case 5 if draw.random() < 0.3:
                del found[start:]
    return bytes(found)


def driven():
    """Return an optimizer whose groups all configs fit."""
    return sgd({"name": "embed"}, {"name": "head"}, weight_decay=0.1)


@pytest.fixture(scope="module")
def states():
    """Return states of ours and of others."""
    found = []
    for config in (CONFIG, OPERATIONS, SPECIFICATION):
        scheduler = from_config(driven(), config)
        scheduler.step(7)
        found.append(scheduler.state_dict())
    scheduler.cooldown(20, allow_jump=True)
    found += [scheduler.state_dict(), TORCH, {"last_batch_iteration": 7}]
    return [*found, {**CONFIG, "num_steps": 7}]


@pytest.fixture
def tried(tmp_path, monkeypatch, caplog):
    """Return what tries a function with many draws, and checks how each ends."""
    caplog.set_level(logging.ERROR, "dist_sched")
    caplog.set_level(logging.INFO, __name__)
    monkeypatch.chdir(tmp_path)  # where what is executed would leave its mark

    def outcome_of(case, seed):
        try:
            return case(random.Random(seed)) or "accepted", ""
        except TYPED as error:
            return type(error).__name__, str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error

    def each(case, share):
        outcomes, slowest = Counter(), 0.0
        for seed in range(max(1, int(CASES * share))):
            start = time.monotonic()
            outcome, message = outcome_of(case, seed)
            slowest = max(slowest, time.monotonic() - start)
            outcomes[outcome] += 1
            assert 4_000 >= len(message), seed
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        logger.info("%s; slowest %.2f s; peak %d MiB", dict(outcomes), slowest, peak)
        assert SLOWEST > slowest
        assert not (tmp_path / "mark").exists()

    return each


def use(state):
    """Do with a state what callers do."""
    for config in (CONFIG, SPECIFICATION):
        with contextlib.suppress(*TYPED):
            from_config(driven(), config).load_state_dict(state, local=True)
    with contextlib.suppress(*TYPED):
        checkpoint.to_megatron_state(state)
    reconcile(CONFIG, state)


pytestmark = pytest.mark.timeout(0 if CASES > 3000 else 120)


def test_mutated_states_raise_typed_errors(tried, states):
    tried(lambda draw: use(changed(draw, draw.choice(states))), 0.2)


def test_mutated_texts_of_states_raise_typed_errors(tried, states):
    def case(draw):
        state = dict(draw.choice(states[:4]))
        text = json.loads(state["dist_sched"])
        if draw.random() < 0.5:
            with contextlib.suppress(ValueError):  # it may hold itself
                state["dist_sched"] = json.dumps(changed(draw, text, PLAIN))
        else:
            found = changed_bytes(draw, state["dist_sched"].encode())
            state["dist_sched"] = found.decode(errors="surrogateescape")
        use(state)

    tried(case, 0.2)


def test_mutated_configs_raise_typed_errors(tried):
    def case(draw):
        from_config(driven(), changed(draw, draw.choice(DECLARED)))

    tried(case, 0.15)


def written():
    """Return configs as files have them, by their names."""
    yaml, toml = pytest.importorskip("yaml"), pytest.importorskip("tomli_w")
    for config in DECLARED:
        yield "run.json", json.dumps(config)
        yield "run.yaml", yaml.safe_dump(config)
        yield "run.toml", toml.dumps(config)
    yield "run.yaml", "a: &a {peak: 1, schedule: linear}\nfields: {lr: {<<: *a, horizon: 9}}"


def test_mutated_files_raise_typed_errors(tried, tmp_path):
    sources = list(written())

    def case(draw):
        name, text = draw.choice(sources)
        (tmp_path / name).write_bytes(changed_bytes(draw, text.encode()))
        files.read(tmp_path / name)

    tried(case, 0.2)


def test_mutated_files_end_a_command_in_one_line(tried, tmp_path, capsys):
    sources = list(written())

    def case(draw):
        name, text = draw.choice(sources)
        (tmp_path / name).write_bytes(changed_bytes(draw, text.encode()))
        status = run([draw.choice(["show", "check", "inspect"]), str(tmp_path / name)])
        said = capsys.readouterr().err
        if status == 2:
            assert 1 == said.count("\n")
            assert "error: unexpected" not in said
        return f"status {status}"

    tried(case, 0.03)


def test_mutated_torch_files_raise_typed_errors(tried, states, tmp_path):
    path, odd = tmp_path / "state.pt", [*PLAIN, torch.ones(2), torch.tensor(1.0)]

    def case(draw):
        state = changed(draw, draw.choice(states), odd)
        save_torch(draw.choice([state, {"scheduler": state}]), path)
        if draw.random() < 0.8:
            path.write_bytes(changed_bytes(draw, path.read_bytes()))
        use(checkpoint.read_state(path)[0])

    tried(case, 0.15)


def replace_by_odd(draw, path):
    """Put something else where a file is."""
    kind = draw.randrange(6)
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind in {2, 3, 4}:
        path.symlink_to(["/dev/zero", "missing", path.name][kind - 2])


def test_mutated_folders_raise_typed_errors(tried, states, tmp_path):
    saved = [tmp_path / f"saved-{index}" for index in range(len(states))]
    for folder, state in zip(saved, states, strict=True):
        save_dcp({"scheduler": state, "step": 7}, folder)
    path = tmp_path / "run"

    def case(draw):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(draw.choice(saved), path / "step-7")
        (path / "latest").write_text(draw.choice(["step-7", "", "step-8", "..", "\0", "latest"]))
        target = draw.choice([one for one in path.rglob("*") if one.is_file()])
        if draw.random() < 0.2:
            replace_by_odd(draw, target)
        else:
            target.write_bytes(changed_bytes(draw, target.read_bytes()))
        use(checkpoint.read_state(draw.choice([path, path / "step-7", path / "latest"]))[0])

    tried(case, 0.07)
