"""NeMo AutoModel's recipe trains with our scheduler, saves it and goes on, and so does theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dist_sched import OptimizerParamScheduler, ParamScheduler, adapters, schedules
from helpers import sgd

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(600),
]

PROGRAM = Path(__file__).parent / "programs/nemo_recipe.py"
ENTRIES = {"init_lr": 1e-4, "max_lr": 1e-3, "min_lr": 1e-5, "start_wd": 0.1, "end_wd": 0.1}
ENTRIES |= {"lr_warmup_steps": 4, "lr_decay_steps": 16, "lr_decay_style": "cosine"}
ENTRIES |= {"wd_incr_steps": 16, "wd_incr_style": "constant"}


def start(*runs):
    """Run the recipe in a new process, and return what the program prints."""
    path = os.pathsep.join(filter(None, [str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, PROGRAM, *runs],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(results[0].removeprefix("RESULT "))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Run in one process what is not resumed."""
    folder = tmp_path_factory.mktemp("recipe")
    names = ["theirs,16", "theirs,7", "ours,16", "ours,7", "built,16", "built,7"]
    named = [name.split(",") for name in names]
    result = start(*(f"{whose},{folder / (whose + number)},{number}" for whose, number in named))
    return {**result, "folder": folder, "runs": dict(zip(names, result["runs"], strict=True))}


@pytest.fixture(scope="module")
def resumed(first):
    """Resume each checkpoint in a new process, up to the 16th update."""
    folder = first["folder"]
    pairs = [("theirs", "ours7"), ("ours", "ours7"), ("ours", "theirs7"), ("built", "built7")]
    for whose, saved in pairs:
        shutil.copytree(folder / saved, folder / f"{whose} of {saved}", symlinks=True)
    result = start(*(f"{whose},{folder / f'{whose} of {saved}'},16" for whose, saved in pairs))
    return dict(zip(pairs, result["runs"], strict=True))


def curve(scheduler):
    """Return lr and weight decay of 16 updates, of a plain group and one of half the lr."""
    (group,) = scheduler.optimizer.param_groups
    found = []
    for _ in range(16):
        found.append([[group["lr"], group["weight_decay"]], [group["lr"] * 0.5, 0.0]])
        scheduler.step()
    return found


def our_curve():
    return curve(OptimizerParamScheduler(sgd(), **ENTRIES))


def test_an_uninterrupted_run_follows_the_curve(first):
    assert our_curve() == first["runs"]["ours,16"]


def test_it_has_the_values_of_automodels_own_class(first):
    assert first["runs"]["theirs,16"] == first["runs"]["ours,16"]


@pytest.mark.parametrize(
    "pair", [("ours", "ours7"), ("ours", "theirs7"), ("theirs", "ours7")], ids=" of ".join
)
def test_a_resume_goes_on_with_the_same_bits(first, resumed, pair):
    saved = pair[1].replace("7", ",7")
    assert first["runs"]["theirs,16"] == first["runs"][saved] + resumed[pair]


def test_a_schedule_of_ones_own_trains_and_resumes(first, resumed):
    fields = {"lr": schedules.linear(1e-3, 16, warmup=4), "weight_decay": 0.1}
    expected = curve(ParamScheduler(sgd(lr=1e-3, weight_decay=0.1), fields))
    # Its first update is at lr 0, which the program takes for one of DCP's.
    assert expected[1:] == first["runs"]["built,16"]
    assert expected[1:] == first["runs"]["built,7"] + resumed["built", "built7"]


def test_the_recipe_knows_our_scheduler_only_after_install(first):
    assert (False, True) == (first["knew"], first["knows"])


def test_adapters_need_no_framework_until_install_is_called():
    code = "import sys; from dist_sched import adapters; adapters.nemo; adapters.megatron"
    code += "; assert {'nemo_automodel', 'megatron'}.isdisjoint(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(adapters.nemo.install)
