"""How often torch compiles a step of an optimizer anew while a scheduler drives it."""

from __future__ import annotations

import pytest
import torch

from dist_sched import schedules
from helpers import adamw, adamw_of_tensors, param_scheduler

UPDATES = 1000
FALL = {"lr": schedules.linear(1.0, UPDATES)}
BOTH = FALL | {"weight_decay": schedules.linear(0.1, UPDATES)}


def recompilations(optimizer, fields):
    """Return how often the step is compiled beyond the first time, within 1,000 updates."""
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    scheduler = param_scheduler(optimizer, fields)
    [parameter] = optimizer.param_groups[0]["params"]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # makes the state, which a compiled step would be compiled anew for
    step = torch.compile(optimizer.step, backend=backend, fullgraph=False)
    for _ in range(UPDATES):
        step()
        scheduler.step()
    assert UPDATES == scheduler.num_steps
    return len(compiled) - 1


@pytest.mark.parametrize(
    "count, build, fields",
    [(1, adamw, FALL), (0, adamw_of_tensors, FALL), (1, adamw_of_tensors, BOTH)],
    ids=["float lr", "tensor lr", "tensor lr and float weight decay"],
)
def test_a_number_that_changes_costs_one_recompilation_and_a_tensor_none(count, build, fields):
    assert count == recompilations(build(), fields)
