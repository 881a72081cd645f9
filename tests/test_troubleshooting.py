"""What the page of symptoms shows is what the code logs and raises."""

from __future__ import annotations

import re

import pytest
import torch
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler, ParamScheduler, checkpoint, schedules
from helpers import CONFIG, adamw, new_group
from page_helpers import blocks_of, output_of, sections

PAGE = "docs/troubleshooting.md"
LR = schedules.cosine(3e-4, 100_000, warmup=2_000)
ON_RANKS = {
    "ConfigError at the first step, on some ranks",
    "RankMismatchError: ranks disagree",
    "The job hangs at a load, or ends with an error of the backend",
    "A rank says that it adopts rank 0's config",
}
"""Shown by tests/distributed/test_troubleshooting.py."""
CASES = {}


def symptom(heading):
    def add(case):
        CASES[heading] = case
        return case

    return add


def say(action):
    """Run an action, print what it raises, and return what it returns."""
    try:
        return action()
    except BaseException as error:  # noqa: BLE001 - DCP's is no Exception
        print(f"{type(error).__name__}: {error}")  # noqa: T201 - into what is compared


def shown(text):
    """Return the regular expression of a shown text, whose lines are folded."""
    return re.escape(" ".join(text.split())).replace(r"\.\.\.", ".*")


def scheduler_of(*groups, **arguments):
    options = {"lr": 3e-4, **arguments.pop("options", {})}
    return ParamScheduler(
        adamw(*groups, **options), arguments.pop("fields", {"lr": LR}), **arguments
    )


def megatrons(position=0, **changes):
    scheduler = OptimizerParamScheduler(adamw(), **{**CONFIG, **changes})
    scheduler.seek(position)
    return scheduler


def loaded(saved, **changes):
    megatrons(**changes).load_state_dict(megatrons(60, **saved).state_dict())


@symptom("lr jumped after a resume")
def jumped():
    loaded({"max_lr": 0.5}, policy="config")


@symptom("My new horizon has no effect")
def horizon():
    loaded({}, lr_decay_steps=210)


@symptom("The warmup replays after a resume")
def replayed():
    saved = scheduler_of()
    saved.seek(50_000)
    scheduler = scheduler_of()
    scheduler.optimizer.load_state_dict(saved.optimizer.state_dict())
    scheduler.step()
    return {"scheduler": scheduler, "step": 50_000}


@symptom("StateError: the scheduler's position is not the trainer's")
def position():
    megatrons(60).check_position(61)


@symptom("lr moves twice as fast")
def twice():
    scheduler = scheduler_of()
    for _ in range(40):
        scheduler.step()
    say(lambda: scheduler.check_position(10))
    return {"scheduler": scheduler}


@symptom("There is no line in the log")
def no_line():
    loaded({})


@symptom("The report says that perhaps nothing was read")
def nothing_read():
    scheduler = megatrons()
    scheduler.load_state_dict(scheduler.state_dict())


@symptom("Missing key in checkpoint state_dict")
def missing():
    scheduler = scheduler_of()
    dcp.save({"optimizer": scheduler.optimizer.state_dict()}, checkpoint_id="empty")
    dcp.save({"app": scheduler.state_dict()}, checkpoint_id="runs/7b/step-6")
    say(lambda: dcp.load({"scheduler": scheduler}, checkpoint_id="empty"))
    say(lambda: checkpoint.load(scheduler, "empty"))
    return {"scheduler": scheduler}


@symptom("A group has another lr than I wrote")
def another():
    optimizer = adamw({"lr": 0.02, "name": "muon"}, {"lr": 3e-4, "name": "adam"})
    OptimizerParamScheduler(optimizer, **{**CONFIG, "max_lr": 3e-4, "min_lr": 0.0})


@symptom("ConfigError: their ratios are not clear")
def whose():
    scheduler_of({"lr": 0.02, "name": "body"}, {"lr": 1e-3, "name": "head"})


@symptom("lr stays 0")
def stays():
    scheduler = scheduler_of({"name": "body"}, {"lr": 0.0, "name": "head"})
    for finding in scheduler.lint():
        print(f"{finding.level}: {finding.message} [{finding.code}]")  # noqa: T201 - as above


@symptom("Weight decay is on biases, or 0 everywhere")
def decay():
    fields = {"lr": LR, "weight_decay": 0.1}
    scheduler_of({}, {}, fields=fields, options={"weight_decay": 0.0})
    names = {"torch": torch, "ParamScheduler": ParamScheduler, "lr": LR}
    return {**names, "matrices": new_group()["params"], "biases": new_group()["params"]}


@symptom("Layer-wise factors have no effect")
def scaled():
    scheduler_of({"lr_scale": 0.5, "name": "layer0"}, {})


@symptom("My framework's log shows another lr")
def framework():
    return {"scheduler": scheduler_of()}


@symptom("WARNING: something else writes lr")
def something_else():
    scheduler = scheduler_of()
    scheduler.seek(50_000)
    (group,) = scheduler.optimizer.param_groups
    group["lr"] = 7.740386831787415e-05
    scheduler.seek(50_000)
    scheduler.step(0)
    group["lr"] = 1e-5
    scheduler.verify()


@symptom("ConfigError: a newer scheduler writes the groups")
def newer():
    older = scheduler_of()
    ParamScheduler(older.optimizer, {"lr": LR})
    older.step()


@symptom("ReconcileError: its policy is 'strict'")
def strict():
    loaded({"max_lr": 0.5}, policy="strict")


@symptom("ReconcileError: unit")
def unit():
    loaded({}, unit="samples")


@symptom("ConfigError: a length below 1")
def below_one():
    schedules.cosine(3e-4, 100_000, warmup=0.03)


@symptom("ConfigError: no group has this name, or this field")
def no_group():
    scheduler_of({"name": "embed_in"}, groups={"embedding*": {"lr": 0.1}})


@symptom("torch.compile compiles again and again")
def compiled():
    names = {"torch": torch, "ParamScheduler": ParamScheduler, "lr": LR}
    return {**names, "parameters": new_group()["params"]}


@symptom("lr jumps when I extend a decay")
def extended():
    scheduler = scheduler_of()
    scheduler.seek(60_000)
    scheduler.extend(200_000)


@symptom("My torch, HF or DeepSpeed checkpoint moves lr a little")
def foreign():
    state = {"last_epoch": 50_000, "base_lrs": [3e-4], "_last_lr": [1.5e-4], "T_max": 100_000}
    scheduler_of().load_state_dict({**state, "eta_min": 0.0, "_step_count": 50_001})


@pytest.mark.parametrize("heading", CASES)
def test_the_page_shows_what_is_logged_and_raised_and_its_code_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    output = output_of(lambda: names.update(say(CASES[heading]) or {}))
    section = sections(PAGE)[heading]
    for text in blocks_of(section, "text"):
        assert re.search(shown(text), " ".join(output.split())), output
    for block in blocks_of(section, "python"):
        exec(compile(block, PAGE, "exec"), names)  # noqa: S102


def test_every_symptom_is_made_to_happen():
    assert sections(PAGE).keys() - {""} == {*CASES, *ON_RANKS}
