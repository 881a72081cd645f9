"""The Python of the pages whose frameworks the ordinary environment lacks runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from dist_sched import OptimizerParamScheduler, ParamScheduler, adapters, schedules
from docs_helpers import Example, run_page
from helpers import CONFIG, adamw, held

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(300),
]

FIELDS = {"lr": schedules.linear(1.0, 10)}


def ignite():
    from ignite.engine import Engine, Events
    from ignite.handlers import Checkpoint

    optimizer = adamw()
    trainer = Engine(lambda _engine, _batch: optimizer.step())
    names = {"adapters": adapters, "Checkpoint": Checkpoint, "Events": Events, "folder": "saved"}
    return names | {"scheduler": ParamScheduler(optimizer, FIELDS), "trainer": trainer}


def ignite_left(names, _printed):
    names["trainer"].run([0, 1, 2])
    assert 3 == names["scheduler"].num_steps
    assert {"trainer", "scheduler"} == names["saver"].to_save.keys()


def nemo():
    class Recipe:
        """A recipe that does nothing; tests/frameworks/test_nemo.py trains with a real one."""

        def __init__(self, config):
            self.ran = [config]

        def setup(self):
            self.ran.append("setup")

        def run_train_validation_loop(self):
            self.ran.append("train")

    optimizer = adamw()
    scheduler = OptimizerParamScheduler(optimizer, **CONFIG)
    saved = OptimizerParamScheduler(adamw(), **CONFIG)
    saved.seek(60)
    dcp.save(
        {"sched": adapters.megatron.ten_keys(saved), "optim": {"step": 1}}, checkpoint_id="optim"
    )
    names = {"adapters": adapters, "dcp": dcp, "config": "config", "scheduler": scheduler}
    names |= {"optim": {"step": 0}, "folder": Path()}
    return names | {"TrainFinetuneRecipeForNextTokenPrediction": Recipe}


def nemo_left(names, _printed):
    assert ["config", "setup", "train"] == names["recipe"].ran
    assert [0.55] == held(names["scheduler"])
    assert 1.0 == names["scheduler"].optimizer.param_groups[0]["lr_mult"]


def torchtitan():
    # torchtitan's own function needs triton, which CPUs lack.
    return {"llama3_debugmodel": SimpleNamespace}


def torchtitan_left(names, _printed):
    scheduler = names["config"].lr_scheduler.make(adamw(), 1000)
    scheduler.seek(200)
    assert [8e-4] == held(scheduler)


def torchft():
    import torchft

    class Manager:
        """A manager of one replica; examples/torchft_replica.py has a real one."""

        def register_state_dict_fn(self, name, load, save):
            self.registered = name, load, save

    names = {"adapters": adapters, "torchft": torchft, "torch": torch, "fields": FIELDS}
    names |= {"model": torch.nn.Linear(2, 1), "manager": Manager()}
    return names | {"ParamScheduler": ParamScheduler}


def torchft_left(names, _printed):
    name, load, save = names["manager"].registered
    assert "scheduler" == name
    load({**save()})
    assert [1.0] == held(names["scheduler"].scheduler)


def deepspeed():
    import deepspeed

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    config = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 2}
    names = {"adapters": adapters, "deepspeed": deepspeed, "ParamScheduler": ParamScheduler}
    names |= {"model": model, "optimizer": optimizer, "fields": FIELDS, "folder": "saved"}
    return names | {"config": config, "batches": [torch.ones(1, 2)] * 4}


def deepspeed_left(names, _printed):
    assert names["scheduler"] is names["engine"].lr_scheduler.scheduler


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return lambda page, *example: run_page(f"docs/frameworks/{page}", Example(*example), capsys)


def test_the_page_of_ignite_runs(run):
    run("ignite.md", ignite, ignite_left)


def test_the_page_of_nemo_automodel_runs(run, monkeypatch):
    monkeypatch.setattr(adapters.nemo, "install", lambda: None)  # it cannot be undone
    run("nemo-automodel.md", nemo, nemo_left)


def test_the_page_of_torchtitan_runs(run):
    run("torchtitan.md", torchtitan, torchtitan_left)


def test_the_page_of_torchft_runs(run):
    run("torchft.md", torchft, torchft_left)


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)
def test_the_page_of_deepspeed_runs(run, monkeypatch):
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in {**place, "LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, value)
    run("deepspeed.md", deepspeed, deepspeed_left)
    dist.destroy_process_group()
