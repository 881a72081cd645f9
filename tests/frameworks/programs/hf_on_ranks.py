"""HF Trainer under FSDP2, and accelerate's loop, on several CPU ranks.

    hf_on_ranks.py FOLDER PART,... [CASE ...]

Of the parts, `whole` makes 16 updates, `save` 7 and a checkpoint, and `load` 9 more from there.
Writes lr and weight decay of every group at every update, by part and case.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, DistributedType, GradientState, PartialState
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, TensorDataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import worker
from dist_sched import ParamScheduler, adapters, schedules

UPDATES, SAVED, ACCUMULATION = 16, 7, 2
FIELDS = {
    "lr": schedules.cosine(1e-3, horizon=16, warmup=4, floor=1e-4),
    "weight_decay": schedules.linear(0.1, horizon=16, floor=0.01),
}
used = []


def note(optimizer, *_):
    groups = optimizer.param_groups
    used.append([[float(group["lr"]), group["weight_decay"]] for group in groups])


def fsdp_on_cpu():
    """Let accelerate choose FSDP2 on the CPU, where it otherwise passes over it without a word."""

    def prepare_backend(*_, **__):
        return "gloo", DistributedType.MULTI_XPU

    def set_device(state):
        state.device = torch.device("cpu")

    return mock.patch.multiple(
        PartialState, _prepare_backend=prepare_backend, set_device=set_device
    )


class Start(TrainerCallback):
    def on_train_begin(self, *_, model, **__):
        used.clear()  # DCP makes an update at lr 0 when it loads
        # Gloo has no other reduction.
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


class Scheduled(Trainer):
    """Schedules the optimizer that the Trainer builds."""

    def create_scheduler(self, num_training_steps, optimizer=None):  # noqa: ARG002
        scheduler = ParamScheduler(self.optimizer, FIELDS)
        self.lr_scheduler = adapters.as_lr_scheduler(scheduler)
        return self.lr_scheduler


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 64}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def trainer(folder, part, kind, **arguments):
    updates = SAVED if part == "save" else UPDATES
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=updates,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=1e-3,
        weight_decay=0.1,
        save_steps=SAVED,
        save_strategy="steps" if part == "save" else "no",
        disable_tqdm=True,
        report_to="none",
        fsdp=True,
        fsdp_config={"version": 2, "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]},
    )
    data = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 128
    return kind(args=settings, train_dataset=data, callbacks=[Start()], **arguments)


class Built(Scheduled):
    """Schedules an optimizer of the script's; FSDP's Trainer refuses `optimizers=`."""

    def create_optimizer(self, model=None):  # noqa: ARG002
        parameters = self.model.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1)
        return self.optimizer


def fsdp2(folder, part, kind):
    with fsdp_on_cpu():
        trainer(folder, part, kind, model=llama()).train(resume_from_checkpoint=part == "load")


def from_theirs(folder, part):
    """Train with the Trainer's own scheduler up to the save, and with ours from then on."""
    fsdp2(folder, part, Scheduled if part == "load" else Trainer)


def loop(folder, part, prepare):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    scheduler = ParamScheduler(optimizer, FIELDS)
    data = DataLoader(TensorDataset(torch.randn(512, 8), torch.randn(512, 1)), batch_size=4)
    model, optimizer, data, paced = prepare(accelerator, model, optimizer, data, scheduler)
    if part == "load":
        accelerator.load_state(folder)
    used.clear()
    last = SAVED if part == "save" else UPDATES
    for inputs, targets in data:
        with accelerator.accumulate(model):
            accelerator.backward(torch.nn.functional.mse_loss(model(inputs), targets))
            optimizer.step()
            paced.step()
            optimizer.zero_grad()
        if scheduler.num_steps == last:
            break
    if part == "save":
        accelerator.save_state(folder)
    scheduler.check_position(last)


def prepare_all(accelerator, model, optimizer, data, scheduler):
    return accelerator.prepare(model, optimizer, data, adapters.as_lr_scheduler(scheduler))


def prepare_scheduler(accelerator, model, optimizer, data, scheduler):
    paced = accelerator.prepare_scheduler(adapters.as_lr_scheduler(scheduler))
    return *accelerator.prepare(model, optimizer, data), paced


CASES = {
    "prepare": lambda folder, part: loop(folder, part, prepare_all),
    "prepare_scheduler": lambda folder, part: loop(folder, part, prepare_scheduler),
    "built": lambda folder, part: fsdp2(folder, part, Built),
    "created": lambda folder, part: fsdp2(folder, part, Scheduled),
    "from theirs": from_theirs,
}


def run(folder, part, case):
    used.clear()
    CASES[case](Path(folder, case), part)
    dist.barrier()  # another rank may still save
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return [*used]


def main():
    folder, parts, *cases = sys.argv[1:]
    register_optimizer_step_pre_hook(note)
    with worker.joined():
        worker.write(
            {
                part: {case: run(folder, part, case) for case in cases or CASES}
                for part in parts.split(",")
            }
        )


main()
