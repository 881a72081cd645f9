"""What the pages about migrating say of frameworks, with the frameworks themselves."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import transformers

from dist_sched import OptimizerParamScheduler, schedules
from migrating_helpers import names, pairs, run

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]


def stepped(scheduler, optimizer, updates):
    """Return the lr of each update."""
    found = []
    for _ in range(updates):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


# torchtitan

SECTION = {"warmup_steps": 100, "decay_ratio": 0.2, "decay_type": "sqrt", "min_lr_factor": 0.1}


@pytest.mark.parametrize(
    "section",
    [
        SECTION,
        {},
        {"decay_type": "cosine", "warmup_steps": 1},
        {"warmup_steps": 2_000},
        {"total_steps": 500},
    ],
    ids=str,
)
def test_torchtitans_values_are_those_of_what_replaces_them(section):
    lr_scheduler = pytest.importorskip("torchtitan.components.optimizer.lr_scheduler")
    optimizer = names()["optimizer"]
    config = lr_scheduler.LRSchedulersContainer.Config(**section)
    end = section.get("total_steps", 1_000)
    theirs = stepped(config.build(optimizers=[optimizer], training_steps=1_000), optimizer, end)
    ours = schedules.from_peer("torchtitan", {**section, "lr": 1e-3, "training_steps": 1_000})
    assert pytest.approx(theirs, rel=0, abs=1e-16) == [ours(n) for n in range(end)]
    assert section != SECTION or run("torchtitan", without=["outputs/checkpoint"])["lr"] == ours


def test_torchtitan_goes_on_below_the_floor_past_the_end():
    lr_scheduler = pytest.importorskip("torchtitan.components.optimizer.lr_scheduler")
    values = {}
    for kind in ("linear", "cosine"):
        optimizer = names()["optimizer"]
        entries = {"warmup_steps": 1, "decay_type": kind, "min_lr_factor": 0.1, "total_steps": 100}
        container = lr_scheduler.LRSchedulersContainer.Config(**entries)
        container = container.build(optimizers=[optimizer], training_steps=1_000)
        values[kind] = stepped(container, optimizer, 200)
    assert 0 > values["linear"][-1]
    assert values["cosine"][-1] > values["cosine"][100]


def test_torchtitans_config_is_built_as_the_page_has_it(monkeypatch):
    pytest.importorskip("torchtitan")
    # Its models need triton, which is not there without a GPU.
    registry = ModuleType("torchtitan.models.llama3.config_registry")
    registry.llama3_debugmodel = SimpleNamespace
    monkeypatch.setitem(sys.modules, registry.__name__, registry)
    left = run("torchtitan", without=["outputs/checkpoint"])
    config = left["config"]()
    container = config.lr_scheduler.build(optimizers=names()["optimizer"], training_steps=1_000)
    assert [left["lr"](n) for n in range(300)] == stepped(
        container, container.scheduler.optimizer, 300
    )


# NeMo AutoModel


def of_nemo(**section):
    configs = pytest.importorskip("nemo_automodel.components.optim.optimizer")
    run_of = SimpleNamespace(epoch_len=None, max_steps=1_000, num_epochs=1)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=1e-3, weight_decay=0.1)
    (scheduler,) = configs.LRSchedulerConfig(**section).build(optimizer, run_of)
    return scheduler


def test_what_a_nemo_recipe_leaves_out_is_as_the_page_has_it():
    left = run("nemo-automodel", without=["checkpoints"])
    theirs = of_nemo(lr_decay_style="cosine", min_lr=1e-5)
    ours = left["scheduler"].to_config()
    assert [] == [name for name in ours if name != "policy" and getattr(theirs, name) != ours[name]]
    assert (1e-4, 100, 1_000, 0.1) == (
        theirs.init_lr,
        theirs.lr_warmup_steps,
        theirs.wd_incr_steps,
        theirs.start_wd,
    )
    assert (1e-5, "cosine") == (of_nemo().min_lr, of_nemo().lr_decay_style)


def test_nemo_refuses_a_warmup_below_1_as_we_do():
    with pytest.raises(ValueError, match="lr_warmup_steps must be an integer"):
        of_nemo(lr_warmup_steps=0.1)
    entries = run("nemo-automodel", without=["checkpoints"])["scheduler"].to_config()
    with pytest.raises(ValueError, match="lr_warmup_steps"):
        OptimizerParamScheduler(names()["optimizer"], **{**entries, "lr_warmup_steps": 0.1})


# transformers


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, labels):
        outputs = self.layer(inputs)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


class Keeps(transformers.TrainerCallback):
    def __init__(self):
        self.values = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        del args, state, control
        self.values.append([group["lr"] for group in kwargs["optimizer"].param_groups])


@pytest.mark.parametrize(
    "words",
    [
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}},
        {"warmup_steps": 0.25},
        {"lr_scheduler_type": "constant"},
    ],
    ids=str,
)
def test_a_trainer_with_the_pages_class_has_the_trainers_values(words, tmp_path, caplog):
    def train(trainer_class, folder, steps, *, resume=False):
        arguments = transformers.TrainingArguments(
            output_dir=folder, learning_rate=1e-3, max_steps=steps, save_steps=8, use_cpu=True,
            per_device_train_batch_size=2, gradient_accumulation_steps=2, report_to="none",
            **{"warmup_steps": 4, **words},
        )  # fmt: skip
        data = [{"inputs": torch.ones(2), "labels": torch.ones(1)}] * 64
        keeps = Keeps()
        trainer = trainer_class(
            model=Regression(), args=arguments, train_dataset=data, callbacks=[keeps]
        )
        trainer.train(resume_from_checkpoint=resume)
        return keeps.values

    ours = run("transformers", without=["out/checkpoint"])["ScheduledTrainer"]
    theirs = train(transformers.Trainer, tmp_path / "theirs", 16)
    assert 16 == len(theirs)
    found = train(ours, tmp_path / "ours", 16)
    assert [pytest.approx(each, rel=1e-12, abs=1e-18) for each in theirs] == found
    caplog.set_level(logging.WARNING, "dist_sched")
    caplog.clear()
    checkpoint = str(tmp_path / "theirs/checkpoint-8")
    assert found[8:] == train(ours, tmp_path / "ours", 16, resume=checkpoint)
    assert "at position 8" in caplog.text


# Lightning

CONFIGURE = [pair for pair in pairs("torch") if "configure_optimizers" in pair[1]]


def fit(part, folder, updates, ckpt_path=None):
    """Train with one of the two pieces of code, and return the lr of each update."""
    lightning = pytest.importorskip("lightning")
    left = run("torch", without=["checkpoint.pt"])
    exec(part, left)  # noqa: S102
    found = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch):
            return self.layer(batch).sum()

        def on_before_optimizer_step(self, optimizer):
            found.append(optimizer.param_groups[0]["lr"])

        def configure_optimizers(self):
            # As long in both runs, whichever stops earlier.
            self.trainer.fit_loop.epoch_loop.max_steps = 16
            configured = left["configure_optimizers"](self)
            self.trainer.fit_loop.epoch_loop.max_steps = updates
            return configured

    trainer = lightning.Trainer(
        max_steps=16, accumulate_grad_batches=2, accelerator="cpu", logger=False,
        default_root_dir=folder, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.ones(64, 2), ckpt_path=ckpt_path)
    trainer.save_checkpoint(folder / f"{updates}.ckpt")
    return found


@pytest.mark.filterwarnings("ignore")  # of Lightning
def test_lightnings_values_are_those_of_what_replaces_them(tmp_path):
    ((_, before, after),) = CONFIGURE
    theirs, ours = fit(before, tmp_path / "theirs", 16), fit(after, tmp_path / "ours", 16)
    assert 16 == len(theirs)
    assert pytest.approx(theirs, rel=1e-12, abs=1e-18) == ours
    fit(before, tmp_path / "theirs", 8)
    resumed = fit(after, tmp_path / "resumed", 16, tmp_path / "theirs/8.ckpt")
    assert ours[8:] == resumed
