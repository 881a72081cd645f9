"""Updates on a GPU: what a step of a scheduler costs there, CUDA graphs, and training in bf16."""

from __future__ import annotations

import pytest
import torch

from dist_sched import ParamScheduler, adapters, schedules
from helpers import new_group, param_scheduler

on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
EACH_DEVICE = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])

UPDATES = 1000
FALL = schedules.linear(1.0, UPDATES)
FALLS = [torch.tensor(FALL(position)).item() for position in range(UPDATES)]


def tensor_lr(device, count=1):
    """Return an AdamW of some groups, each with a tensor lr of its own on the device."""
    groups = [new_group(lr=torch.tensor(1.0, device=device)) for _ in range(count)]
    for group in groups:
        [parameter] = group["params"]
        group["params"] = [parameter.detach().to(device).requires_grad_()]
        group["params"][0].grad = torch.ones_like(group["params"][0])
    return torch.optim.AdamW(groups, capturable=device == "cuda", foreach=False)


def driven(device, count=1):
    optimizer = tensor_lr(device, count)
    return param_scheduler(optimizer, {"lr": FALL})


def launches(scheduler):
    """Return the names of what a step launches on the device, kernels and copies."""
    from torch.profiler import ProfilerActivity, profile

    scheduler.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        scheduler.step()
        torch.cuda.synchronize()
    events = profiled.events()
    return [each.name for each in events if each.device_type.name == "CUDA"]


@pytest.mark.parametrize("count, most", [(1, 1), (10, 10), (16, 3), (1000, 3)])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_launches_a_kernel_for_each_of_few_groups_and_one_copy_for_many(count, most):
    found = launches(driven("cuda", count))
    assert 0 < len(found) <= most, found


@pytest.mark.parametrize("count", [10, 100])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_with_a_tensor_lr_does_not_wait_for_the_device(count):
    scheduler = driven("cuda", count)
    scheduler.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(100):
            scheduler.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [FALLS[101]] * count == [float(g["lr"]) for g in scheduler.optimizer.param_groups]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_steps_leave_no_memory_behind():
    scheduler = driven("cuda", 10)
    scheduler.step()
    before = torch.cuda.memory_allocated()
    for _ in range(100):
        scheduler.step()
    assert before == torch.cuda.memory_allocated()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_graph_of_an_update_uses_the_lr_of_every_position():
    scheduler = driven("cuda")
    optimizer = scheduler.optimizer
    seen = torch.zeros((), device="cuda")
    other = torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):  # a capture wants the state to be there
        for _ in range(3):
            optimizer.step()
    torch.cuda.current_stream().wait_stream(other)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        seen.copy_(optimizer.param_groups[0]["lr"])
        optimizer.step()
    used = []
    for _ in range(UPDATES):
        graph.replay()
        used.append(seen.clone())
        scheduler.step()
    assert FALLS == torch.stack(used).tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_compiled_update_on_a_gpu_equals_the_plain_one():
    plain, compiled = driven("cuda"), driven("cuda")
    step = torch.compile(compiled.optimizer.step)
    for _ in range(16):
        plain.optimizer.step()
        step()
        plain.step()
        compiled.step()
    ends = [one.optimizer.param_groups[0]["params"][0] for one in (plain, compiled)]
    torch.testing.assert_close(*ends)


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def forward(self, inputs, labels):
        return {"loss": torch.nn.functional.mse_loss(self.layer(inputs), labels)}


@EACH_DEVICE
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trainer_of_transformers_in_bf16_uses_the_curve(device, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = Regression()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    used = []
    optimizer.register_step_pre_hook(lambda one, *_: used.append(one.param_groups[0]["lr"]))
    scheduler = ParamScheduler(optimizer, {"lr": schedules.linear(1.0, 16)})
    data = [{"inputs": torch.ones(8), "labels": torch.ones(1)}] * 16
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=16,
        per_device_train_batch_size=1,
        bf16=True,
        use_cpu=device == "cpu",
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=device != "cpu",
    )
    both = (optimizer, adapters.as_lr_scheduler(scheduler))
    transformers.Trainer(model, arguments, train_dataset=data, optimizers=both).train()
    assert [1 - position / 16 for position in range(16)] == used
